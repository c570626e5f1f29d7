# SPDX-License-Identifier: Apache-2.0
"""Keras 3's optimizers, each as one of our recipes with its arguments translated.

Keras adds epsilon to the uncorrected root in Adam (epsilon-hat), takes amsgrad's maximum of raw
mean squares, warms Nadam's momentum up with a decay of 1, adds Adamax's epsilon to the maximum, and
takes weight decay off the parameters before the step, which only Lamb's norms notice.
"""

from typing import Any, Unpack

import optax

from adamx.core.hyperparameters import Hyper
from adamx.interop.keras.adamax_rule import rule as adamax_rule
from adamx.interop.keras.arguments import Shared, split
from adamx.interop.keras.decay_first import DecayFirst
from adamx.interop.keras.wrapped import schedule_of, wrapped
from adamx.optimizers import adam as plain_adam
from adamx.optimizers import amsgrad as plain_amsgrad
from adamx.optimizers import nadam as plain_nadam
from adamx.optimizers.adam import rule as adam_rule
from adamx.optimizers.recipe import Optimizer, chained
from adamx.transforms.trust_ratio import TrustRatio


def adam(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Hyper = 0.9,
    beta_2: Hyper = 0.999,
    epsilon: Hyper = 1e-7,
    amsgrad: bool = False,
    weight_decay: float | None = None,
    **shared: Unpack[Shared],
) -> Optimizer:
    r"""`keras.optimizers.Adam`: `adamx.adam` with epsilon-hat, or `adamx.amsgrad`.

    .. math:: p \leftarrow p - \alpha \left( \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}
        \frac{m_t}{\sqrt{v_t} + \hat\varepsilon} + \lambda p \right)

    Args:
      learning_rate: a number or a schedule of the step, counted from 0; Keras' own schedules too.
      beta_1, beta_2: our `b1` and `b2`.
      epsilon: added to the uncorrected root.
      amsgrad: whether to divide by the largest mean square so far, before its correction.
      weight_decay: decoupled decay, times the learning rate, in all of Keras' optimizers.
      **shared: what all of Keras' optimizers take, and what ours add: see `Shared`.

    Example:
      >>> import jax.numpy as jnp
      >>> from adamx.interop import keras
      >>> opt = keras.adam(0.1)
      >>> params = jnp.array([1.0])
      >>> updates, _ = opt.update(jnp.array([1e-8]), opt.init(params), params)
      >>> print(f"{updates[0]:.7f}")
      -0.0003152
    """
    ours, around = split(shared)
    build, form = (plain_amsgrad, {"max_of": "raw"}) if amsgrad else (plain_adam, {})
    rate = schedule_of(learning_rate, around)
    settings: Any = {"eps_mode": "hat", "weight_decay": weight_decay, **form, **ours}
    return wrapped(build(rate, beta_1, beta_2, epsilon, **settings), around)


def adamw(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    weight_decay: float = 0.004,
    beta_1: Hyper = 0.9,
    beta_2: Hyper = 0.999,
    epsilon: Hyper = 1e-7,
    amsgrad: bool = False,
    **shared: Unpack[Shared],
) -> Optimizer:
    """`keras.optimizers.AdamW`: its Adam, with a decay of 0.004 by default.

    Args:
      learning_rate, beta_1, beta_2, epsilon, amsgrad: as for `adam`.
      weight_decay: decoupled decay, times the learning rate.
      **shared: see `Shared`.

    Example:
      >>> from adamx.interop import keras
      >>> opt = keras.adamw(1e-3, mask="!*/bias")
    """
    return adam(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, **shared)


def nadam(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Hyper = 0.9,
    beta_2: Hyper = 0.999,
    epsilon: Hyper = 1e-7,
    weight_decay: float | None = None,
    **shared: Unpack[Shared],
) -> Optimizer:
    """`keras.optimizers.Nadam`: `adamx.nadam` with a momentum decay of 1; torch's is 0.004.

    Args:
      learning_rate, beta_1, beta_2, weight_decay: as for `adam`.
      epsilon: added to the corrected root, unlike in Keras' Adam.
      **shared: see `Shared`.

    Example:
      >>> from adamx.interop import keras
      >>> opt = keras.nadam(1e-3)
    """
    ours, around = split(shared)
    opt = plain_nadam(
        schedule_of(learning_rate, around),
        beta_1,
        beta_2,
        epsilon,
        momentum_decay=1.0,
        weight_decay=weight_decay,
        **ours,
    )
    return wrapped(opt, around)


def adamax(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Hyper = 0.9,
    beta_2: Hyper = 0.999,
    epsilon: Hyper = 1e-7,
    weight_decay: float | None = None,
    **shared: Unpack[Shared],
) -> Optimizer:
    """`keras.optimizers.Adamax`: `adamx.adamax` with epsilon added to the maximum, not to |g|.

    Args:
      learning_rate, beta_1, beta_2, weight_decay: as for `adam`.
      epsilon: added to the maximum.
      **shared: see `Shared`.

    Example:
      >>> from adamx.interop import keras
      >>> opt = keras.adamax(1e-3)
    """
    ours, around = split(shared)
    rate = schedule_of(learning_rate, around)
    rule = adamax_rule(beta_1, beta_2, epsilon)
    opt = chained("keras.adamax", rule, rate, weight_decay=weight_decay, **_whole(ours))
    return wrapped(opt, around)


def lamb(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Hyper = 0.9,
    beta_2: Hyper = 0.999,
    epsilon: Hyper = 1e-7,
    weight_decay: float | None = None,
    **shared: Unpack[Shared],
) -> Optimizer:
    """`keras.optimizers.Lamb`: `adamx.lamb` whose norms do not see the decay as part of the step.

    Args:
      learning_rate, beta_1, beta_2: as for `adam`.
      epsilon: added to the corrected root.
      weight_decay: taken off the parameters first: the trust ratio is that of what is left.
      **shared: see `Shared`.

    Example:
      >>> from adamx.interop import keras
      >>> opt = keras.lamb(1e-3, weight_decay=0.01)
    """
    ours, around = split(shared)
    rate, ours = schedule_of(learning_rate, around), _whole(ours)
    link = DecayFirst.of(TrustRatio(), weight_decay, ours["mask"], rate)
    rule, dtypes = adam_rule(beta_1, beta_2, epsilon), (ours["mu_dtype"], ours["nu_dtype"])
    ends = (None, None, ours["landing"])  # the decay is in the link
    opt = chained("keras.lamb", rule, rate, ours["storage"], *dtypes, *ends, link)
    return wrapped(opt, around)


def _whole(ours: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ours with their defaults, for `chained`."""
    blank = dict.fromkeys(("storage", "mu_dtype", "nu_dtype", "mask"))
    return {**blank, "landing": "nearest", **ours}
