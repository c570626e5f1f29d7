# SPDX-License-Identifier: Apache-2.0
"""The same parameters and recipe in every format: what each would take."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import optax

from adamx.cli import names
from adamx.cli.flags import UsageError
from adamx.core import dtypes
from adamx.footprint import Footprint, Shard, nbytes


class Row(NamedTuple):
    """A storage, a landing (or what others have in its place, or None), and their bytes."""

    storage: str
    landing: str | None
    footprint: Footprint


def side_by_side(
    recipe: str, storages: Sequence[str], landings: Sequence[str], params: Any, shard: Shard
) -> list[Row]:
    """One row for each format, after what is common for parameters narrower than float32."""

    def footprint(params: Any, **settings: str) -> Footprint:
        opt = names.ours(recipe, learning_rate=1e-3, **settings)
        try:
            return _total(opt, params, shard)
        except TypeError as error:  # parameters that a storage does not take, in its own words
            raise UsageError(str(error)) from error

    rows = []
    copies = _total(_FLOAT32_COPIES, params, shard).moments
    if copies:
        wide = jax.tree.map(_widened, params)
        mixed = footprint(params, storage="float32")._replace(landing=copies)
        rows.append(Row("float32", None, footprint(wide, storage="float32")))
        rows.append(Row("float32", "float32 copy", mixed))
    for storage in storages:
        for landing in landings:
            found = footprint(params, storage=storage, landing=landing)
            rows.append(Row(storage, landing, found))
    return rows


def _total(opt: optax.GradientTransformation, params: Any, shard: Shard) -> Footprint:
    """As `nbytes`, for an optimizer to which every leaf is like any other of its shape and dtype:
    of a model's hundreds of leaves about ten are distinct."""
    alike = Counter((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(params))
    found = Footprint(0, 0, 0, 0, 0, 0)
    for kind, count in alike.items():
        one = nbytes(opt, {"leaf": jax.ShapeDtypeStruct(*kind)}, shard=shard)
        sums = (total + count * more for total, more in zip(found, one, strict=True))
        found = Footprint(*sums)._replace(other=one.other)
    return found


def _widened(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, dtypes.working(leaf.dtype))


def _copies(params: Any) -> Any:
    def copy(p: jax.Array) -> jax.Array | None:
        return None if p.dtype == dtypes.working(p.dtype) else dtypes.widen(p)

    return jax.tree.map(copy, params)


# Mixed precision as it is mostly done: beside each narrow parameter rests a float32 copy.
_FLOAT32_COPIES = optax.GradientTransformation(_copies, optax.identity().update)
