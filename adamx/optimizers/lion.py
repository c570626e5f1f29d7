# SPDX-License-Identifier: Apache-2.0
"""Lion: Chen et al., 2023, arXiv 2302.06675. The sign of an interpolated momentum; one moment."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx.core import hyperparameters
from adamx.core.arithmetic import lerp, magnitude, ratio, times, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.core.values import bind
from adamx.kernels.twins import twin
from adamx.landing import LandingLike
from adamx.optimizers.recipe import Optimizer, alone, chained, recipe
from adamx.storage import StorageLike
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["lion", "scale_by_lion"]


@twin("lion", mode=("hard",))
def formula(g, mu, *, b1, c1, b2, c2, smooth_beta, mode):
    x = lerp(mu, g, b1, c1)
    if mode == "smooth":
        u = _smooth(times(smooth_beta, x))
    elif mode == "refined":
        u = jnp.where(magnitude(x) < 1, x, jnp.sign(x))
    else:
        u = jnp.sign(x)
    return u, {"mu": lerp(mu, g, b2, c2)}


def _smooth(x: jax.Array) -> jax.Array:
    """The tanh of the size, in the direction of `x`: the complex tanh has poles."""
    if not jnp.iscomplexobj(x):
        return jnp.tanh(x)
    size = magnitude(x)
    return times(ratio(jnp.tanh(size), size), x)


def scalars(t, b1, b2, smooth_beta):
    (b1, c1), (b2, c2) = weights(b1, t), weights(b2, t)
    return {"b1": b1, "c1": c1, "b2": b2, "c2": c2, "smooth_beta": smooth_beta}


def rule(
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    *,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: Hyper = 1.0,
) -> Rule:
    """The sign (or a soft sign) of the gradient seen through the momentum."""
    hyperparameters.check_choice("mode", mode, ("hard", "smooth", "refined"))
    return Rule(
        name="lion",
        state=optax.ScaleByLionState,
        moments={"mu": "signed"},
        hyper=hyperparameters.checked(b1=b1, b2=b2, smooth_beta=smooth_beta),
        at=scalars,
        formula=bind(formula, mode=mode),
    )


def scale_by_lion(
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    mu_dtype: DTypeLike | None = None,
    *,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: Hyper = 1.0,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.lion`.

    Example:
      >>> import adamx, optax
      >>> opt = optax.chain(adamx.scale_by_lion(), optax.scale(-1e-3))
    """
    return alone(rule(b1, b2, mode=mode, smooth_beta=smooth_beta), storage, mu_dtype)


@recipe(scale_by_lion)
def lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyper | Decay | None = 1e-3,
    mask: Mask | None = None,
    *,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: Hyper | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Lion: the sign of the gradient seen through its momentum.

    .. math:: p \leftarrow p - \alpha \left(
        \mathrm{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t) + \lambda p \right)

    Learning rates are some ten times smaller than Adam's, decay as much larger.

    Args:
      mode: `"smooth"` for a tanh, `"refined"` for a clipped identity in the sign's place.
      smooth_beta: the steepness of the tanh; None for 1.

    Example:
      >>> import adamx
      >>> opt = adamx.lion(1e-4, weight_decay=0.1)

    References:
      Chen et al., `Symbolic Discovery of Optimization Algorithms
      <https://arxiv.org/abs/2302.06675>`_, 2023.
    """
    r = rule(b1, b2, mode=mode, smooth_beta=1.0 if smooth_beta is None else smooth_beta)
    return chained("lion", r, learning_rate, storage, mu_dtype, None, weight_decay, mask, landing)
