# SPDX-License-Identifier: Apache-2.0
"""The interface of a training task, and its default settings."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax


class Task(NamedTuple):
    """Data and a model, ready to train; all randomness in it comes from one seed.

    Attributes:
      title: one line to print: data, model, sizes.
      params: the initial parameters.
      loss: `loss(params, batch)`, a scalar; takes `key=` if `random`. It does not depend on the
        seed.
      batch: the batch of a step, counted from 0. It depends on the step alone, so that a resumed
        run sees the batches that it would have seen.
      glance: a held-out loss, cheap enough to evaluate during training.
      scores: final figures by name; `"loss"` is always among them.
      units: (unit, count per batch), for throughput.
      random: whether the loss draws random numbers, as dropout does.
      beside: (method, result) pairs to compare with.
    """

    title: str
    params: optax.Params
    loss: Callable[..., jax.Array]
    batch: Callable[[int], Any]
    glance: Callable[[Any], Any]
    scores: Callable[[Any], dict[str, Any]]
    units: tuple[str, int] = ("examples", 1)
    random: bool = False
    beside: tuple[tuple[str, str], ...] = ()


class Defaults(NamedTuple):
    """The settings of a task, used where no flag overrides them."""

    steps: int
    batch_size: int
    learning_rate: float
    schedule: str = "constant"
    clip: float | None = None
    settings: tuple[tuple[str, Any], ...] = ()
