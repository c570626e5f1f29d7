# SPDX-License-Identifier: Apache-2.0
"""The warm-up, stable, decay schedule, also known as the trapezoid."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from adamx.core import hyperparameters
from adamx.core.hyperparameters import Schedule
from adamx.core.values import bind
from adamx.knobs import checks

Shape = Literal["1-sqrt", "linear"]


def warmup_stable_decay_schedule(
    peak_value: float,
    steps: int,
    warmup_steps: int,
    decay_steps: int,
    init_value: float = 0.0,
    end_value: float = 0.0,
    shape: Shape = "1-sqrt",
) -> Schedule:
    r"""A linear rise, a plateau, and a fall over the last `decay_steps` of `steps`.

    With :math:`s` the part of the fall that is behind, from 0 to 1, the value falls from peak to
    end as :math:`1 - \sqrt{s}` or as :math:`1 - s`. The plateau does not depend on when training
    ends: go on from a checkpoint before the fall for longer runs. The paper finds it on a par with
    the cosine, with a fall of 10 to 20 % of the steps, and `1-sqrt` ahead of linear, for language
    models of up to 1 billion parameters. `decay_steps = steps - warmup_steps` with
    `shape="linear"` is a rise and a linear fall without a plateau.

    Args:
      peak_value: the value of the plateau.
      steps: the number of all steps; the value is `end_value` from there on.
      warmup_steps: the steps of the rise.
      decay_steps: the steps of the fall.
      init_value: the value at step 0.
      end_value: the value at the end.
      shape: `"1-sqrt"` or `"linear"`.

    Example:
      >>> rate = warmup_stable_decay_schedule(1.0, steps=100, warmup_steps=10, decay_steps=20)
      >>> print(*(f"{rate(t):.2f}" for t in (0, 5, 10, 80, 85, 90, 100)))
      0.00 0.50 1.00 1.00 0.50 0.29 0.00

    References:
      Hägele et al., `Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations
      <https://arxiv.org/abs/2405.18392>`_, 2024.
    """
    checks.finite(peak_value=peak_value, init_value=init_value, end_value=end_value)
    hyperparameters.check_count(0, warmup_steps=warmup_steps, decay_steps=decay_steps)
    hyperparameters.check_count(steps=steps)
    hyperparameters.check_choice("shape", shape, ("1-sqrt", "linear"))
    if warmup_steps + decay_steps > steps:
        raise ValueError(
            f"`warmup_steps` and `decay_steps` must fit into `steps`, got {warmup_steps} + "
            f"{decay_steps} > {steps}"
        )
    values = {"peak": peak_value, "first": init_value, "last": end_value}
    lengths = {"warmup": warmup_steps, "steps": steps, "decay": decay_steps}
    return bind(_value, **values, **lengths, shape=shape)


def _value(count: Any, *, peak, first, last, warmup, steps, decay, shape) -> jax.Array:
    count = jnp.asarray(count).astype(jnp.float32)
    rise = jnp.clip(count / warmup, 0, 1) if warmup else jnp.ones_like(count)
    left = (steps - count) / decay if decay else jnp.where(count < steps, 1.0, 0.0)
    left = jnp.clip(left, 0, 1)
    fall = left / (1 + jnp.sqrt(1 - left)) if shape == "1-sqrt" else left  # 1 - sqrt(1 - left)
    return jnp.where(left < 1, last + (peak - last) * fall, first + (peak - first) * rise)
