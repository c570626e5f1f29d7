# SPDX-License-Identifier: Apache-2.0
"""From a rule on one array to a gradient transformation on a tree.

The only place where a leaf's moments are decoded, moved by the rule and encoded again. Formulas
belong to `rules/`, bit layouts to `storage/`, the dtype in which a step leaves to `landing/`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike

from adamx.core import dtypes, hyperparameters, paths, random_bits, shards
from adamx.core.per_leaf import leafwise
from adamx.core.rule import Rule, is_signed
from adamx.moments.described import described
from adamx.moments.layout import Layout
from adamx.storage import Choice, Storage, StorageLike, choose, recognised


def scale_by(
    rule: Rule, storage: StorageLike | Choice | None = None
) -> optax.GradientTransformationExtraArgs:
    """The transformation that replaces gradients by the directions of `rule`.

    Directions leave in at least float32, whatever the gradients' dtype: links that follow lose
    nothing, and `landing` casts once at the end.

    Args:
      rule: one of `adamx.rules`.
      storage: how moments rest: a name, a `Storage`, a table of path patterns, or a function of
        leaf path and shape.

    Returns:
      A transformation whose state is `rule.state`, Optax's own class, or a `PackedState` where
      moments share bytes.
    """
    choice = choose(storage)

    @functools.cache
    def step_leaf(storage: Storage, whole: tuple[int, ...] | None) -> Any:
        return leafwise(functools.partial(_step_leaf, rule, storage, whole))

    def init(params: optax.Params) -> Any:
        leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
        rests, storages = [], []
        for path, leaf in leaves:
            name = paths.name(path)
            _check_dtype(rule, name, "parameter", leaf)
            storages.append(choice.of(name, shards.whole(name, jnp.shape(leaf))))
            rests.append(_first(storages[-1], rule, name, leaf))
        layout = Layout.of(rule, choice.among or storages)
        state = layout.state(jnp.zeros([], jnp.int32), rests, treedef)
        return described(state, rule, choice)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, Any]:
        leaves, treedef = jax.tree_util.tree_flatten_with_path(updates)
        names = [paths.name(path) for path, _ in leaves]
        shapes = [jnp.shape(leaf) for _, leaf in leaves]
        wholes = [shards.whole(*leaf) for leaf in zip(names, shapes, strict=True)]
        storages = [choice.of(*leaf) for leaf in zip(names, wholes, strict=True)]
        layout = Layout.of(rule, choice.among or storages)
        count, rests = layout.rests(state, updates, treedef)
        scalars = _Scalars(rule, count, extra)
        for name, (_, leaf), rest, storage in zip(names, leaves, rests, storages, strict=True):
            _check_dtype(rule, name, "gradient", leaf)
            _check_leaf(rule, name, leaf, rest, storage)
        keys = _keys(storages, count, names)
        directions = []
        for i, ((_, g), storage) in enumerate(zip(leaves, storages, strict=True)):
            row = None if storage.seed is None else (keys, np.uint32(i))
            start = shards.first(names[i], shapes[i])
            now = scalars[dtypes.real(_working(g, rests[i]))]
            whole = None if wholes[i] == shapes[i] else wholes[i]
            direction, rests[i] = step_leaf(storage, whole)((g, rests[i], row, start), now)
            directions.append(direction)
        count = optax.safe_increment(count)
        return treedef.unflatten(directions), layout.state(count, rests, treedef)

    return optax.GradientTransformationExtraArgs(init, update)


def _step_leaf(
    rule: Rule,
    storage: Storage,
    whole: tuple[int, ...] | None,
    arrays: tuple,
    scalars: dict[str, Any],
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Decode, one formula, encode."""
    g, rest, row, start = arrays
    dtype = _working(g, rest)
    moments = {
        k: m.astype(dtype if is_signed(rule.moments[k]) else dtypes.real(dtype))
        for k, m in storage.decode(rest, rule.moments).items()
    }
    g = _saturated(jnp.asarray(g).astype(dtype))
    direction, moments = rule.formula(g, **moments, **scalars)
    key: Any = None if row is None else lax.dynamic_index_in_dim(*row, keepdims=False)
    key = key if whole is None or key is None else random_bits.Key(key, whole, start)
    return direction, storage.encode(moments, rule.moments, rest, key)


def _working(g: ArrayLike, rest: dict[str, jax.Array]) -> jnp.dtype:
    """The dtype to compute in: the gradient's, widened by complex or double-precision moments."""
    wide = (m.dtype for m in rest.values() if m.dtype in _WIDE)
    return dtypes.working(dtypes.of(g), *wide)


_WIDE = (jnp.float64, jnp.complex64, jnp.complex128)


def _keys(storages: list[Storage], count: jax.Array, names: list[str]) -> jax.Array | None:
    """The streams of all leaves at this step, found at once; None where nothing is random."""
    if all(storage.seed is None for storage in storages):
        return None
    seeds = np.asarray([storage.seed or 0 for storage in storages], np.uint32)
    salts = np.asarray([random_bits.salt(name) for name in names], np.uint32)
    return random_bits.keys(seeds, count, salts)


def _saturated(g: jax.Array) -> jax.Array:
    """`g` with finite values held within the root of the dtype's range; inf becomes NaN.

    The square of a float32 gradient of 1e20 is inf, and inf in a moment is for ever. Held at
    2^62 (2^510 in float64), squares and three-fold sums of squares stay finite, and a coordinate
    that met one wild gradient moves again as soon as b2 has forgotten it.
    """
    if jnp.iscomplexobj(g):
        return lax.complex(_saturated(g.real), _saturated(g.imag))
    most = jnp.asarray(2.0 ** (jnp.finfo(g.dtype).maxexp // 2 - 2), g.dtype)
    return lax.clamp(-most, g, most) + 0 * g  # of which inf makes a NaN


class _Scalars(dict):
    """The rule's scalars of this step, computed once for each real dtype that leaves ask for."""

    def __init__(self, rule: Rule, count: jax.Array, extra: dict[str, Any]):
        self.rule, self.step = rule, optax.safe_increment(count)
        self.hyper = {
            k: hyperparameters.value_at(k, v, count, extra) for k, v in rule.hyper.items()
        }

    def __missing__(self, dtype: jnp.dtype) -> dict[str, jax.Array]:
        values = {k: hyperparameters.exact(v, dtype) for k, v in self.hyper.items()}
        found = self.rule.at(jnp.asarray(self.step).astype(dtype), **values)
        self[dtype] = {k: hyperparameters.rounded(v, dtype) for k, v in found.items()}
        return self[dtype]


def _first(storage: Storage, rule: Rule, name: str, leaf: Any) -> dict[str, jax.Array]:
    try:
        return storage.init(leaf, rule.moments, rule.start)
    except TypeError as e:
        raise TypeError(f"{name}: {e} ({rule.name})") from e


def _check_dtype(rule: Rule, name: str, what: str, leaf: Any) -> None:
    try:
        dtype = dtypes.of(leaf)
    except TypeError:
        dtype = type(leaf).__name__
    if isinstance(dtype, str) or not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(
            f"{name}: {what} is {dtype}, {rule.name} needs floating point "
            "(leave such leaves out with `optax.masked` or `optax.partition`)"
        )


def _check_leaf(
    rule: Rule, name: str, g: ArrayLike, rest: dict[str, jax.Array], storage: Storage
) -> None:
    for array in rest.values():
        if jnp.shape(array) != jnp.shape(g):
            raise ValueError(
                f"{name}: gradient has shape {jnp.shape(g)}, state has {jnp.shape(array)}"
            )
    complaint = storage.complaint(rest, rule.moments, dtypes.of(g))
    if complaint:
        found = recognised(rest, rule.moments, dtypes.of(g))
        hint = f"; it rests as {found!r}: `adamx.convert` makes a {storage.name!r} of it"
        raise TypeError(f"{name}: {complaint} ({rule.name}){hint if found else ''}")
