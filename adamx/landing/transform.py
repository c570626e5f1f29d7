# SPDX-License-Identifier: Apache-2.0
"""Turns a landing on one array into the last link of a chain.

Walks the tree, hands out noise and keeps the state. The arithmetic is in each landing's own file.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from adamx.core import dtypes, paths, random_bits, shards
from adamx.core.arithmetic import straight
from adamx.core.compiled import compiled
from adamx.core.instances import is_none
from adamx.core.per_leaf import leafwise
from adamx.core.rows import check_state
from adamx.core.values import value
from adamx.landing.float_words import HALVES

Link: TypeAlias = optax.GradientTransformationExtraArgs

# `(parameter, float32 step, remainder, random bits) -> (float32 update, remainder)`
Land = Callable[[jax.Array, jax.Array, Any, Any], tuple[jax.Array, Any]]


class LandingState(NamedTuple):
    """The state of a landing.

    Attributes:
      draws: the number of steps that drew random bits; None if the landing draws none.
      remainder: the low-order bits that each half-precision parameter cannot hold, in its shape;
        `optax.MaskedNode()` for other parameters. None if the landing keeps no remainder.
    """

    draws: jax.Array | None
    remainder: Any


def link(
    name: str,
    land: Land,
    remainder: Callable[[jnp.dtype], Any] | None = None,
    seed: random_bits.Seed | None = None,
) -> Link:
    """The transformation that applies `land` to the steps of bfloat16 and float16 parameters.

    Other parameters take their step as it is and keep no remainder. `remainder` maps a parameter's
    dtype to its remainder's. `update(..., step_scale=x)` multiplies the steps of one call by `x`
    before they land.
    """

    return compiled(LandingLink(name, land, remainder, seed), ("step_scale",))


@value
class LandingLink:
    """The transformation that `link` builds."""

    name: str
    land: Land
    remainder: Callable[[jnp.dtype], Any] | None
    seed: random_bits.Seed | None

    def init(self, params: optax.Params) -> Any:
        draws = None if self.seed is None else jnp.zeros([], jnp.int32)
        remainder = None if self.remainder is None else jax.tree.map(self._nothing, params)
        return LandingState(draws, remainder)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        name = self.name
        check_state(name, state, LandingState, _ELSE)
        if params is None and jax.tree.leaves(updates):
            raise ValueError(
                f"{name}: a landing needs the parameters: call `update(grads, state, params)`"
            )
        steps, treedef = paths.flatten(updates, is_leaf=is_none)
        parameters = _columns(name, treedef, updates, params, "the tree of parameters")
        remainders: list[Any] = [None] * len(steps)
        if self.remainder is not None:
            remainders = _columns(name, treedef, updates, state.remainder, "the state's remainder")
        names = [paths.name(path) for path, _ in steps]
        kept = any(hasattr(x, "dtype") for x in remainders)  # then the leaf is named below
        if steps and not any(map(_is_half, parameters)) and not (kept or paths.is_hidden(updates)):
            warnings.warn(
                f"landing {name!r} does nothing: no parameter is bfloat16 or float16. {WIDENED}",
                stacklevel=2,
            )
        if extra.get("step_scale") is not None:
            steps = [(path, _scaled(step, extra["step_scale"])) for path, step in steps]
        seeds = [self.seed] * len(steps)
        noise = random_bits.of_leaves(seeds, state.draws, names)
        landed = []
        for i, ((_, step), p) in enumerate(zip(steps, parameters, strict=True)):
            if step is not None and _is_half(p):
                want = None if self.remainder is None else jnp.dtype(self.remainder(p.dtype))
                _check(name, names[i], step, p, remainders[i], want)
                part = shards.part(names[i], jnp.shape(step))
                arrays = (p, step, remainders[i], noise[i], part.first)
                step, remainders[i] = land_leaf(arrays, {}, self.land, part.whole)
            elif step is not None:
                if hasattr(remainders[i], "dtype"):
                    raise TypeError(
                        f"{names[i]}: the state has the remainder of a half-precision parameter, "
                        f"got one of {dtypes.of(p)} ({name}). {WIDENED}"
                    )
                step = _as_it_is(step, p)
            landed.append(step)
        draws = None if self.seed is None else optax.safe_increment(state.draws)
        remainder = None if self.remainder is None else treedef.unflatten(remainders)
        return treedef.unflatten(landed), LandingState(draws, remainder)  # pyright: ignore[reportArgumentType]

    def _nothing(self, p: Any) -> Any:
        if self.remainder is None or not _is_half(p):
            return optax.MaskedNode()
        return jnp.full_like(p, 0, dtype=self.remainder(p.dtype))


def _scaled(step: Any, scale: Any) -> Any:
    if step is None:
        return None
    step = dtypes.widen(step)
    return step * jnp.asarray(scale).astype(step.dtype)


@leafwise
def land_leaf(
    arrays: tuple, scalars: Any, land: Land, whole: tuple[int, ...] | None
) -> tuple[jax.Array, Any]:
    """The update and the remainder of one leaf: `(p, step, remainder, words, first)`."""
    p, step, remainder, words, first = arrays
    bits = None
    if words is not None:
        key = random_bits.Key(words, whole, first)
        bits = random_bits.noise(key, jnp.shape(p)).draw(random_bits.LANDING)
    step = dtypes.cast(jnp.asarray(step), _FLOAT32)
    update, remainder = land(jnp.asarray(p), step, remainder, bits)
    return straight(update, step), remainder


_FLOAT32 = jnp.dtype(jnp.float32)


WIDENED = (
    "If the last step widened them: `adamx.step` and `optax.apply_updates` keep a parameter's "
    "dtype, `equinox.apply_updates` and `p + u` do not"
)


def _is_half(p: Any) -> bool:
    return getattr(p, "dtype", None) in HALVES


def _as_it_is(step: Any, p: Any) -> jax.Array:
    step, dtype = jnp.asarray(step), dtypes.of(p)
    return dtypes.cast(step, dtype if dtype.itemsize == 1 else dtypes.wider(step.dtype, dtype))


_ELSE = "it was made with another landing, or restored without a target"


def _columns(name: str, treedef: Any, updates: Any, tree: Any, what: str) -> list[Any]:
    try:
        return treedef.flatten_up_to(tree)
    except (ValueError, TypeError) as e:
        raise ValueError(f"{name}: {paths.difference(tree, updates, what, 'the step')}") from e


def _check(name: str, path: str, step: Any, p: Any, remainder: Any, want: jnp.dtype | None) -> None:
    if jnp.shape(step) != jnp.shape(p):
        raise ValueError(
            f"{path}: step has shape {jnp.shape(step)}, parameter has {jnp.shape(p)} ({name})"
        )
    held = getattr(remainder, "dtype", None), getattr(remainder, "shape", None)
    if want is not None and held != (want, jnp.shape(p)):
        raise TypeError(
            f"{path}: the remainder of a {p.dtype} parameter must be {want} of shape "
            f"{jnp.shape(p)}, got {held[0]} of shape {held[1]} ({name})"
        )
