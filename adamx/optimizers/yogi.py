# SPDX-License-Identifier: Apache-2.0
"""Yogi: Zaheer et al., 2018, NeurIPS. The mean square moves by steps of g^2, never in leaps."""

import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, correction, lerp, ratio, root, times, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.kernels.twins import twin
from adamx.landing import LandingLike
from adamx.optimizers.recipe import Optimizer, alone, chained, recipe
from adamx.storage import StorageLike
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["scale_by_yogi", "yogi"]


@twin("yogi")
def formula(g, mu, nu, *, b1, c1, c2, am, av, eps, eps_root):
    mu = lerp(mu, g, b1, c1)
    sq = abs_sq(g)
    nu = nu - c2 * jnp.sign(nu - sq) * sq
    return ratio(times(am, mu), root(av * nu + eps_root), eps), {"mu": mu, "nu": nu}


def scalars(t, b1, b2, eps, eps_root):
    (b1, c1), (_, c2) = weights(b1, t), weights(b2, t)
    am, av = 1 / correction(c1, t), 1 / correction(c2, t)
    return {"b1": b1, "c1": c1, "c2": c2, "am": am, "av": av, "eps": eps, "eps_root": eps_root}


def rule(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-3,
    eps_root: Hyper = 0.0,
    initial_accumulator_value: float = 1e-6,
) -> Rule:
    """Adam's direction over a mean square that additive steps keep from collapsing."""
    hyperparameters.check(initial_accumulator_value=initial_accumulator_value)
    return Rule(
        name="yogi",
        state=optax.ScaleByAdamState,
        moments={"mu": "signed", "nu": "squared"},
        hyper=hyperparameters.checked(b1=b1, b2=b2, eps=eps, eps_root=eps_root),
        at=scalars,
        formula=formula,
        start={"mu": initial_accumulator_value, "nu": initial_accumulator_value},
    )


def scale_by_yogi(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-3,
    eps_root: Hyper = 0.0,
    initial_accumulator_value: float = 1e-6,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.yogi`.

    Args:
      initial_accumulator_value: The value that both means start with.

    Example:
      >>> import adamx, optax
      >>> opt = optax.chain(adamx.scale_by_yogi(), optax.scale(-1e-3))
    """
    return alone(
        rule(b1, b2, eps, eps_root, initial_accumulator_value), storage, mu_dtype, nu_dtype
    )


@recipe(scale_by_yogi)
def yogi(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-3,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Yogi: Adam whose mean square moves by bounded steps.

    .. math:: v_t = v_{t-1} - (1 - \beta_2) \, \mathrm{sign}(v_{t-1} - g_t^2) \, g_t^2

    Example:
      >>> import adamx
      >>> opt = adamx.yogi(1e-2)

    References:
      Zaheer et al., `Adaptive Methods for Nonconvex Optimization
      <https://proceedings.neurips.cc/paper/2018/hash/90365351ccc7437a1309dc64e4db32a3-Abstract.html>`_,
      2018.
    """
    r = rule(b1, b2, eps)
    return chained(
        "yogi", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )
