# SPDX-License-Identifier: Apache-2.0
"""The form of a training task, and what it is trained with where nobody says."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax


class Task(NamedTuple):
    """Data and a model, ready to train; every random choice in it comes from one seed.

    Attributes:
      title: one line for people: data, model, sizes.
      params: where the training starts.
      loss: `loss(params, batch)`, a scalar; with `key=` where `random`. The seed is not in it.
      batch: the batch of each step, from 0: the same one at every call, so that a run that is
        resumed goes on as it would have.
      glance: a held-out loss, quick enough for now and then.
      scores: final figures by name; `"loss"` is always among them.
      units: of what a batch has how many, for the speed.
      random: whether the loss draws random numbers, as dropout does.
      beside: figures of others, to compare with, by name.
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
    """How a task is trained where nobody says otherwise."""

    steps: int
    batch_size: int
    learning_rate: float
    schedule: str = "constant"
    clip: float | None = None
    settings: tuple[tuple[str, Any], ...] = ()
