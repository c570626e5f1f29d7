# SPDX-License-Identifier: Apache-2.0
"""Schedule-free learning: Defazio et al., 2024, arXiv 2405.15682. An average instead of a schedule.

Gradients are taken at the parameters y, the base optimizer steps z, and the average x is what is
evaluated. Only y and z are kept, since y = b1 x + (1 - b1) z. Their one state class is Optax's.

In half precision Optax keeps its scalars in the parameters' dtype. The sum of weights then stands
still at 256 equal weights in bfloat16 (256 + 1 is 256) and at 2,048 in float16, from where on the
average forgets; in float16 the square of a rate below 1.7e-4 is 0, and the average never starts.
Here they are float32. Optax also weighs a step by the rate of the step after it, which shows while
the rate warms up; here, as in the paper, by its own.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx.core import dtypes, hyperparameters
from adamx.core.arithmetic import times
from adamx.core.compiled import compiled, transformation
from adamx.core.hyperparameters import Hyper
from adamx.core.instances import instances, is_hole, is_none
from adamx.core.per_leaf import leafwise
from adamx.core.snapshots import Snapshot
from adamx.core.values import bind
from adamx.landing import LandingLike, master_params
from adamx.landing.chain import Links
from adamx.moments.scale_by import ScaleBy
from adamx.optimizers.recipe import Optimizer, framed, recipe, sole
from adamx.optimizers.rms import rule
from adamx.storage import StorageLike, choose
from adamx.transforms.average import Average, State
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["schedule_free", "schedule_free_adamw", "schedule_free_eval_params"]


def schedule_free(
    base_optimizer: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    weight_lr_power: Hyper = 2.0,
    state_dtype: DTypeLike | None = None,
    *,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Averages the iterates of any optimizer, instead of letting its learning rate fall.

    .. math:: z_{t+1} &= z_t - \gamma_t \, u(\nabla f(y_t)), \quad
        x_{t+1} = (1 - c_t) \, x_t + c_t \, z_{t+1}, \quad c_t = \gamma_t^r / \sum_{s \le t}
        \gamma_s^r \\ y_{t+1} &= \beta_1 x_{t+1} + (1 - \beta_1) \, z_{t+1}

    The parameters are y; evaluate at x, which `adamx.schedule_free_eval_params` returns. The base
    optimizer sees float32 weights and gradients.

    Args:
      base_optimizer: an optimizer without momentum, such as `optax.sgd(rate)`.
      learning_rate: the learning rate of `base_optimizer`, with its warm-up and without decay: its
        power is the weight of a step in the average.
      b1: How much of the gradient's point is average, in (0, 1).
      weight_lr_power: the power r. Rates count with their maximum so far.
      state_dtype: The dtype of z. None takes the parameter's, at least float32. In bfloat16, z is
        rounded stochastically.

    Example:
      >>> import adamx, jax.numpy as jnp, optax
      >>> opt = adamx.schedule_free(optax.sgd(0.5), 0.5)
      >>> params = jnp.array([1.0])
      >>> state = opt.init(params)
      >>> for _ in range(20):
      ...     params, state = adamx.step(opt, params, state, 2 * params)
      >>> print(f"{adamx.schedule_free_eval_params(state, params)[0]:.4f}")
      0.0000
    """
    base = optax.with_extra_args_support(base_optimizer)
    link = Average("schedule_free", base, learning_rate, b1, weight_lr_power, state_dtype)
    return transformation(sole(link, landing))


@recipe(schedule_free, elementwise=False)
def schedule_free_adamw(
    learning_rate: optax.ScalarOrSchedule = 0.0025,
    warmup_steps: int | None = None,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper | Decay = 0.0,
    weight_lr_power: Hyper = 2.0,
    state_dtype: DTypeLike | None = None,
    *,
    mask: Mask | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Schedule-free AdamW: an average of the iterates instead of momentum and of a schedule.

    .. math:: z \leftarrow z - \gamma_t \left( g / (\sqrt{\hat v_t} + \varepsilon)
        + \lambda y \right), \quad x \leftarrow (1 - c_t) \, x + c_t z, \quad
        y \leftarrow \beta_1 x + (1 - \beta_1) \, z

    The parameters are y; evaluate at `adamx.schedule_free_eval_params(state, params)`. A step of y
    is small, and x is computed from y: half-precision parameters need a landing.

    Evidence: it won the self-tuning track of AlgoPerf 2024 (arXiv 2306.07179). It spares the
    length of a run as a hyperparameter, not the rate or b1, and large runs found no gain over a
    schedule that ends at 0.

    Args:
      warmup_steps: The number of steps in which the rate rises from 0 to what it is.
      b1: How much of the gradient's point is average, in (0, 1).
      weight_decay: As elsewhere; the decay is of y.
      weight_lr_power: The power of the rate that is a step's weight in the average. Rates count
        with their maximum so far.
      state_dtype: The dtype of z. None takes the parameter's, at least float32. In bfloat16, z is
        rounded stochastically.
      storage: How the mean square is stored; z is stored in `state_dtype`.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> opt = adamx.schedule_free_adamw(0.5, storage="int8")
      >>> params = jnp.array([1.0, 2.0, 3.0])
      >>> state = opt.init(params)
      >>> for _ in range(50):
      ...     params, state = adamx.step(opt, params, state, 2 * params)
      >>> x = adamx.schedule_free_eval_params(state, params)
      >>> print(f"{jnp.sum(x**2):.1f}")
      0.0

    References:
      Defazio et al., `The Road Less Scheduled <https://arxiv.org/abs/2405.15682>`_, 2024.
    """
    if warmup_steps is not None:
        learning_rate = _warm_up(learning_rate, warmup_steps)
    name, rms = "schedule_free_adamw", rule(b2, eps)
    rms_link = ScaleBy(rms, choose(storage, None, nu_dtype))
    links, hyper = framed(rms_link, learning_rate, weight_decay, mask)
    link = Average(name, Links(links), learning_rate, b1, weight_lr_power, state_dtype)
    names = ("b1", *rms.hyper, "learning_rate", "weight_decay", "step_scale")
    hyper = [b1, weight_lr_power, *rms.hyper.values(), *hyper]
    return compiled(sole(link, landing), names, hyper)


def schedule_free_eval_params(state: optax.OptState, params: optax.Params) -> optax.Params:
    r"""The average x, at which a model trained by `schedule_free` is evaluated.

    .. math:: x = y + (y - z) \, (1 - \beta_1) / \beta_1

    It is computed in float32 from the most exact weights that the state knows (those of its
    landing) and rounded once, to the dtype of `params`.

    Args:
      state: the state, or one of a chain or wrapper that has it somewhere.
      params: the parameters.

    Returns:
      A tree like `params`.
    """
    # A snapshot's average is of other parameters.
    found = [x for x in instances(state, State, Snapshot) if isinstance(x, State)]
    if len(found) != 1:
        raise ValueError(
            "schedule_free_eval_params: `state` must have one ScheduleFreeState in it, it has "
            f"{len(found)}"
        )

    def one(z: Any, y: Any, p: Any) -> Any:
        return p if _is_missing(z) else _average((y, z, p), {"b1": found[0].b1})

    return jax.tree.map(one, found[0].z, master_params(state, params), params, is_leaf=_is_missing)


@leafwise
def _average(arrays: tuple, scalars: dict[str, Any]) -> jax.Array:
    y, z, p = arrays
    dtype = dtypes.working(dtypes.of(y), dtypes.of(z))
    y, z = jnp.asarray(y).astype(dtype), jnp.asarray(z).astype(dtype)
    b1 = jnp.asarray(scalars["b1"]).astype(dtypes.real(dtype))
    return dtypes.cast(y + times((1 - b1) / b1, y - z), dtypes.of(p))


def _warm_up(peak: Any, steps: int) -> Any:
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"`warmup_steps` must be a positive integer, got {steps!r}")
    hyperparameters.check(learning_rate=peak)
    return bind(_rising, peak=peak, steps=steps)


def _rising(count: jax.Array, *, peak: Any, steps: int) -> jax.Array:
    peak = peak(count) if callable(peak) else peak
    return jnp.asarray(peak, jnp.float32) * jnp.minimum(jnp.asarray(count, jnp.float32) / steps, 1)


def _is_missing(x: Any) -> bool:
    return is_none(x) or is_hole(x)
