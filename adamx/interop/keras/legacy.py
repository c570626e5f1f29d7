# SPDX-License-Identifier: Apache-2.0
"""The optimizers of `tf.keras` 2 (`tf.keras.optimizers.legacy`), by their documented formulas.

Adam, amsgrad and Adamax compute as Keras 3's. Nadam's momentum warms up with a decay of 0.004
instead of 1. `decay` shrinks the learning rate over time; clips may be combined; there is no
weight decay, no average and no accumulation.
"""

from typing import Any

import jax.numpy as jnp
import optax

from adamx.core.hyperparameters import Hyper
from adamx.interop.keras import recipes
from adamx.interop.keras.arguments import OURS, Around
from adamx.interop.keras.wrapped import wrapped
from adamx.interop.names import check_arguments
from adamx.optimizers import nadam as plain_nadam
from adamx.optimizers.recipe import Optimizer


def adam(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Hyper = 0.9,
    beta_2: Hyper = 0.999,
    epsilon: Hyper = 1e-7,
    amsgrad: bool = False,
    **kwargs: Any,
) -> Optimizer:
    """`tf.keras.optimizers.legacy.Adam`.

    Args:
      learning_rate, beta_1, beta_2, epsilon, amsgrad: as in `adamx.interop.keras.adam`.
      **kwargs: `decay`, with which the rate is divided by 1 + decay t; `clipvalue`, `clipnorm` and
        `global_clipnorm`; `name`, ignored; and ours: storage, landing, mu_dtype, nu_dtype.

    Example:
      >>> from adamx.interop import keras
      >>> opt = keras.legacy.adam(1e-3, decay=1e-4, clipvalue=0.5)
    """
    rate, ours, around = _split(learning_rate, kwargs)
    return wrapped(recipes.adam(rate, beta_1, beta_2, epsilon, amsgrad, **ours), around)


def nadam(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Hyper = 0.9,
    beta_2: Hyper = 0.999,
    epsilon: Hyper = 1e-7,
    schedule_decay: Hyper = 0.004,
    **kwargs: Any,
) -> Optimizer:
    """`tf.keras.optimizers.legacy.Nadam`: torch's NAdam, with Keras' epsilon.

    Args:
      learning_rate, beta_1, beta_2, epsilon: as in `adamx.interop.keras.nadam`.
      schedule_decay: our `momentum_decay`.
      **kwargs: as for `adam`, without `decay`, which Keras takes for `schedule_decay` here.

    Example:
      >>> from adamx.interop import keras
      >>> opt = keras.legacy.nadam(1e-3)
    """
    if "decay" in kwargs:
        raise TypeError("`decay` of the legacy Nadam is called `schedule_decay` here")
    rate, ours, around = _split(learning_rate, kwargs)
    opt = plain_nadam(rate, beta_1, beta_2, epsilon, momentum_decay=schedule_decay, **ours)
    return wrapped(opt, around)


def adamax(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Hyper = 0.9,
    beta_2: Hyper = 0.999,
    epsilon: Hyper = 1e-7,
    **kwargs: Any,
) -> Optimizer:
    """`tf.keras.optimizers.legacy.Adamax`.

    Args:
      learning_rate, beta_1, beta_2, epsilon: as in `adamx.interop.keras.adamax`.
      **kwargs: as for `adam`.

    Example:
      >>> from adamx.interop import keras
      >>> opt = keras.legacy.adamax(1e-3)
    """
    rate, ours, around = _split(learning_rate, kwargs)
    return wrapped(recipes.adamax(rate, beta_1, beta_2, epsilon, **ours), around)


def _split(learning_rate: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any], Around]:
    """The rate with its decay, the arguments of our recipes, and the clips."""
    check_arguments("the legacy optimizer", kwargs, ("decay", *_CLIPS, "name", *OURS))
    if None not in (kwargs.get("clipnorm"), kwargs.get("global_clipnorm")):
        raise ValueError("only one of `clipnorm` and `global_clipnorm` may be given")
    decay = kwargs.get("decay") or 0.0
    rate = decayed(learning_rate, decay) if decay else learning_rate
    ours = {k: v for k, v in kwargs.items() if k in OURS}
    return rate, ours, Around(**{k: v for k, v in kwargs.items() if k in _CLIPS})


def decayed(learning_rate: Any, decay: float) -> Any:
    """The rate over 1 + decay t."""

    def schedule(count: Any) -> Any:
        rate: Any = learning_rate(count) if callable(learning_rate) else learning_rate
        return rate / (1 + decay * jnp.asarray(count, jnp.result_type(float)))

    return schedule


_CLIPS = ("clipvalue", "clipnorm", "global_clipnorm")
