# SPDX-License-Identifier: Apache-2.0
"""From a landing on one array to the last link of any chain.

Walks the tree, hands out noise and keeps the state. Where a step lands is the business of the
landing's own file.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from adamx.core import dtypes, paths, random_bits, shards
from adamx.core.per_leaf import leafwise
from adamx.core.step import compiled
from adamx.landing.float_words import HALVES

Link = optax.GradientTransformationExtraArgs

# `(parameter, float32 step, remainder, random bits) -> (float32 update, remainder)`
Land = Callable[[jax.Array, jax.Array, Any, Any], tuple[jax.Array, Any]]


class LandingState(NamedTuple):
    """What a landing keeps between steps.

    Attributes:
      draws: how often random bits were drawn; None where none are.
      remainder: what each parameter lacks of its weight, in the parameter's shape;
        `optax.MaskedNode()` for parameters that lack nothing. None where nothing is kept.
    """

    draws: jax.Array | None
    remainder: Any


def link(
    name: str,
    land: Land,
    remainder: Callable[[jnp.dtype], Any] | None = None,
    seed: int | None = None,
) -> Link:
    """The transformation that lands steps in bfloat16 and float16 parameters by `land`.

    Other parameters take their step as it is, and keep nothing. `update(..., step_scale=x)` makes
    the steps of one call longer or shorter, before they land.

    Args:
      name: what errors call the landing.
      land: the landing of one array.
      remainder: the remainder's dtype for a parameter's dtype; None keeps no remainder.
      seed: names the noise; None where the landing draws none.
    """

    def init(params: optax.Params) -> Any:
        draws = None if seed is None else jnp.zeros([], jnp.int32)
        rest = None if remainder is None else jax.tree.map(nothing, params)
        return LandingState(draws, rest)

    def nothing(p: Any) -> Any:
        if remainder is None or not _is_half(p):
            return optax.MaskedNode()
        return jnp.full_like(p, 0, dtype=remainder(p.dtype))

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, Any]:
        _check_state(name, state)
        if params is None and jax.tree.leaves(updates):
            raise ValueError(
                f"{name}: a landing needs the parameters: call `update(grads, state, params)`"
            )
        steps, treedef = jax.tree_util.tree_flatten_with_path(updates, is_leaf=_is_none)
        parameters = _columns(name, treedef, updates, params, "the parameters")
        rests: list[Any] = [None] * len(steps)
        if remainder is not None:
            rests = _columns(name, treedef, updates, state.remainder, "the state's remainder")
        names = [paths.name(path) for path, _ in steps]
        if extra.get("step_scale") is not None:
            steps = [(path, _scaled(step, extra["step_scale"])) for path, step in steps]
        keys = None if seed is None else _keys(seed, state.draws, names)
        landed = []
        for i, ((_, step), p) in enumerate(zip(steps, parameters, strict=True)):
            if step is not None and _is_half(p):
                want = None if remainder is None else jnp.dtype(remainder(p.dtype))
                _check(name, names[i], step, p, rests[i], want)
                row, shape = None if keys is None else (keys, np.uint32(i)), jnp.shape(step)
                start = shards.first(names[i], shape)
                land_leaf = leaf(shards.whole(names[i], shape))
                step, rests[i] = land_leaf((p, step, rests[i], row, start), {})
            elif step is not None:
                step = _as_it_is(step, p)
            landed.append(step)
        draws = None if seed is None else optax.safe_increment(state.draws)
        rest = None if remainder is None else treedef.unflatten(rests)
        return treedef.unflatten(landed), LandingState(draws, rest)  # pyright: ignore[reportArgumentType]

    @functools.cache
    def leaf(whole: tuple[int, ...]) -> Any:
        return leafwise(functools.partial(_land_leaf, land, whole))

    return compiled(optax.GradientTransformationExtraArgs(init, update), ("step_scale",))


def _scaled(step: Any, scale: Any) -> Any:
    if step is None:
        return None
    step = dtypes.widen(step)
    return step * jnp.asarray(scale).astype(step.dtype)


def _land_leaf(
    land: Land, whole: tuple[int, ...], arrays: tuple, scalars: Any
) -> tuple[jax.Array, Any]:
    p, step, rest, row, start = arrays
    bits = None
    if row is not None:
        key = random_bits.Key(lax.dynamic_index_in_dim(*row, keepdims=False), whole, start)
        bits = random_bits.bits(key, jnp.shape(p))
    step = dtypes.cast(jnp.asarray(step), _FLOAT32)
    update, rest = land(jnp.asarray(p), step, rest, bits)
    return straight(update, step), rest


@jax.custom_jvp
def straight(rounded: jax.Array, plain: jax.Array) -> jax.Array:
    """`rounded`, whose derivative is taken to be that of `plain`: rounding itself has none."""
    return rounded


@straight.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return primals[0], tangents[1]


_FLOAT32 = jnp.dtype(jnp.float32)


def _is_none(x: Any) -> bool:
    return x is None


def _is_half(p: Any) -> bool:
    return getattr(p, "dtype", None) in HALVES


def _keys(seed: int, draws: jax.Array, names: list[str]) -> jax.Array:
    """The streams of all leaves at this step, others than those in which moments are rounded."""
    salts = np.asarray([random_bits.salt(f"{name}: landing") for name in names], np.uint32)
    return random_bits.keys(np.uint32(seed), draws, salts)


def _as_it_is(step: Any, p: Any) -> jax.Array:
    step = jnp.asarray(step)
    return dtypes.cast(step, dtypes.wider(step.dtype, dtypes.of(p)))


def _columns(name: str, treedef: Any, updates: Any, tree: Any, what: str) -> list[Any]:
    try:
        return treedef.flatten_up_to(tree)
    except (ValueError, TypeError) as e:
        raise ValueError(f"{name}: {paths.difference(tree, updates, what, 'the step')}") from e


def _check_state(name: str, state: Any) -> None:
    if not isinstance(state, LandingState):
        raise ValueError(
            f"{name}: the state is a {type(state).__name__}, expected LandingState: it was made "
            "with another landing, or restored without a target"
        )


def _check(name: str, path: str, step: Any, p: Any, rest: Any, want: jnp.dtype | None) -> None:
    if jnp.shape(step) != jnp.shape(p):
        raise ValueError(
            f"{path}: step has shape {jnp.shape(step)}, parameter has {jnp.shape(p)} ({name})"
        )
    held = getattr(rest, "dtype", None), getattr(rest, "shape", None)
    if want is not None and held != (want, jnp.shape(p)):
        raise TypeError(
            f"{path}: the remainder of a {p.dtype} parameter must be {want} of shape "
            f"{jnp.shape(p)}, got {held[0]} of shape {held[1]} ({name})"
        )
