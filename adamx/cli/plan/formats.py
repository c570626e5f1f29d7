# SPDX-License-Identifier: Apache-2.0
"""The bytes of the same parameters and recipe in every format."""

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
    """A storage, a landing (or "float32 copy", or None for neither), and their bytes."""

    storage: str
    landing: str | None
    footprint: Footprint


def side_by_side(
    recipe: str, storages: Sequence[str], landings: Sequence[str], params: Any, shard: Shard
) -> list[Row]:
    """One row per format; first the two usual set-ups for parameters narrower than float32."""

    def footprint(params: Any, **settings: str) -> Footprint:
        opt = names.ours(recipe, learning_rate=1e-3, **settings)
        try:
            return _total(opt, params, shard)
        except TypeError as error:  # a parameter that the storage does not accept
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
    """As `nbytes`, for an optimizer that treats leaves of one shape and dtype alike.

    A model has hundreds of leaves, about ten of them distinct.
    """
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


# The usual mixed precision: a float32 copy of each narrower parameter.
_FLOAT32_COPIES = optax.GradientTransformation(_copies, optax.identity().update)
