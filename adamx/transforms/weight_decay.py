# SPDX-License-Identifier: Apache-2.0
"""Weight decay in its forms, each an elementwise pull on the parameters, each maskable.

With learning rate r_t, its peak R, and a rule's direction u, parameters p move by

| form             | step                                     | from                           |
|------------------|------------------------------------------|--------------------------------|
| `decoupled(w)`   | -r_t (u + w p)                           | torch's and Optax's AdamW      |
| `scheduled(w)`   | -r_t u - w (r_t / R) p                   | AdamW's paper, arXiv 1711.05101 |
| `independent(w)` | -r_t u - w p                             |                                |
| `corrected(w)`   | -r_t (u + w (r_t / R) p)                 | AdamC, arXiv 2506.02285        |
| `cautious(w)`    | -r_t (u + w p), p only where u p >= 0    | arXiv 2510.12402               |
| `l2(w)`, `l1(w)` | g + w p, or g + w sign(p), into the rule | the penalties                  |

A recipe's `weight_decay` is a number (then `decoupled`) or one of these.

Example:
  >>> import adamx
  >>> opt = adamx.adamw(1e-3, weight_decay=adamx.decay.cautious(0.1), mask="!*/bias")
  >>> opt = adamx.adam(1e-3, weight_decay=adamx.decay.l2(1e-4))  # as in torch.optim.Adam
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.core import dtypes, hyperparameters, paths
from adamx.core.compiled import compiled
from adamx.core.hyperparameters import Hyper
from adamx.core.instances import is_none
from adamx.core.per_leaf import leafwise
from adamx.core.values import value
from adamx.landing import Nearest
from adamx.transforms.masked import Mask as Mask
from adamx.transforms.masked import Masked, frozen

__all__ = [
    "Decay",
    "add_decayed_weights",
    "cautious",
    "corrected",
    "decoupled",
    "independent",
    "l1",
    "l2",
    "scheduled",
]


class Decay(NamedTuple):
    """A form of weight decay.

    Attributes:
      strength: the number, array or schedule w.
      place: before the rule, between rule and learning rate, or after both.
      pull: `(p, u) ->` what w multiplies.
      relative: whether w is multiplied by r_t / R.
      peak: R; None takes the learning rate for its own peak, which only a number can be.
    """

    strength: Hyper
    place: Literal["before", "between", "after"]
    pull: Callable[[jax.Array, jax.Array], jax.Array]
    relative: bool = False
    peak: float | None = None


def decoupled(strength: Hyper) -> Decay:
    """Decay times the learning rate: Optax's and torch's, and the default."""
    return Decay(strength, "between", towards_zero)


def scheduled(strength: Hyper, peak: float | None = None) -> Decay:
    """Decay times the schedule alone, as in the AdamW paper: tune it apart from the rate.

    Args:
      strength: what is taken off the parameters per step at the peak of the learning rate.
      peak: the learning rate's peak; needed where it is a schedule.
    """
    return Decay(strength, "after", towards_zero, relative=True, peak=peak)


def independent(strength: Hyper) -> Decay:
    """Decay that no learning rate touches: `p <- (1 - strength) p` at each step."""
    return Decay(strength, "after", towards_zero)


def corrected(strength: Hyper, peak: float | None = None) -> Decay:
    """AdamC's: decay times the learning rate squared, so that gradient norms stay level.

    Args:
      strength: the decay at the peak of the learning rate.
      peak: the learning rate's peak; needed where it is a schedule.
    """
    return Decay(strength, "between", towards_zero, relative=True, peak=peak)


def cautious(strength: Hyper) -> Decay:
    """Decay only where the step goes towards zero anyway."""
    return Decay(strength, "between", _with_the_step)


def l2(strength: Hyper) -> Decay:
    """The gradient of `strength / 2 * |p|^2`, seen (and normalised) by the rule."""
    return Decay(strength, "before", towards_zero)


def l1(strength: Hyper) -> Decay:
    """The gradient of `strength * |p|`, seen (and normalised) by the rule."""
    return Decay(strength, "before", _sign)


def towards_zero(p: jax.Array, u: jax.Array) -> jax.Array:
    """The pull of plain decay."""
    return p


def _sign(p: jax.Array, u: jax.Array) -> jax.Array:
    return jnp.sign(p)


def _with_the_step(p: jax.Array, u: jax.Array) -> jax.Array:
    agreement = (p * jnp.sign(u).conj()).real  # the sign first: the product may underflow
    return jnp.where(agreement >= 0, p, jnp.zeros_like(p))


def add_decayed_weights(
    weight_decay: Hyper | Decay = 0.0, mask: Mask | None = None
) -> optax.GradientTransformationExtraArgs:
    """Adds decay to updates, computed in float32.

    Args:
      weight_decay: a number, an array, a traced value, a schedule, or a `Decay`.
      mask: which leaves decay: a tree of booleans, a function of the parameters to one, or a path
        pattern: `"*/kernel"` for these leaves, `"!*/bias|*/scale"` for all but those.

    Returns:
      A transformation with Optax's state. `update(..., weight_decay=x)` overrides the strength
      for one call.

    Example:
      >>> import jax.numpy as jnp
      >>> link = add_decayed_weights(0.5, mask="!*/bias")
      >>> params = {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}
      >>> zeros = {"kernel": jnp.array([0.0]), "bias": jnp.array([0.0])}
      >>> updates, _ = link.update(zeros, link.init(params), params)
      >>> print(updates["kernel"], updates["bias"])
      [1.] [0.]
    """
    decay = as_decay(weight_decay)
    return compiled(Nearest(pull(decay, mask)), ("weight_decay",), [decay.strength])


def as_decay(weight_decay: Hyper | Decay) -> Decay:
    """A number, array or schedule as `decoupled` decay."""
    return weight_decay if isinstance(weight_decay, Decay) else decoupled(weight_decay)


def form(decay: Decay) -> str:
    """The name of the function that made a decay; `custom` for one of your own."""
    for make in (decoupled, scheduled, independent, corrected, cautious, l2, l1):
        known = make(0.0)
        if known[1:4] == decay[1:4]:  # place, pull and whether it follows the rate
            return make.__name__
    return "custom"


def pull(decay: Decay, mask: Mask | None = None, learning_rate: Hyper | None = None) -> Any:
    """The link that applies `decay`, for the inside of a recipe: emits at least float32."""
    _check(decay, mask, learning_rate)
    link = Pull(decay, learning_rate if decay.relative else None)
    return link if mask is None else Masked(link, frozen(mask))


@value
class Pull:
    """A decay as a link; `learning_rate` where it follows that."""

    decay: Decay
    learning_rate: Hyper | None

    def init(self, params: optax.Params) -> Any:
        return CountState(count=jnp.zeros([], jnp.int32)) if self._counts else optax.EmptyState()

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        params = paths.needed(updates, params, "weight decay")
        weight, state = self.weight(state, extra)
        if weight is None:
            return updates, state
        scalars, direction = {"weight": weight}, self.decay.pull

        def pulled_one(u: Any, p: Any) -> Any:
            return None if u is None else pulled((u, p), scalars, direction)

        return jax.tree.map(pulled_one, updates, params, is_leaf=is_none), state

    def weight(self, state: Any, extra: dict[str, Any]) -> tuple[Any, Any]:
        """What the pull is multiplied by at this step, or None for nothing, and the state after."""
        decay, strength = self.decay, self.decay.strength
        count: Any = state.count if self._counts else None
        if self._counts:
            state = CountState(count=optax.safe_increment(count))
        is_zero = isinstance(strength, int | float) and strength == 0
        if is_zero and extra.get("weight_decay") is None:
            return None, state
        weight = hyperparameters.value_at("weight_decay", strength, count, extra)
        if decay.relative:
            rate = hyperparameters.value_at("learning_rate", self.learning_rate, count, extra)
            peak: Any = self.learning_rate if decay.peak is None else decay.peak
            weight = weight * (rate / peak)
        return -weight if decay.place == "after" else weight, state

    @property
    def _counts(self) -> bool:
        return callable(self.decay.strength) or callable(self.learning_rate)


@leafwise
def pulled(
    arrays: tuple[jax.Array, jax.Array], scalars: dict[str, Any], direction: Callable
) -> jax.Array:
    """One leaf's update `u` with its parameter's pull: `(u, p), {"weight": w}`."""
    u, p = arrays
    p = jnp.asarray(p).astype(dtypes.working(dtypes.of(u), dtypes.of(p)))
    u = jnp.asarray(u).astype(p.dtype)
    scale = hyperparameters.rounded(scalars["weight"], dtypes.real(p.dtype)).astype(p.dtype)
    return u + scale * direction(p, u)


# Optax keeps the class of this state to itself. Shapes alone, as an array would start the backend.
CountState: Any = type(jax.eval_shape(optax.add_decayed_weights(lambda count: 0.0).init, {}))


def _check(decay: Decay, mask: Mask | None, learning_rate: Hyper | None) -> None:
    hyperparameters.check(strength=decay.strength, peak=decay.peak)
    if decay.relative and learning_rate is None:
        raise ValueError(
            "this decay follows the learning rate: give it to a recipe's `weight_decay`"
        )
    peak = learning_rate if decay.peak is None else decay.peak
    if decay.relative and not (isinstance(peak, int | float | np.number) and peak != 0):
        raise ValueError(
            "this decay needs the `peak` of the learning rate, a number other than 0, wherever the "
            "rate itself is a schedule, an array or 0"
        )
