# SPDX-License-Identifier: Apache-2.0
"""AdEMAMix: Pagliardini et al., 2024, arXiv 2409.03137. A fast and a very slow mean of gradients.

The slow mean is not corrected for its start at zero: it comes in as it fills. With `warmup_steps`
T, alpha grows linearly for T steps, and b3 grows from b1 so that its memory -1 / log b3 does:

    alpha_t = alpha s,  -1 / log b3_t = (1 - s) (-1 / log b1) + s (-1 / log b3),  s = min(t / T, 1)
"""

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax.typing import DTypeLike

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, correction, lerp, log_rate, ratio, root, times, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.landing import LandingLike
from adamx.optimizers.recipe import Optimizer, alone, chained, recipe
from adamx.storage import StorageLike
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["ademamix", "scale_by_ademamix"]


def formula(g, m1, m2, nu, *, b1, c1, b2, c2, b3, c3, alpha, am, av, eps, eps_root):
    m1 = lerp(m1, g, b1, c1)
    m2 = lerp(m2, g, b3, c3)
    nu = lerp(nu, abs_sq(g), b2, c2)
    u = ratio(times(am, m1) + times(alpha, m2), root(av * nu + eps_root), eps)
    return u, {"m1": m1, "m2": m2, "nu": nu}


def scalars(t, b1, b2, b3, alpha, eps, eps_root, warmup_steps=None, count_m2=None):
    (b1, c1), (b2, c2), (b3, c3) = weights(b1, t), weights(b2, t), weights(b3, t)
    if warmup_steps is not None:
        part = jnp.minimum((t if count_m2 is None else count_m2) / warmup_steps, 1)
        alpha, (b3, c3) = alpha * part, warming(c1, b3, c3, part)
    return {
        "b1": b1,
        "c1": c1,
        "b2": b2,
        "c2": c2,
        "b3": b3,
        "c3": c3,
        "alpha": alpha,
        "am": 1 / correction(c1, t),
        "av": 1 / correction(c2, t),
        "eps": eps,
        "eps_root": eps_root,
    }


def warming(c1: jax.Array, b3: jax.Array, c3: jax.Array, part: jax.Array) -> tuple:
    """b3 and 1 - b3 on the way from b1; never above b3, as in the paper."""
    start, end = _memory(c1), _memory(c3)
    memory = (1 - part) * start + part * end
    over = (memory >= end) | (part >= 1)
    rate = -1 / jnp.where(over, 1, memory)
    return jnp.where(over, b3, jnp.exp(rate)), jnp.where(over, c3, -jnp.expm1(rate))


def _memory(c: jax.Array) -> jax.Array:
    """`-1 / log(1 - c)`, how many steps a mean remembers."""
    return jnp.where(c < 1, -1 / log_rate(c), 0)


def rule(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    b3: Hyper = 0.9999,
    alpha: Hyper = 6.0,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    *,
    warmup_steps: Hyper | None = None,
) -> Rule:
    """The fast mean, corrected, plus alpha times the slow one, over the root of the mean square.

    The slow mean is of the kind `"slow"`: where b3^2 > b2, no multiple of the root bounds it.
    """
    hyper = {"b1": b1, "b2": b2, "b3": b3, "alpha": alpha, "eps": eps, "eps_root": eps_root}
    return Rule(
        name="ademamix",
        state=optax.contrib.ScaleByAdemamixState,
        moments={"m1": "signed", "m2": "slow", "nu": "squared"},
        hyper=hyperparameters.checked(**hyper, warmup_steps=warmup_steps),
        at=scalars,
        formula=formula,
        counters={"count_m2": ("b3", "alpha", "warmup_steps")},
    )


def scale_by_ademamix(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    b3: optax.ScalarOrSchedule = 0.9999,
    alpha: optax.ScalarOrSchedule = 6.0,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    warmup_steps: Hyper | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.ademamix`, with Optax's other default for alpha."""
    r = rule(b1, b2, b3, alpha, eps, eps_root, warmup_steps=warmup_steps)
    return alone(r, storage, mu_dtype, _of_squares(mu_dtype, nu_dtype))


def _of_squares(mu_dtype: DTypeLike | None, nu_dtype: DTypeLike | None) -> DTypeLike | None:
    """The dtype of squares, by default that of means as in Optax. One that no slow mean may have is
    left to the error that names `mu_dtype`."""
    if nu_dtype is None and mu_dtype is not None and jnp.dtype(mu_dtype) == jnp.float16:
        return None
    return mu_dtype if nu_dtype is None else nu_dtype


@recipe(scale_by_ademamix, alpha=5.0)
def ademamix(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    b3: optax.ScalarOrSchedule = 0.9999,
    alpha: optax.ScalarOrSchedule = 5.0,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyper | Decay | None = 0.0,
    mask: Mask | None = None,
    *,
    warmup_steps: Hyper | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""AdEMAMix: AdamW with a second mean of gradients that remembers for 10,000 steps.

    .. math:: p \leftarrow p - \alpha_{lr} \, (\hat m_{1,t} + \alpha_t m_{2,t})
        / (\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon)

    For: a language model of 1.3 billion parameters needed half of AdamW's tokens for the same loss
    (the paper); it leads at long budgets in arXiv 2509.01440, with which it shares an author.
    Against: little is gained in runs that are short beside the memory of the slow mean, and without
    the warm-up they may diverge.

    Args:
      b3: How slowly the slow mean forgets, in [0, 1).
      alpha: The weight of the slow mean. Schedules of alpha and b3 count from the state's
        `count_m2`.
      warmup_steps: For how many steps alpha grows from 0, and b3 from b1: the paper takes the
        length of the run. None for constants, as Optax has them.
      nu_dtype: The dtype in which squares are stored; None takes `mu_dtype`, as in Optax.

    Example:
      >>> import adamx
      >>> as_paper = adamx.ademamix(1e-3, alpha=8.0, weight_decay=0.1, warmup_steps=100_000)

    References:
      Pagliardini et al., `The AdEMAMix Optimizer <https://arxiv.org/abs/2409.03137>`_, 2024.
    """
    r = rule(b1, b2, b3, alpha, eps, eps_root, warmup_steps=warmup_steps)
    nu_dtype = _of_squares(mu_dtype, nu_dtype)
    return chained(
        "ademamix", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )
