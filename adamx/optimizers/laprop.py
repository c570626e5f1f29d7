# SPDX-License-Identifier: Apache-2.0
"""LaProp: Ziyin et al., 2020, arXiv 2002.04839. The mean of gradients that are divided first.

Adam divides a mean of gradients by the root of today's mean square. LaProp divides each gradient by
that of its own day and takes the mean of the results, so that b1 and b2 may be chosen apart.
"""

import optax
from jax.typing import DTypeLike

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, correction, lerp, ratio, root, times, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.landing import LandingLike
from adamx.optimizers.recipe import Optimizer, alone, chained, recipe
from adamx.storage import StorageLike
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["laprop", "scale_by_laprop"]


def formula(g, mu, nu, *, b1, c1, b2, c2, am, av, eps):
    nu = lerp(nu, abs_sq(g), b2, c2)
    mu = lerp(mu, ratio(g, root(av * nu), eps), b1, c1)
    return times(am, mu), {"mu": mu, "nu": nu}


def scalars(t, b1, b2, eps):
    (b1, c1), (b2, c2) = weights(b1, t), weights(b2, t)
    am, av = 1 / correction(c1, t), 1 / correction(c2, t)
    return {"b1": b1, "c1": c1, "b2": b2, "c2": c2, "am": am, "av": av, "eps": eps}


def rule(b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-15) -> Rule:
    """A mean of gradients, each over the corrected root of the mean square with itself in it.

    One gradient counts at most 1 / sqrt(1 - b2) = 32. The int8 code of such means ends at 8. After
    a quiet time they pass it where gradients jump up and keep their sign, from the fifth step on,
    to 9.3 if they stay as they are: some twenty steps are then up to 16% shorter than in float32.
    """
    return Rule(
        name="laprop",
        state=optax.ScaleByAdamState,
        moments={"mu": "normalised", "nu": "squared"},
        hyper=hyperparameters.checked(b1=b1, b2=b2, eps=eps),
        at=scalars,
        formula=formula,
    )


def scale_by_laprop(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-15,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.laprop`."""
    return alone(rule(b1, b2, eps), storage, mu_dtype, nu_dtype)


@recipe(scale_by_laprop)
def laprop(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-15,
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""LaProp: the mean of gradients that are divided by their root first.

    .. math:: m_t = \beta_1 m_{t-1} + (1 - \beta_1) \, g_t / (\sqrt{\hat v_t} + \varepsilon),
        \quad p \leftarrow p - \alpha \, m_t / (1 - \beta_1^t)

    For: in its paper it stays stable at pairs of b1 and b2 where Adam diverges, and DreamerV3 uses
    it. Against: at Adam's usual rates the two differ little, and comparisons by others are few.

    Example:
      >>> import adamx
      >>> opt = adamx.laprop(4e-4, b1=0.9, b2=0.99)

    References:
      Ziyin et al., `LaProp <https://arxiv.org/abs/2002.04839>`_, 2020.
    """
    r = rule(b1, b2, eps)
    return chained(
        "laprop", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )
