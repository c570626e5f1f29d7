# SPDX-License-Identifier: Apache-2.0
"""One node of any state, such as Optax's `MuonState`: its moments encoded, and decoded again.

The node keeps its class, and only the dtypes of its moments change; moments that share bytes, as
Adam's two under `int4`, are kept in a `PackedState` instead, as by recipes of ours.
"""

from typing import Any

import jax
import jax.numpy as jnp

from adamx.core import dtypes, random_bits, shards
from adamx.core.per_leaf import leafwise
from adamx.core.rule import Kind, is_signed
from adamx.moments.columns import Column
from adamx.moments.nodes import Node
from adamx.moments.scale_by import static_storage, without_derivative
from adamx.storage import Arrays, Choice, Storage
from adamx.storage.compact import fit_for_codes


def encoded(node: Node, wide: Any, old: Any, like: Any, count: jax.Array, choice: Choice) -> Any:
    """The node `wide` as it is stored, in place of `old`, if this is not the start."""
    column = Column.of(node, like, choice)
    rows, before = column.rows(wide), None if old is None else column.stored(old)
    seeds = [getattr(storage, "seed", None) for storage in column.storages]
    noise = random_bits.of_leaves(seeds, count, [f"{node.place}/{name}" for name in column.names])
    static, found = tuple(node.kinds.items()), []
    for i, (moments, storage) in enumerate(zip(rows, column.storages, strict=True)):
        if storage is None:
            found.append(moments)
            continue
        part = shards.Part()  # at the start arrays are whole, or blanks of one value
        if before is not None:
            part = shards.part(column.names[i], jnp.shape(column.leaves[i]))
        held = (
            storage.init(next(iter(moments.values())), node.kinds, {})
            if before is None
            else before[i]
        )
        arrays = (moments, held, noise[i], part.first)
        found.append(_encoded(arrays, {}, static, static_storage(storage), part.whole))
    return column.closed(wide, found)


def decoded(node: Node, held: Any, like: Any, choice: Choice) -> Any:
    """The node as its transformation knows it, the moments in at least float32."""
    column = Column.of(node, like, choice)
    static, found = tuple(node.kinds.items()), []
    for i, (arrays, storage) in enumerate(zip(column.stored(held), column.storages, strict=True)):
        if storage is not None:
            dtype = dtypes.working(dtypes.of(column.leaves[i]))
            arrays = _decoded(arrays, {}, static, static_storage(storage), dtype)
        found.append(arrays)
    return column.opened(held, found)


@leafwise
def _encoded(arrays: tuple, scalars: Any, kinds: tuple, storage: Storage, whole: Any) -> Arrays:
    moments, old, words, first = arrays
    kinds_: dict[str, Kind] = dict(kinds)
    moments = {k: dtypes.widen(m) for k, m in moments.items()}
    key: Any = None if words is None else random_bits.Key(words, whole, first)
    if any(jnp.issubdtype(x.dtype, jnp.integer) for x in old.values()):
        moments = fit_for_codes(moments, kinds_)
    stored = storage.encode(moments, kinds_, old, key)
    codes = {k: a for k, a in stored.items() if jnp.issubdtype(a.dtype, jnp.integer)}
    return stored | (without_derivative(codes, moments, storage.name) if codes else {})


@leafwise
def _decoded(arrays: Arrays, scalars: Any, kinds: tuple, storage: Storage, dtype: Any) -> Arrays:
    kinds_: dict[str, Kind] = dict(kinds)
    return {
        k: m.astype(dtype if is_signed(kinds_[k]) else dtypes.real(dtype))
        for k, m in storage.decode(arrays, kinds_).items()
    }
