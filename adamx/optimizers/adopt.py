# SPDX-License-Identifier: Apache-2.0
"""ADOPT: Taniguchi et al., 2024, arXiv 2411.02853. Adam that converges with any b2.

The gradient is divided by the root of the mean square of the steps *before* it, then averaged. The
first step only fills the mean square and moves nothing.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import DTypeLike

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, lerp, magnitude, ratio, root, times, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.core.values import bind
from adamx.kernels.twins import twin
from adamx.landing import LandingLike
from adamx.optimizers.recipe import Optimizer, alone, chained, recipe
from adamx.storage import StorageLike
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["adopt", "scale_by_adopt"]


@twin("adopt", nesterov=(False,))
def formula(g, mu, nu, *, b1, c1, b2, c2, eps, bound=None, nesterov):
    x = ratio(g, jnp.maximum(root(nu), eps))
    if bound is not None:
        x = _bounded(x, bound)
    mu = lerp(mu, x, b1, c1)
    u = lerp(mu, x, b1, c1) if nesterov else mu
    return u, {"mu": mu, "nu": lerp(nu, abs_sq(g), b2, c2)}


def scalars(t, b1, b2, eps, *, clips, bound_at):
    first = t == 1
    (b1, c1), (b2, c2) = weights(b1, t), weights(b2, t)
    scalars = {
        "b1": jnp.where(first, 1, b1),
        "c1": jnp.where(first, 0, c1),
        "b2": jnp.where(first, 0, b2),
        "c2": jnp.where(first, 1, c2),
        "eps": eps,
    }
    return scalars | {"bound": (bound_at or fourth_root)(t - 1)} if clips else scalars


def _bounded(x: jax.Array, bound: jax.Array) -> jax.Array:
    if not jnp.iscomplexobj(x):
        return jnp.where(jnp.isinf(x), x, lax.clamp(-bound, x, bound))
    size = magnitude(x)
    return times(jnp.where(size > bound, bound / jnp.where(size == 0, 1, size), 1), x)


def fourth_root(count: jax.Array) -> jax.Array:
    """The paper's bound on a normalised gradient, `count^(1/4)`."""
    return count**0.25


def rule(
    b1: Hyper = 0.9,
    b2: Hyper = 0.9999,
    eps: Hyper = 1e-6,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], jax.Array] | None = None,
) -> Rule:
    """A mean of gradients, each normalised by its past and bounded by `clip_value_fn(t - 1)`."""
    if clip_value_fn is not None and not callable(clip_value_fn):
        raise TypeError(f"`clip_value_fn` must be a function of the step, got {clip_value_fn!r}")
    return Rule(
        name="adopt",
        state=optax.ScaleByAdamState,
        moments={"mu": "normalised", "nu": "squared"},
        hyper=hyperparameters.checked(b1=b1, b2=b2, eps=eps),
        at=bind(scalars, clips=use_clipping, bound_at=clip_value_fn),
        formula=bind(formula, nesterov=nesterov),
    )


def scale_by_adopt(
    b1: Hyper = 0.9,
    b2: Hyper = 0.9999,
    eps: Hyper = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], jax.Array] | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.adopt`.

    Example:
      >>> import adamx, optax
      >>> opt = optax.chain(adamx.scale_by_adopt(), optax.scale(-1e-3))
    """
    adopt = rule(
        b1, b2, eps, nesterov=nesterov, use_clipping=use_clipping, clip_value_fn=clip_value_fn
    )
    return alone(adopt, storage, mu_dtype, nu_dtype)


@recipe(scale_by_adopt)
def adopt(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.9999,
    eps: Hyper = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], jax.Array] | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""ADOPT: Adam in another order, which converges with any b2.

    .. math:: m_t = \beta_1 m_{t-1} + (1 - \beta_1) \,
        \mathrm{clip}\left( g_t / \max(\sqrt{v_{t-1}}, \varepsilon), (t-1)^{1/4} \right)

    The first step moves nothing.

    Args:
      use_clipping: False to leave the clip out.
      clip_value_fn: the bound as a function of the step, from 0; None for its fourth root.

    Example:
      >>> import adamx
      >>> opt = adamx.adopt(1e-3)

    References:
      Taniguchi et al., `ADOPT <https://arxiv.org/abs/2411.02853>`_, 2024.
    """
    r = rule(b1, b2, eps, nesterov=nesterov, use_clipping=use_clipping, clip_value_fn=clip_value_fn)
    return chained(
        "adopt", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )
