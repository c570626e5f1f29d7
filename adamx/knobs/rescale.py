# SPDX-License-Identifier: Apache-2.0
"""Adam's settings for another batch size: the square-root rule."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from adamx.core import hyperparameters
from adamx.core.hyperparameters import Schedule
from adamx.core.values import bind
from adamx.knobs import checks


class Rescaled(NamedTuple):
    """Settings for a recipe: `adamx.adamw(**rescaled._asdict())`."""

    learning_rate: Any
    b1: float
    b2: float
    eps: float


def rescale(
    batch_from: float,
    batch_to: float,
    *,
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> Rescaled:
    r"""Adam's settings that keep its path when the batch becomes :math:`k` times as large.

    .. math:: \eta \leftarrow \sqrt{k}\,\eta, \quad 1 - b_i \leftarrow k (1 - b_i), \quad
        \varepsilon \leftarrow \varepsilon / \sqrt{k}

    One step then stands for :math:`k` old ones: train for 1/k of the steps. A schedule is read k
    times as fast. The rule comes from the stochastic differential equation that Adam follows where
    the noise of gradients outweighs their mean. It fails where the batch is so large that the mean
    wins, and where an average would forget all at once, :math:`k (1 - b_i) > 1`, which is an error
    here. Weight decay is no part of it: `decay_from_timescale` gives the decay for the new rate and
    the new number of steps.

    Args:
      batch_from: the batch size for which the settings are.
      batch_to: the batch size for which settings are wanted.
      learning_rate: a number or a schedule.
      b1, b2, eps: as in `adamx.adam`.

    Example:
      >>> found = rescale(256, 1024, learning_rate=1e-3, b1=0.9, b2=0.99)
      >>> print(" ".join(f"{x:.6g}" for x in found))
      0.002 0.6 0.96 5e-09

    References:
      Malladi et al., `On the SDEs and Scaling Rules for Adaptive Gradient Algorithms
      <https://arxiv.org/abs/2205.10287>`_, 2022.
    """
    checks.positive(batch_from=batch_from, batch_to=batch_to)
    hyperparameters.check(b1=b1, b2=b2, eps=eps)
    k = float(batch_to) / float(batch_from)
    if callable(learning_rate):
        rate: Any = bind(_rescaled, schedule=learning_rate, k=k)
    else:
        checks.finite(learning_rate=learning_rate)
        rate = math.sqrt(k) * float(learning_rate)
    slower = {name: _faster(name, float(b), k) for name, b in (("b1", b1), ("b2", b2))}
    return Rescaled(rate, **slower, eps=float(eps) / math.sqrt(k))


def _faster(name: str, b: float, k: float) -> float:
    """The decay rate that forgets in one step what `b` forgets in `k`, to first order."""
    weight = k * (1 - b)
    if weight > 1 + _ROUNDING:
        raise ValueError(
            f"`{name}`: a batch {k:g} times as large needs 1 - {name} = {weight:g}, which must be "
            f"at most 1: keep `batch_to` within {1 / (1 - b):g} times `batch_from`, or start from "
            f"a larger {name} than {b:g}"
        )
    return max(0.0, 1 - weight)


_ROUNDING = 1e-9  # 20 * (1 - 0.95) is 1 + 9e-16 in floats


def _rescaled(count: Any, *, schedule: Callable[[Any], Any], k: float) -> Any:
    return jnp.asarray(schedule(jnp.asarray(count).astype(jnp.float32) * k)) * math.sqrt(k)
