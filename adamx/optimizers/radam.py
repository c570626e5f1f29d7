# SPDX-License-Identifier: Apache-2.0
"""RAdam: Liu et al., 2019, arXiv 1908.03265. No adaptive step before its variance is known.

The length of the average, rho, decides. Written as in the paper,

    rho_t = 2 / (1 - b2) - 1 - 2 t b2^t / (1 - b2^t),

it is the small difference of two numbers near 2000 and off by a hundredth in float32. With
L = -log b2 and k(x) = x / (e^x - 1) - 1 + x / 2 (an even function, x^2 / 12 at first) the same is

    rho_t = 2 / L (k(L) + t L / 2 - k(t L)),

and nothing cancels.
"""

import math
from fractions import Fraction
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, correction, lerp, log_rate, ratio, root, times, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.core.values import bind
from adamx.kernels.twins import twin
from adamx.landing import LandingLike
from adamx.optimizers.adam import epsilon
from adamx.optimizers.nesterov import mean_weights
from adamx.optimizers.recipe import Optimizer, alone, chained, recipe
from adamx.storage import StorageLike
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["radam", "scale_by_radam"]


@twin("radam")
def formula(g, mu, nu, *, b1, c1, b2, c2, am, av, adaptive, plain, eps, eps_root, ag=None):
    mu = lerp(mu, g, b1, c1)
    nu = lerp(nu, abs_sq(g), b2, c2)
    top = times(am, mu) if ag is None else times(am, mu) + times(ag, g)
    bottom = adaptive * (root(av * nu + eps_root) + eps) + plain
    return ratio(top, bottom), {"mu": mu, "nu": nu}


def scalars(t, b1, b2, eps, eps_root, threshold, *, nesterov, eps_mode):
    (b1, c1), (b2, c2) = weights(b1, t), weights(b2, t)
    bc2 = correction(c2, t)
    rho = length(t, c2)
    rectified = (rho >= threshold) & (rho > 4)
    r = rectification(jnp.where(rectified, rho, 5), 2 / c2 - 1)
    return {
        "b1": b1,
        "c1": c1,
        "b2": b2,
        "c2": c2,
        "av": 1 / bc2,
        "adaptive": jnp.where(rectified, 1 / r, 0),
        "plain": jnp.where(rectified, 0, 1),
        "eps": epsilon(eps, eps_mode, bc2),
        "eps_root": eps_root,
        **mean_weights(t, b1, c1, nesterov),
    }


def rectification(rho: jax.Array, rho_inf: jax.Array) -> jax.Array:
    """The factor r, for rho > 4; where even `rho_inf` stays below, no step is ever rectified."""
    far = jnp.maximum(rho_inf, 4.5)
    return jnp.sqrt((rho - 4) / (far - 4) * ((rho - 2) / (far - 2)) * (far / rho))


def length(t: jax.Array, c: jax.Array) -> jax.Array:
    """rho_t, the length of a plain average that varies like the exponential one after t steps."""
    rate = -log_rate(c)
    x = jnp.minimum(t * rate, 80.0)  # from here on e^-x is nothing, and e^x still finite
    near, far = jnp.minimum(x, 1), jnp.maximum(x, 1)
    grown = jnp.where(x < 1, near / 2 - _even_series(near), 1 - far / jnp.expm1(far))
    return 2 / rate * (_even_part(rate) + grown)


def _even_part(x: jax.Array) -> jax.Array:
    near, far = jnp.minimum(x, 1), jnp.maximum(x, 1)
    return jnp.where(x < 1, _even_series(near), far / jnp.expm1(far) - 1 + far / 2)


def _even_series(x: jax.Array) -> jax.Array:
    """k(x) for 0 <= x <= 1: sum of B_2n x^2n / (2n)!, B the Bernoulli numbers."""
    total = jnp.zeros_like(x)
    for coefficient in reversed(_COEFFICIENTS):
        total = (total + coefficient) * x * x
    return total


_BERNOULLI = "1/6 -1/30 1/42 -1/30 5/66 -691/2730 7/6 -3617/510 43867/798 -174611/330".split()
_COEFFICIENTS = [
    float(Fraction(b) / math.factorial(2 * n)) for n, b in enumerate(_BERNOULLI, start=1)
]


def rule(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    threshold: Hyper = 5.0,
    *,
    nesterov: bool = False,
    eps_mode: Literal["outside", "hat"] = "outside",
) -> Rule:
    """Adam's direction times r where rho has reached the threshold, the bare mean before."""
    hyperparameters.check(b1=b1, b2=b2, eps=eps, eps_root=eps_root, threshold=threshold)
    hyperparameters.check_choice("eps_mode", eps_mode, ("outside", "hat"))
    return Rule(
        name="radam",
        state=optax.ScaleByAdamState,
        moments={"mu": "signed", "nu": "squared"},
        hyper={"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root, "threshold": threshold},
        at=bind(scalars, nesterov=nesterov, eps_mode=eps_mode),
        formula=formula,
    )


def scale_by_radam(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    threshold: Hyper = 5.0,
    *,
    nesterov: bool = False,
    eps_mode: Literal["outside", "hat"] = "outside",
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.radam`.

    Example:
      >>> import adamx, optax
      >>> opt = optax.chain(adamx.scale_by_radam(), optax.scale(-1e-3))
    """
    radam = rule(b1, b2, eps, eps_root, threshold, nesterov=nesterov, eps_mode=eps_mode)
    return alone(radam, storage, mu_dtype, nu_dtype)


@recipe(scale_by_radam)
def radam(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    threshold: Hyper = 5.0,
    *,
    nesterov: bool = False,
    eps_mode: Literal["outside", "hat"] = "outside",
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""RAdam: Adam that waits until the variance of its step is known.

    .. math:: p \leftarrow p - \alpha \, r_t \hat m_t / (\sqrt{\hat v_t} + \varepsilon)
        \text{ if } \rho_t \ge \text{threshold, else } p - \alpha \hat m_t

    Args:
      threshold: 5 as in Optax and torch; 4 for the paper's.
      eps_mode: `"hat"` for torch's epsilon.

    Example:
      >>> import adamx
      >>> as_torch = adamx.radam(1e-3, eps_mode="hat")

    References:
      Liu et al., `On the Variance of the Adaptive Learning Rate
      <https://arxiv.org/abs/1908.03265>`_, 2019.
    """
    r = rule(b1, b2, eps, eps_root, threshold, nesterov=nesterov, eps_mode=eps_mode)
    return chained(
        "radam", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )
