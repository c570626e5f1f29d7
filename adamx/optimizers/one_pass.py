# SPDX-License-Identifier: Apache-2.0
"""A recipe's whole step, leaf by leaf, each in one pass over memory.

The chain of a recipe is rule, decay, learning rate, landing, and what applies the update. Here all
of it is one call a leaf, which `adamx.kernels` runs on CPUs as a loop in C++. It is taken where
every leaf has such a loop; its plain form below is made of the links' own functions.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx import kernels
from adamx.core import dtypes, hyperparameters, random_bits
from adamx.core.per_leaf import split as sorted_scalars
from adamx.landing import Ended, LandingState, nearest
from adamx.landing.kahan import land as kahan
from adamx.landing.master import weight_leaf
from adamx.landing.split_words import land as split
from adamx.landing.transform import LandingLink, land_leaf
from adamx.moments.scale_by import ScaleBy, Tree, static_storage, step_leaf
from adamx.transforms.clipping.shrink import times
from adamx.transforms.learning_rate import Descend, scaled
from adamx.transforms.masked import Masked
from adamx.transforms.weight_decay import Pull, pulled, towards_zero

# The order of `enum Landing` and `enum Decay` in csrc/work.h.
_PLAIN, _NEAREST, _NEAREST_TWICE = 0, 1, 2
_LANDINGS = {"stochastic": 3, "exact": 4, "compensated8": 5, "kahan": 6}
_NO_DECAY, _BEFORE_RATE, _AFTER_RATE = 0, 1, 2
_FLOAT32 = jnp.dtype(jnp.float32)
_OWN = ("own rate", "own strength", "own factor", "own gain")  # in the order of the loops


class Parts(NamedTuple):
    """The links of a chain that one loop can do together.

    Attributes:
      rule: makes directions.
      descend: multiplies by the rate.
      descend_at: its place in the chain.
      decay: pulls towards zero, or None.
      decay_at: its place in the chain.
      landing: writes half-precision parameters; None is to nearest.
    """

    rule: ScaleBy
    descend: Descend
    descend_at: int
    decay: Pull | Masked | None
    decay_at: int
    landing: LandingLink | None

    @classmethod
    def of(cls, chain: Ended) -> "Parts | None":
        """The parts of a chain, if they are those of a loop."""
        landing = None
        if chain.landing is not nearest:
            landing = getattr(getattr(chain.landing, "update", None), "link", None)
            landing = getattr(landing, "link", None)  # within what compiles itself
            if not isinstance(landing, LandingLink) or landing.land not in (split, kahan):
                return None
        match chain.links:
            case (ScaleBy() as rule, Descend() as descend):
                return cls(rule, descend, 1, None, 0, landing)
            case (ScaleBy() as rule, (Pull() | Masked()) as decay, Descend() as descend):
                found = cls(rule, descend, 2, decay, 1, landing)
            case (ScaleBy() as rule, Descend() as descend, (Pull() | Masked()) as decay):
                found = cls(rule, descend, 1, decay, 2, landing)
            case _:
                return None
        return found if found.pull.decay.pull is towards_zero else None

    @property
    def place(self) -> int:
        """Where the decay is, a number of `enum Decay`."""
        return _BEFORE_RATE if self.decay_at < self.descend_at else _AFTER_RATE

    @property
    def pull(self) -> Any:
        """The decay without its mask."""
        return self.decay.link if isinstance(self.decay, Masked) else self.decay


class Leaf(NamedTuple):
    """One leaf's parameter, the loop that steps it, and what its landing needs."""

    parameter: Any
    remainder: Any
    loop: kernels.Loop
    words: random_bits.Words | None


def step(
    chain: Ended,
    params: optax.Params,
    state: Any,
    grads: optax.Updates,
    scale: Any,
    extra: dict[str, Any],
) -> tuple[optax.Params, Any] | None:
    """The parameters and the state after a step, or None where a leaf has no loop.

    `scale` has the factor and the gain that a clip multiplies gradients by.
    """
    parts = Parts.of(chain) if kernels.used() else None
    if parts is None or "step_scale" in extra:
        return None
    tree, states = parts.rule.opened(grads, state[0], extra), list(state)
    leaves = _leaves(parts, tree, params, state[-1])
    own = _scalars(parts, states, extra)
    if not leaves or own is None:
        return None
    if scale is not None:
        own |= zip(("own factor", "own gain"), scale, strict=True)
    decays = _decaying(parts, grads, own)
    formula, scalars = tree.formula, tree.scalars[_FLOAT32]
    vector = kernels.vector(formula, scalars, tuple(own.get(k, 0) for k in _OWN))
    traced, known = sorted_scalars({**scalars, **own})
    land = parts.landing.land if parts.landing else None
    weights, remainders = [], []
    for i, leaf in enumerate(leaves):
        loop = leaf.loop._replace(
            decay=parts.place if decays[i] else _NO_DECAY, scales=scale is not None
        )
        p, r, moments = _step_leaf(tree, i, leaf, loop, traced, vector, (known, formula, land))
        weights.append(p)
        remainders.append(r)
        tree.stored[i] = moments
    states[0] = tree.closed()
    if parts.landing:
        states[-1] = _landed(parts.landing, state[-1], tree, remainders)
    return tree.treedef.unflatten(weights), tuple(states)


def _step_leaf(
    tree: Tree, i: int, leaf: Leaf, loop: kernels.Loop, traced: Any, vector: Any, static: tuple
) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    """The parameter, the remainder and the stored moments of one leaf after the step."""
    known, formula, land = static
    g, stored, noise, first = tree.arrays(i)
    names = tree.storages[i].fields(formula.moments)
    moments = tuple(stored[k] for k in names)
    p, r = leaf.parameter, leaf.remainder
    operands = kernels.Operands(p, r, moments, g, noise, leaf.words, first, traced, vector)
    land = land if loop.landing > _NEAREST_TWICE else None
    static = (known, formula, static_storage(tree.storages[i]), land, loop)
    p, *found = kernels.step(operands, loop, _plain, static)
    if r is not None:
        r, *found = found
    return p, r, dict(zip(names, found, strict=True))


def _leaves(parts: Parts, tree: Tree, params: Any, last: Any) -> list[Leaf] | None:
    """The leaves, if each has a loop; what does not fit is left to the links and their errors."""
    landing, count = parts.landing, len(tree.names)
    if landing and not isinstance(last, LandingState):
        return None
    try:
        weights = tree.treedef.flatten_up_to(params)
        keeps = landing is not None and landing.remainder is not None
        remainders = tree.treedef.flatten_up_to(last.remainder) if keeps else [None] * count
    except (ValueError, TypeError):
        return None
    seeds = [landing.seed if landing else None] * count
    words = random_bits.of_leaves(seeds, last.draws if landing else None, tree.names)
    found = []
    for i, (p, r) in enumerate(zip(weights, remainders, strict=True)):
        loop, number = tree.loop(i), _landing(landing, p, r, tree.gradients[i])
        if loop is None or number is None:
            return None
        kept = r if hasattr(r, "dtype") else None
        found.append(Leaf(p, kept, loop._replace(landing=number), words[i]))
    does_nothing = landing and all(leaf.loop.landing == _PLAIN for leaf in found)
    return None if does_nothing else found


def _landing(landing: LandingLink | None, p: Any, r: Any, g: Any) -> int | None:
    """The number of the landing of one leaf, or None where it does not fit a loop."""
    if not isinstance(p, jax.Array) or p.shape != jnp.shape(g) or p.weak_type:
        return None
    if not kernels.laid_alike(p, g):
        return None
    if p.dtype == _FLOAT32:
        return None if hasattr(r, "dtype") else _PLAIN
    if p.dtype != jnp.bfloat16:
        return None
    if landing is None:
        return _NEAREST_TWICE if g.dtype == jnp.bfloat16 else _NEAREST
    if landing.remainder is not None:
        want = (landing.remainder(p.dtype), p.shape)
        if (getattr(r, "dtype", None), getattr(r, "shape", None)) != want:
            return None
    return _LANDINGS.get(landing.name)


def _scalars(parts: Parts, states: list[Any], extra: dict[str, Any]) -> dict[str, Any] | None:
    """The rate and the strength of the decay, whose links' states are brought forward."""
    at, found = parts.descend_at, {}
    found["own rate"], states[at] = parts.descend.rate(states[at], extra)
    if found["own rate"] is None:
        return None
    if parts.decay is not None:
        at, masked = parts.decay_at, isinstance(parts.decay, Masked)
        inner = states[at].inner_state if masked else states[at]
        weight, inner = parts.pull.weight(inner, extra)
        states[at] = optax.MaskedState(inner) if masked else inner
        found |= {} if weight is None else {"own strength": weight}
    return {k: hyperparameters.rounded(v, _FLOAT32) for k, v in found.items()}


def _decaying(parts: Parts, grads: Any, own: dict[str, Any]) -> list[bool]:
    """For each leaf, whether it decays."""
    if isinstance(parts.decay, Masked) and "own strength" in own:
        return parts.decay.leaves(grads)
    return ["own strength" in own] * len(jax.tree.leaves(grads))


def _landed(landing: LandingLink, state: Any, tree: Tree, remainders: list[Any]) -> LandingState:
    draws: Any = None if landing.seed is None else optax.safe_increment(state.draws)
    if landing.remainder is None:
        return LandingState(draws, None)
    kept = tree.treedef.flatten_up_to(state.remainder)
    new = [old if r is None else r for old, r in zip(kept, remainders, strict=True)]
    return LandingState(draws, tree.treedef.unflatten(new))


def _plain(
    operands: kernels.Operands, known: tuple, rule: Any, storage: Any, land: Any, loop: kernels.Loop
) -> list[jax.Array]:
    """The same by the links' own functions, and the sum of `optax.apply_updates`."""
    p, r, moments, g, noise, words, first, traced, _ = operands
    scalars = {**traced, **dict(known)}
    own = {k: scalars.pop(k) for k in list(scalars) if k.startswith("own ")}
    names = storage.fields(rule.moments)
    g = times(g, (own["own factor"], own["own gain"])) if loop.scales else g
    arrays = (g, dict(zip(names, moments, strict=True)), noise, first)
    direction, found = step_leaf(arrays, scalars, rule, storage, loop.whole)
    weight = p if loop.landing == _PLAIN else weight_leaf((p, r), {})
    strength = {"weight": own.get("own strength")}
    if loop.decay == _BEFORE_RATE:
        direction = pulled((direction, weight), strength, towards_zero)
    update = scaled(direction, own["own rate"])
    if loop.decay == _AFTER_RATE:
        update = pulled((update, weight), strength, towards_zero)
    if land is None:
        update = dtypes.cast(update, dtypes.wider(dtypes.of(g), p.dtype))
    else:
        update, r = land_leaf((p, update, r, words, first), {}, land, loop.whole)
    with jax.numpy_dtype_promotion("standard"):
        p = (p + update).astype(p.dtype)
    return [p, *([] if r is None else [r]), *(found[k] for k in names)]
