# SPDX-License-Identifier: Apache-2.0
"""Adamax: Kingma & Ba, 2014, arXiv 1412.6980, section 7.1. Adam in the infinity norm."""

import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx.core import hyperparameters
from adamx.core.arithmetic import correction, lerp, magnitude, ratio, times, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.kernels.twins import twin
from adamx.landing import LandingLike
from adamx.optimizers.recipe import Optimizer, alone, chained, recipe
from adamx.storage import StorageLike
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["adamax", "adamaxw", "scale_by_adamax"]


@twin("adamax")
def formula(g, mu, nu, *, b1, c1, b2, c2, am, eps):
    mu = lerp(mu, g, b1, c1)
    nu = jnp.maximum(magnitude(g) + eps, lerp(nu, jnp.zeros_like(nu), b2, c2))
    return ratio(times(am, mu), nu), {"mu": mu, "nu": nu}


def scalars(t, b1, b2, eps):
    (b1, c1), (b2, c2) = weights(b1, t), weights(b2, t)
    return {"b1": b1, "c1": c1, "b2": b2, "c2": c2, "am": 1 / correction(c1, t), "eps": eps}


def rule(b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-8) -> Rule:
    """The corrected mean over a decaying maximum of |g|."""
    return Rule(
        name="adamax",
        state=optax.ScaleByAdamState,
        moments={"mu": "signed", "nu": "magnitude"},
        hyper=hyperparameters.checked(b1=b1, b2=b2, eps=eps),
        at=scalars,
        formula=formula,
    )


def scale_by_adamax(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.adamax`.

    Example:
      >>> import adamx, optax
      >>> opt = optax.chain(adamx.scale_by_adamax(), optax.scale(-1e-3))
    """
    return alone(rule(b1, b2, eps), storage, mu_dtype, nu_dtype)


@recipe(scale_by_adamax)
def adamax(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Adamax: the mean gradient over a decaying maximum of its size.

    .. math:: v_t = \max(\beta_2 v_{t-1}, |g_t| + \varepsilon), \quad
        p \leftarrow p - \alpha \, \hat m_t / v_t

    Example:
      >>> import adamx
      >>> opt = adamx.adamax(2e-3)

    References:
      Kingma & Ba, `Adam <https://arxiv.org/abs/1412.6980>`_, 2014, section 7.1.
    """
    r = rule(b1, b2, eps)
    return chained(
        "adamax", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


@recipe(scale_by_adamax)
def adamaxw(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper | Decay | None = 1e-4,
    mask: Mask | None = None,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""AdamaxW: Adamax with decoupled decay. See `adamax` and `adamw`.

    .. math:: p \leftarrow p - \alpha \left( \hat m_t / v_t + \lambda p \right)

    Example:
      >>> import adamx
      >>> opt = adamx.adamaxw(2e-3, weight_decay=0.01)
    """
    r = rule(b1, b2, eps)
    return chained(
        "adamaxw", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )
