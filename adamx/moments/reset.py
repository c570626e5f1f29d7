# SPDX-License-Identifier: Apache-2.0
"""A state whose moments start again, for a task that changes under an optimizer that goes on."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from adamx.core import hyperparameters
from adamx.core.host_memory import is_on_host, on_device, on_host
from adamx.core.snapshots import Snapshot
from adamx.moments.layout import PackedState
from adamx.transforms.variance_reduction import VarianceReductionState
from adamx.transforms.weight_decay import CountState

Keep = Literal["schedule", "count", "none"]


def reset(
    state: optax.OptState, keep: Keep = "schedule", initial: optax.OptState | None = None
) -> optax.OptState:
    """`state` with all moments at zero, ours and Optax's, wherever wrappers put them.

    Moments of an old task or environment point and scale steps wrongly in a new one. The paper
    resets moments and the count of their bias correction whenever the target network changes, and
    finds Rainbow better on Atari for it. The learning-rate schedule has no reason to start again.

    | `keep`       | counts of rules | counts of schedules |
    |--------------|-----------------|---------------------|
    | `"schedule"` | 0               | kept                |
    | `"count"`    | kept            | kept                |
    | `"none"`     | 0               | 0                   |

    A rule's count corrects its bias, and its own schedules (of b1, b2, eps) read it. With the count
    kept nothing corrects for the zeros: Adam's first steps are up to (1 - b1) / sqrt(1 - b2) = 3.2
    rates long, and ADOPT divides by epsilon. Adan's count tells it whether there is a gradient
    before, as that of MARS does, so it is 0 in any case. Schedules count in links for learning rate
    and decay and in `inject_hyperparams`. Prodigy, ours and Optax's, has one count for both: where
    it is 0, its learning-rate schedule starts again. `fold_micro_batches` begins a new step.

    Everything else stays: a landing's remainders, which are digits of the weights; snapshots of
    `rewind`, with their moments; gradients that wait in `accumulate`; the weights of
    `schedule_free`, the distances of Prodigy, and the covariances and bases of SOAP.

    Args:
      state: of any optimizer, ours or Optax's.
      keep: the counts that go on.
      initial: the state before the first step, from which moments are taken: for Yogi and AdaGrad,
        whose squares do not start at zero.

    Returns:
      A state with the structure, dtypes and shardings of `state`. Under `jit` the compiler chooses
      where zeros are; eager calls keep shardings.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> opt, params = adamx.adam(1e-3, storage="int8"), jnp.ones(2)
      >>> params, state = adamx.step(opt, params, opt.init(params), params)
      >>> print(state[0].count, state[0].nu, reset(state)[0].count, reset(state)[0].nu)
      1 [160 160] 0 [0 0]

    References:
      Asadi et al., `Resetting the Optimizer in Deep RL <https://arxiv.org/abs/2306.17833>`_, 2023.
    """
    hyperparameters.check_choice("keep", keep, ("schedule", "count", "none"))
    if not any(map(_moments, jax.tree.leaves(state, is_leaf=lambda x: bool(_moments(x))))):
        held = jax.tree.leaves(state, is_leaf=lambda x: x is not state and hasattr(x, "_fields"))
        known = ", ".join(dict.fromkeys(type(x).__name__ for x in held)) or "nothing"
        raise ValueError(f"`state` must hold moments of ours or Optax's, got {known}")
    return _walked(state, state if initial is None else initial, keep, initial is None)


def _walked(state: Any, start: Any, keep: Keep, zero: bool) -> Any:
    one = functools.partial(_node, keep=keep, zero=zero)
    try:
        return jax.tree.map(one, state, start, is_leaf=_stops)
    except ValueError as e:
        raise ValueError(f"`initial` must have the structure of `state`: {e}") from e


def _node(x: Any, start: Any, keep: Keep, zero: bool) -> Any:
    if _folds(x):  # gradients that are in the moments are forgotten with them
        inner = _walked(x.inner, start.inner, keep, zero)
        return x._replace(micro_step=jnp.zeros_like(x.micro_step), inner=inner)
    if not (_moments(x) or isinstance(x, _SCHEDULES)):
        return x
    restarts = keep == "none" or (bool(_moments(x)) and (keep == "schedule" or _has_last(x)))
    new = {}
    for name, field in x._asdict().items():
        if name in _moments(x):
            first = getattr(start, name)
            new[name] = jax.tree.map(_zeros, field) if zero else _like(first, field)
        elif name in _COUNTS:
            new[name] = jnp.zeros_like(field) if restarts else field
        else:
            new[name] = _walked(field, getattr(start, name), keep, zero)
    return x._replace(**new)


def _zeros(x: Any) -> jax.Array:
    """Zeros where `x` is, which may be in the memory of the host."""
    zeros = jnp.zeros_like(on_device(x))
    return on_host(zeros) if is_on_host(x) else zeros


def _like(first: Any, field: Any) -> Any:
    return jax.tree.map(lambda new, old: jnp.asarray(new).astype(old.dtype), first, field)


def _stops(x: Any) -> bool:
    return isinstance(x, (Snapshot, *_SCHEDULES)) or bool(_moments(x)) or _folds(x)


def _folds(x: Any) -> bool:
    """Whether this is the state of `fold_micro_batches`."""
    return getattr(x, "_fields", ()) == ("micro_step", "inner")


def _moments(x: Any) -> tuple[str, ...]:
    """The names of the moments in a node of a state; none if it is none of a rule."""
    if type(x) in _OWN:
        return _OWN[type(x)]
    return tuple(name for name in getattr(x, "_fields", ()) if name in _NAMES)


def _has_last(x: Any) -> bool:
    """Whether the moments include the last gradient, as Adan's and that of MARS."""
    fields = x.arrays if isinstance(x, PackedState) else getattr(x, "_fields", ())
    return "g" in fields or "previous" in fields


# What moments are called in Optax's states and in ours.
_NAMES = frozenset(
    "mu nu nu_max m1 m2 exp_avg exp_avg_sq trace ema e_g e_x sum_of_squares v_row v_col".split()
)

# Where names alone do not tell.
_OWN: dict[type, tuple[str, ...]] = {
    PackedState: ("arrays",),
    optax.ScaleByAdanState: ("m", "v", "n", "g"),
    optax.FactoredState: ("v_row", "v_col", "v"),
    optax.contrib.ScaleBySimplifiedAdEMAMixState: ("m", "n"),
    optax.contrib.MomoState: ("exp_avg", "barf", "gamma"),
    optax.contrib.MomoAdamState: ("exp_avg", "exp_avg_sq", "barf", "gamma"),
    VarianceReductionState: ("previous",),
}

_COUNTS = ("count", "count_m2", "t")

_SCHEDULES = (
    optax.ScaleByScheduleState,
    optax.InjectHyperparamsState,
    optax.InjectStatefulHyperparamsState,
    CountState,
    type(jax.eval_shape(optax.schedules.WrappedSchedule(abs).init)),  # Optax keeps it to itself
)
