# SPDX-License-Identifier: Apache-2.0
"""Simplified AdEMAMix: Morwani et al., 2025, arXiv 2502.02431. One sum of gradients for two means.

The sum is not normalised: at b1 = 0.99 it is 100 times the mean, so learning rates are that much
smaller than Adam's.
"""

import optax
import optax.contrib
from jax.typing import DTypeLike

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, correction, lerp, ratio, root, times, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.landing import LandingLike
from adamx.optimizers.recipe import Optimizer, alone, chained, recipe
from adamx.storage import StorageLike
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["scale_by_simplified_ademamix", "simplified_ademamix"]


def formula(g, m, n, *, b1, b2, c2, alpha, an, eps, eps_root):
    m = times(b1, m) + g
    n = lerp(n, abs_sq(g), b2, c2)
    return ratio(m + times(alpha, g), root(an * n + eps_root), eps), {"m": m, "n": n}


def scalars(t, b1, b2, alpha, eps, eps_root):
    (b1, _), (b2, c2) = weights(b1, t), weights(b2, t)
    an = 1 / correction(c2, t)
    return {
        "b1": b1,
        "b2": b2,
        "c2": c2,
        "alpha": alpha,
        "an": an,
        "eps": eps,
        "eps_root": eps_root,
    }


def rule(
    b1: Hyper = 0.99,
    b2: Hyper = 0.95,
    alpha: Hyper = 0.0,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
) -> Rule:
    """The sum of all gradients, older ones less, plus alpha times the last, over their root.

    The sum is of the kind `"slow"`: where b1^2 > b2, no multiple of the root bounds it.
    """
    return Rule(
        name="simplified_ademamix",
        state=optax.contrib.ScaleBySimplifiedAdEMAMixState,
        moments={"m": "slow", "n": "squared"},
        hyper=hyperparameters.checked(b1=b1, b2=b2, alpha=alpha, eps=eps, eps_root=eps_root),
        at=scalars,
        formula=formula,
        count="t",
    )


def scale_by_simplified_ademamix(
    b1: Hyper = 0.99,
    b2: Hyper = 0.95,
    alpha: optax.ScalarOrSchedule = 0.0,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.simplified_ademamix`."""
    return alone(rule(b1, b2, alpha, eps, eps_root), storage, mu_dtype, nu_dtype)


@recipe(scale_by_simplified_ademamix)
def simplified_ademamix(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.99,
    b2: Hyper = 0.95,
    alpha: optax.ScalarOrSchedule = 0.0,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    weight_decay: Hyper | Decay | None = 0.0,
    mask: Mask | None = None,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Simplified AdEMAMix: one sum of gradients, and the last gradient once more.

    .. math:: m_t = \beta_1 m_{t-1} + g_t, \quad
        p \leftarrow p - \alpha_{lr} \, (m_t + \alpha g_t)
        / (\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon)

    For: in its paper it equals AdEMAMix in a language model of 150 million parameters, with a mean
    less to keep. Against: no other comparison is known to us, and its theory expects a gain at
    small batches only.

    Args:
      b1: How slowly the sum of gradients forgets, in [0, 1).
      alpha: The weight of the last gradient.

    Example:
      >>> import adamx
      >>> opt = adamx.simplified_ademamix(1e-5, alpha=100.0)

    References:
      Morwani et al., `Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD
      Variants <https://arxiv.org/abs/2502.02431>`_, 2025.
    """
    r = rule(b1, b2, alpha, eps, eps_root)
    return chained(
        "simplified_ademamix",
        r,
        learning_rate,
        storage,
        mu_dtype,
        nu_dtype,
        weight_decay,
        mask,
        landing,
    )
