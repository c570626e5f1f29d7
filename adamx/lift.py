# SPDX-License-Identifier: Apache-2.0
"""From a rule on one array to a gradient transformation on a tree.

The only place where a leaf's moments are decoded, moved by the rule and encoded again. Formulas
belong to `rules/`, bit layouts to `storage/`, the dtype in which a step leaves to `landing/`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from adamx import dtypes, hyper, noise, paths
from adamx.rules.rule import Rule
from adamx.storage import Storage, StorageLike, choose


def scale_by(
    rule: Rule, storage: StorageLike | None = None
) -> optax.GradientTransformationExtraArgs:
    """The transformation that replaces gradients by the directions of `rule`.

    Directions leave in at least float32, whatever the gradients' dtype: links that follow lose
    nothing, and `landing` casts once at the end.

    Args:
      rule: one of `adamx.rules`.
      storage: how moments rest: a name, a `Storage`, or a function of leaf path and shape.

    Returns:
      A transformation whose state is `rule.state`, Optax's own class.
    """
    storage_of = choose(storage)
    step_leaf = jax.jit(functools.partial(_step_leaf, rule), static_argnames="storage")

    def init(params: optax.Params) -> Any:
        leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
        rests = []
        for path, leaf in leaves:
            name = paths.name(path)
            _check_dtype(rule, name, "parameter", leaf)
            storage = storage_of(name, jnp.shape(leaf))
            rests.append(storage.init(leaf, rule.moments, rule.start))
        return _state(rule, jnp.zeros([], jnp.int32), rests, treedef)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, Any]:
        leaves, treedef = jax.tree_util.tree_flatten_with_path(updates)
        rests = _rests(rule, state, updates, treedef)
        count = getattr(state, rule.count)
        scalars = _Scalars(rule, count, extra)
        directions, new_rests = [], []
        for (path, leaf), rest in zip(leaves, rests, strict=True):
            name = paths.name(path)
            _check_dtype(rule, name, "gradient", leaf)
            g = jnp.asarray(leaf)
            storage = storage_of(name, g.shape)
            _check_leaf(rule, name, g, rest, storage)
            working = dtypes.working(g.dtype, *(m.dtype for m in rest.values() if _is_wide(m)))
            salt = None if storage.seed is None else jnp.uint32(noise.salt(name))
            direction, rest = step_leaf(
                g.astype(working), rest, scalars[dtypes.real(working)], count, salt, storage=storage
            )
            directions.append(direction)
            new_rests.append(rest)
        count = optax.safe_increment(count)
        return treedef.unflatten(directions), _state(rule, count, new_rests, treedef)

    return optax.GradientTransformationExtraArgs(init, update)


def _step_leaf(
    rule: Rule,
    g: jax.Array,
    rest: dict[str, jax.Array],
    scalars: dict[str, jax.Array],
    count: jax.Array,
    salt: jax.Array | None,
    *,
    storage: Storage,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Decode, one formula, encode."""
    moments = {
        k: m.astype(g.dtype if rule.moments[k] == "signed" else dtypes.real(g.dtype))
        for k, m in storage.decode(rest, rule.moments).items()
    }
    key: Any = None if salt is None else noise.key(storage.seed or 0, count, salt)
    direction, moments = rule.formula(_saturated(g), **moments, **scalars)
    return direction, storage.encode(moments, rule.moments, rest, key)


def _saturated(g: jax.Array) -> jax.Array:
    """`g` with finite values held within the root of the dtype's range; inf and NaN pass.

    The square of a float32 gradient of 1e20 is inf, and inf in a moment is for ever. Held at
    2^62 (2^510 in float64), squares and three-fold sums of squares stay finite, and a coordinate
    that met one wild gradient moves again as soon as b2 has forgotten it.
    """
    if jnp.iscomplexobj(g):
        return lax.complex(_saturated(g.real), _saturated(g.imag))
    most = jnp.asarray(2.0 ** (jnp.finfo(g.dtype).maxexp // 2 - 2), g.dtype)
    return jnp.where(jnp.isinf(g), g, lax.clamp(-most, g, most))


class _Scalars(dict):
    """The rule's scalars of this step, computed once for each real dtype that leaves ask for."""

    def __init__(self, rule: Rule, count: jax.Array, extra: dict[str, Any]):
        self.rule, self.step = rule, optax.safe_increment(count)
        self.hyper = {k: hyper.value_at(k, v, count, extra) for k, v in rule.hyper.items()}

    def __missing__(self, dtype: jnp.dtype) -> dict[str, jax.Array]:
        values = {k: hyper.exact(v, dtype) for k, v in self.hyper.items()}
        found = self.rule.at(jnp.asarray(self.step).astype(dtype), **values)
        self[dtype] = {k: hyper.rounded(v, dtype) for k, v in found.items()}
        return self[dtype]


def _state(rule: Rule, count: ArrayLike, rests: list[dict], treedef: Any) -> Any:
    trees = {k: treedef.unflatten([rest[k] for rest in rests]) for k in rule.moments}
    return rule.state(**{rule.count: count}, **trees)


def _rests(rule: Rule, state: Any, updates: Any, treedef: Any) -> list[dict[str, jax.Array]]:
    """The state's arrays leaf by leaf, or an error that says how state and gradients differ."""
    if type(state) is not rule.state:
        raise ValueError(
            f"{rule.name}: the state is a {type(state).__name__}, expected "
            f"{rule.state.__name__}: it was made by another recipe, or restored without a target"
        )
    columns = {}
    for moment in rule.moments:
        tree = getattr(state, moment)
        try:
            columns[moment] = treedef.flatten_up_to(tree)
        except (ValueError, TypeError) as e:
            what = paths.difference(tree, updates, f"the state's `{moment}`", "the gradient")
            raise ValueError(f"{rule.name}: {what}") from e
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


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
    rule: Rule, name: str, g: jax.Array, rest: dict[str, jax.Array], storage: Storage
) -> None:
    for array in rest.values():
        if jnp.shape(array) != g.shape:
            raise ValueError(f"{name}: gradient has shape {g.shape}, state has {jnp.shape(array)}")
    complaint = storage.complaint(rest, rule.moments, g)
    if complaint:
        raise TypeError(f"{name}: {complaint} ({rule.name})")


def _is_wide(array: jax.Array) -> bool:
    """Whether a moment at rest widens the arithmetic: complex and double precision ones do."""
    return array.dtype in (jnp.float64, jnp.complex64, jnp.complex128)
