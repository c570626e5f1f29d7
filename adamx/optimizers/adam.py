# SPDX-License-Identifier: Apache-2.0
"""Adam: Kingma & Ba, 2014, arXiv 1412.6980. With Nesterov's momentum: see `nadam.py`."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, complement, correction, lerp, ratio, root, times
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Kind, Rule
from adamx.rules import nadam

EpsMode = Literal["outside", "hat", "atan2"]


def adam(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    *,
    nesterov: bool = False,
    momentum_decay: Hyper | None = None,
    eps_mode: EpsMode = "outside",
) -> Rule:
    """The mean over the root of the mean square, both freed of the bias of their zero start."""
    hyperparameters.check(b1=b1, b2=b2, eps=eps, eps_root=eps_root, momentum_decay=momentum_decay)
    hyperparameters.check_choice("eps_mode", eps_mode, ("outside", "hat", "atan2"))
    if momentum_decay is not None and not nesterov:
        raise ValueError("`momentum_decay` needs `nesterov=True`")

    def at(t, b1, b2, eps, eps_root, momentum_decay=None):
        c1, c2 = complement(b1, t), complement(b2, t)
        weights = (
            nadam.weights(t, c1, momentum_decay) if nesterov else {"am": 1 / correction(c1, t)}
        )
        bc2 = correction(c2, t)
        return {
            "c1": c1,
            "c2": c2,
            "av": 1 / bc2,
            "eps": epsilon(eps, eps_mode, bc2),
            "eps_root": eps_root,
        } | weights

    def formula(g, mu, nu, *, c1, c2, am, av, eps, eps_root, ag=None):
        mu = lerp(mu, g, c1)
        nu = lerp(nu, abs_sq(g), c2)
        top = times(am, mu) if ag is None else times(am, mu) + times(ag, g)
        bottom = root(av * nu + eps_root)
        u = atan2(top, bottom) if eps_mode == "atan2" else ratio(top, bottom, eps)
        return u, {"mu": mu, "nu": nu}

    values = {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    if momentum_decay is not None:
        values["momentum_decay"] = momentum_decay
    moments: dict[str, Kind] = {"mu": "signed", "nu": "squared"}
    return Rule("adam", optax.ScaleByAdamState, moments, values, at, formula)


def epsilon(eps: float | jax.Array, mode: EpsMode, bc2: jax.Array) -> float | jax.Array:
    """The epsilon that stands beside the corrected root: itself, or epsilon-hat's.

    Keras and TensorFlow add a constant to the raw root, which beside the corrected one is
    `eps / sqrt(1 - b2^t)`: 32 times larger at the first step.
    """
    return eps / jnp.sqrt(bc2) if mode == "hat" else eps


def atan2(top: jax.Array, bottom: jax.Array) -> jax.Array:
    """`atan2(top, bottom)`, free of epsilon and of scale (Everett et al., arXiv 2407.05872)."""
    if jnp.iscomplexobj(top):
        raise ValueError("`eps_mode='atan2'` has no complex form")
    return jnp.arctan2(top, jnp.where(bottom == 0, 1, bottom))
