# SPDX-License-Identifier: Apache-2.0
"""Adam: Kingma & Ba, 2014, arXiv 1412.6980; AdamW: Loshchilov & Hutter, 2017, arXiv 1711.05101."""

from typing import Literal

import jax
import jax.numpy as jnp
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

__all__ = ["adam", "adamw", "scale_by_adam"]

EpsMode = Literal["outside", "hat", "atan2"]


@twin("adam", eps_mode=("outside", "hat"))
@twin("atan2", eps_mode=("atan2",))
def formula(g, mu, nu, *, b1, c1, b2, c2, am, av, eps, eps_root, ag=None, eps_mode):
    mu = lerp(mu, g, b1, c1)
    nu = lerp(nu, abs_sq(g), b2, c2)
    top = times(am, mu) if ag is None else times(am, mu) + times(ag, g)
    bottom = root(av * nu + eps_root)
    u = atan2(top, bottom) if eps_mode == "atan2" else ratio(top, bottom, eps)
    return u, {"mu": mu, "nu": nu}


def scalars(t, b1, b2, eps, eps_root, momentum_decay=None, *, nesterov, eps_mode):
    (b1, c1), (b2, c2) = weights(b1, t), weights(b2, t)
    bc2 = correction(c2, t)
    return {
        "b1": b1,
        "c1": c1,
        "b2": b2,
        "c2": c2,
        "av": 1 / bc2,
        "eps": epsilon(eps, eps_mode, bc2),
        "eps_root": eps_root,
        **mean_weights(t, b1, c1, nesterov, momentum_decay),
    }


def epsilon(eps: float | jax.Array, mode: EpsMode, bc2: jax.Array) -> float | jax.Array:
    """The epsilon added to the corrected root: `eps` itself, or that of epsilon-hat.

    Keras and TensorFlow add a constant to the uncorrected root. Added to the corrected root, it is
    `eps / sqrt(1 - b2^t)`: 32 times larger at the first step.
    """
    return eps / jnp.sqrt(bc2) if mode == "hat" else eps


def atan2(top: jax.Array, bottom: jax.Array) -> jax.Array:
    """`atan2(top, bottom)`, free of epsilon and of scale (Everett et al., arXiv 2407.05872)."""
    if jnp.iscomplexobj(top):
        raise ValueError("`eps_mode='atan2'` has no complex form")
    return jnp.arctan2(top, jnp.where(bottom == 0, 1, bottom))


def rule(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    *,
    nesterov: bool = False,
    momentum_decay: Hyper | None = None,
    eps_mode: EpsMode = "outside",
) -> Rule:
    """The mean over the root of the mean square, both corrected for their start at zero."""
    hyper = {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    hyper = hyperparameters.checked(**hyper, momentum_decay=momentum_decay)
    hyperparameters.check_choice("eps_mode", eps_mode, ("outside", "hat", "atan2"))
    if momentum_decay is not None and not nesterov:
        raise ValueError("`momentum_decay` needs `nesterov=True`")
    return Rule(
        name="adam",
        state=optax.ScaleByAdamState,
        moments={"mu": "signed", "nu": "squared"},
        hyper=hyper,
        at=bind(scalars, nesterov=nesterov, eps_mode=eps_mode),
        formula=bind(formula, eps_mode=eps_mode),
    )


def scale_by_adam(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    momentum_decay: Hyper | None = None,
    eps_mode: EpsMode = "outside",
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.adam`, uphill and without a learning rate.

    Example:
      >>> import adamx, optax, jax.numpy as jnp
      >>> opt = optax.chain(optax.clip(1.0), adamx.scale_by_adam(), optax.scale(-0.1))
      >>> params = jnp.array([1.0])
      >>> updates, state = opt.update(jnp.array([5.0]), opt.init(params), params)
      >>> print(f"{updates[0]:.6f}")
      -0.100000
    """
    adam = rule(
        b1, b2, eps, eps_root, nesterov=nesterov, momentum_decay=momentum_decay, eps_mode=eps_mode
    )
    return alone(adam, storage, mu_dtype, nu_dtype)


@recipe(scale_by_adam)
def adam(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    momentum_decay: Hyper | None = None,
    eps_mode: EpsMode = "outside",
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Adam: steps of the mean gradient over the root of the mean square.

    .. math:: p \leftarrow p -
        \alpha \, \hat m_t / (\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon)

    Example:
      >>> import adamx, optax, jax.numpy as jnp
      >>> opt = adamx.adam(0.1)
      >>> params = jnp.array([1.0])
      >>> updates, state = opt.update(jnp.array([3.0]), opt.init(params), params)
      >>> print(optax.apply_updates(params, updates))
      [0.9]

    References:
      Kingma & Ba, `Adam <https://arxiv.org/abs/1412.6980>`_, 2014.
    """
    r = rule(
        b1, b2, eps, eps_root, nesterov=nesterov, momentum_decay=momentum_decay, eps_mode=eps_mode
    )
    return chained(
        "adam", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


@recipe(scale_by_adam)
def adamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyper | Decay | None = 1e-4,
    mask: Mask | None = None,
    *,
    nesterov: bool = False,
    momentum_decay: Hyper | None = None,
    eps_mode: EpsMode = "outside",
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""AdamW: Adam with decay that the root does not divide.

    .. math:: p \leftarrow p - \alpha \left(
        \hat m_t / (\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon) + \lambda p \right)

    The decay is Optax's 1e-4 by default; torch's is 1e-2, Keras' 4e-3.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> opt = adamx.adamw(0.1, weight_decay=adamx.decay.cautious(0.1), mask="!*/bias")
      >>> params = {"kernel": jnp.array([1.0]), "bias": jnp.array([1.0])}
      >>> params, state = adamx.step(opt, params, opt.init(params), params)
      >>> print(params["kernel"], params["bias"])
      [0.89] [0.9]

    References:
      Loshchilov & Hutter, `Decoupled Weight Decay <https://arxiv.org/abs/1711.05101>`_, 2017.
    """
    r = rule(
        b1, b2, eps, eps_root, nesterov=nesterov, momentum_decay=momentum_decay, eps_mode=eps_mode
    )
    return chained(
        "adamw", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )
