# SPDX-License-Identifier: Apache-2.0
"""AdaBelief: Zhuang et al., 2020, arXiv 2010.07468. Large steps where the mean predicts well."""

import optax
from jax.typing import DTypeLike

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, correction, lerp, ratio, root, times, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.core.values import bind
from adamx.kernels.twins import twin
from adamx.landing import LandingLike
from adamx.optimizers.nesterov import mean_weights
from adamx.optimizers.recipe import Optimizer, alone, chained, recipe
from adamx.storage import StorageLike
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["adabelief", "scale_by_belief"]


@twin("adabelief")
def formula(g, mu, nu, *, b1, c1, b2, c2, am, av, eps, eps_root, ag=None):
    surprise = times(b1, g - mu)  # the gradient less the new mean, without cancellation
    mu = lerp(mu, g, b1, c1)
    nu = lerp(nu, abs_sq(surprise), b2, c2) + eps_root
    top = times(am, mu) if ag is None else times(am, mu) + times(ag, g)
    return ratio(top, root(av * nu), eps), {"mu": mu, "nu": nu}


def scalars(t, b1, b2, eps, eps_root, *, nesterov):
    (b1, c1), (b2, c2) = weights(b1, t), weights(b2, t)
    return {
        "b1": b1,
        "c1": c1,
        "b2": b2,
        "c2": c2,
        "av": 1 / correction(c2, t),
        "eps": eps,
        "eps_root": eps_root,
        **mean_weights(t, b1, c1, nesterov),
    }


def rule(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-16,
    eps_root: Hyper = 1e-16,
    *,
    nesterov: bool = False,
) -> Rule:
    """The mean over the root of the mean squared error of predicting the gradient by the mean."""
    return Rule(
        name="adabelief",
        state=optax.ScaleByBeliefState,
        moments={"mu": "signed", "nu": "spread"},
        hyper=hyperparameters.checked(b1=b1, b2=b2, eps=eps, eps_root=eps_root),
        at=bind(scalars, nesterov=nesterov),
        formula=formula,
    )


def scale_by_belief(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-16,
    eps_root: Hyper = 1e-16,
    *,
    nesterov: bool = False,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.adabelief`.

    Example:
      >>> import adamx, optax
      >>> opt = optax.chain(adamx.scale_by_belief(), optax.scale(-1e-3))
    """
    return alone(rule(b1, b2, eps, eps_root, nesterov=nesterov), storage, mu_dtype, nu_dtype)


@recipe(scale_by_belief)
def adabelief(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-16,
    eps_root: Hyper = 1e-16,
    *,
    nesterov: bool = False,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""AdaBelief: the mean gradient over the root of its mean squared prediction error.

    .. math:: s_t = \beta_2 s_{t-1} + (1 - \beta_2) (g_t - m_t)^2 + \bar\varepsilon, \quad
        p \leftarrow p - \alpha \, \hat m_t / (\sqrt{\hat s_t} + \varepsilon)

    Example:
      >>> import adamx
      >>> opt = adamx.adabelief(1e-3)

    References:
      Zhuang et al., `AdaBelief <https://arxiv.org/abs/2010.07468>`_, 2020.
    """
    r = rule(b1, b2, eps, eps_root, nesterov=nesterov)
    return chained(
        "adabelief", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )
