# SPDX-License-Identifier: Apache-2.0
"""Lion: Chen et al., 2023, arXiv 2302.06675. The sign of an interpolated momentum; one moment."""

from typing import Literal

import jax.numpy as jnp
import optax

from adamx.core import hyperparameters
from adamx.core.arithmetic import complement, lerp, magnitude, times
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule


def lion(
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    *,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: Hyper = 1.0,
) -> Rule:
    """The sign (or a soft sign) of the gradient seen through the momentum."""
    hyperparameters.check(b1=b1, b2=b2, smooth_beta=smooth_beta)
    hyperparameters.check_choice("mode", mode, ("hard", "smooth", "refined"))

    def at(t, b1, b2, smooth_beta):
        return {"c1": complement(b1, t), "c2": complement(b2, t), "smooth_beta": smooth_beta}

    def formula(g, mu, *, c1, c2, smooth_beta):
        x = lerp(mu, g, c1)
        if mode == "smooth":
            u = jnp.tanh(times(smooth_beta, x))
        elif mode == "refined":
            u = jnp.where(magnitude(x) < 1, x, jnp.sign(x))
        else:
            u = jnp.sign(x)
        return u, {"mu": lerp(mu, g, c2)}

    values = {"b1": b1, "b2": b2, "smooth_beta": smooth_beta}
    return Rule("lion", optax.ScaleByLionState, {"mu": "signed"}, values, at, formula)
