# SPDX-License-Identifier: Apache-2.0
"""NAdam: Dozat, 2016, openreview OM0jvwB8jIp57ZJjtNEZ. Adam's rule with Nesterov's momentum."""

import optax
from jax.typing import DTypeLike

from adamx.core.hyperparameters import Hyper
from adamx.landing import LandingLike
from adamx.optimizers.adam import EpsMode, rule, scale_by_adam
from adamx.optimizers.recipe import Optimizer, chained, recipe
from adamx.storage import StorageLike
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["nadam", "nadamw"]


@recipe(scale_by_adam, nesterov=True)
def nadam(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    momentum_decay: Hyper | None = None,
    eps_mode: EpsMode = "outside",
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""NAdam: Adam with Nesterov's momentum.

    .. math:: \hat m_t = \frac{\beta_1 m_t}{1 - \beta_1^{t+1}}
        + \frac{(1 - \beta_1) g_t}{1 - \beta_1^t}

    Args:
      momentum_decay: torch's form with its :math:`\psi` (0.004 there), which warms b1 up. None
        takes Optax's form, above.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> torch_like = adamx.nadam(2e-3, momentum_decay=0.004)

    References:
      Dozat, `Nesterov Momentum into Adam
      <https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ>`_, 2016.
    """
    r = rule(
        b1, b2, eps, eps_root, nesterov=nesterov, momentum_decay=momentum_decay, eps_mode=eps_mode
    )
    return chained(
        "nadam", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


@recipe(scale_by_adam, nesterov=True)
def nadamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyper | Decay | None = 1e-4,
    mask: Mask | None = None,
    *,
    nesterov: bool = True,
    momentum_decay: Hyper | None = None,
    eps_mode: EpsMode = "outside",
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""NAdamW: NAdam with decoupled decay. See `nadam` and `adamw`.

    .. math:: p \leftarrow p - \alpha \left(
        \hat m_t / (\sqrt{\hat v_t} + \varepsilon) + \lambda p \right)

    Example:
      >>> import adamx
      >>> opt = adamx.nadamw(1e-3, weight_decay=0.1)
    """
    r = rule(
        b1, b2, eps, eps_root, nesterov=nesterov, momentum_decay=momentum_decay, eps_mode=eps_mode
    )
    return chained(
        "nadamw", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )
