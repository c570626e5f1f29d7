# SPDX-License-Identifier: Apache-2.0
"""Adan: Xie et al., 2022, arXiv 2208.06677. Nesterov's momentum from differences of gradients."""

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

__all__ = ["adan", "scale_by_adan"]


@twin("adan")
def formula(grad, m, v, n, g, *, b1, c1, b2, c2, b3, c3, later, weight, am, av, an, eps, eps_root):
    difference = jnp.where(later > 0, grad - g, jnp.zeros_like(grad))
    m = lerp(m, grad, b1, c1)
    v = lerp(v, difference, b2, c2)
    n = lerp(n, abs_sq(grad + times(weight, difference)), b3, c3)
    u = ratio(times(am, m) + times(av, v), root(an * n + eps_root), eps)
    return u, {"m": m, "v": v, "n": n, "g": grad}


def scalars(t, b1, b2, b3, eps, eps_root, difference_weight=None):
    (b1, c1), (b2, c2), (b3, c3) = weights(b1, t), weights(b2, t), weights(b3, t)
    weight = c2 if difference_weight is None else difference_weight
    return {
        "b1": b1,
        "c1": c1,
        "b2": b2,
        "c2": c2,
        "b3": b3,
        "c3": c3,
        "later": t > 1,
        "weight": weight,
        "am": 1 / correction(c1, t),
        "av": weight / correction(c2, t),
        "an": 1 / correction(c3, t),
        "eps": eps,
        "eps_root": eps_root,
    }


def rule(
    b1: Hyper = 0.98,
    b2: Hyper = 0.92,
    b3: Hyper = 0.99,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    *,
    difference_weight: Hyper | None = None,
) -> Rule:
    """The mean plus a weighted mean of differences, over the root of the looked-ahead square.

    The weight of the differences is `1 - b2` in Optax; the paper's (and its authors' code's) is
    `b2` in the convention used here, in which averages decay by b.
    """
    hyper = {"b1": b1, "b2": b2, "b3": b3, "eps": eps, "eps_root": eps_root}
    return Rule(
        name="adan",
        state=optax.ScaleByAdanState,
        moments={"m": "signed", "v": "signed", "n": "squared", "g": "signed"},
        hyper=hyperparameters.checked(**hyper, difference_weight=difference_weight),
        at=scalars,
        formula=formula,
        count="t",
    )


def scale_by_adan(
    b1: Hyper = 0.98,
    b2: Hyper = 0.92,
    b3: Hyper = 0.99,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    *,
    difference_weight: Hyper | None = None,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.adan`.

    Example:
      >>> import adamx, optax
      >>> opt = optax.chain(adamx.scale_by_adan(), optax.scale(-1e-3))
    """
    adan = rule(b1, b2, b3, eps, eps_root, difference_weight=difference_weight)
    return alone(adan, storage, mu_dtype, nu_dtype)


@recipe(scale_by_adan)
def adan(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.98,
    b2: Hyper = 0.92,
    b3: Hyper = 0.99,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 1e-8,
    weight_decay: Hyper | Decay | None = 0.0,
    mask: Mask | None = None,
    *,
    difference_weight: Hyper | None = None,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Adan: Adam with Nesterov's momentum estimated from differences of gradients.

    .. math:: p \leftarrow p - \alpha \, (\hat m_t + w \hat v_t) / (\sqrt{\hat n_t} + \varepsilon)

    with m, v, n the means of :math:`g`, :math:`\Delta g` and :math:`(g + w \Delta g)^2`.

    Args:
      b1: How slowly the mean of gradients forgets, in [0, 1).
      b2: How slowly the mean of differences forgets, in [0, 1).
      b3: How slowly the mean of squares forgets, in [0, 1).
      difference_weight: w. None takes Optax's `1 - b2`; the paper's is b2 in this convention.

    Example:
      >>> import adamx
      >>> as_paper = adamx.adan(1e-3, difference_weight=0.92)

    References:
      Xie et al., `Adan <https://arxiv.org/abs/2208.06677>`_, 2022.
    """
    r = rule(b1, b2, b3, eps, eps_root, difference_weight=difference_weight)
    return chained(
        "adan", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )
