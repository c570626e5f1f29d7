# SPDX-License-Identifier: Apache-2.0
"""A warm-up, then one over the root of the step: the schedule of the first transformers."""

from typing import Any

import jax
import jax.numpy as jnp

from adamx.core import hyperparameters
from adamx.core.hyperparameters import Schedule
from adamx.core.values import bind
from adamx.knobs import checks


def warmup_inverse_sqrt_schedule(
    peak_value: float, warmup_steps: int, init_value: float = 0.0
) -> Schedule:
    r"""A linear rise to the peak, then a fall that needs no end of training.

    .. math:: \eta_t = \eta \, \sqrt{w / t} \text{ for } t \ge w

    With `peak_value = (width * warmup_steps) ** -0.5` it is the paper's. Where the end of training
    is known, schedules that reach (nearly) zero there do better.

    Args:
      peak_value: the value at the end of the rise.
      warmup_steps: the steps w of the rise, at least 1.
      init_value: the value at step 0.

    Example:
      >>> rate = warmup_inverse_sqrt_schedule(1.0, warmup_steps=100)
      >>> print(*(f"{rate(t):.2f}" for t in (0, 50, 100, 400, 10_000)))
      0.00 0.50 1.00 0.50 0.10

    References:
      Vaswani et al., `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_, 2017.
    """
    checks.finite(peak_value=peak_value, init_value=init_value)
    hyperparameters.check_count(warmup_steps=warmup_steps)
    return bind(_value, peak=peak_value, warmup=warmup_steps, first=init_value)


def _value(count: Any, *, peak: float, warmup: int, first: float) -> jax.Array:
    ratio = jnp.asarray(count).astype(jnp.float32) / warmup
    fall = peak * jnp.sqrt(1 / jnp.maximum(ratio, 1))
    return jnp.where(ratio < 1, first + (peak - first) * ratio, fall)
