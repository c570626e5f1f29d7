# SPDX-License-Identifier: Apache-2.0
"""Adamax: Kingma & Ba, 2014, arXiv 1412.6980, section 7.1. Adam in the infinity norm."""

import jax.numpy as jnp
import optax

from adamx.core import hyperparameters
from adamx.core.arithmetic import complement, correction, lerp, magnitude, ratio, times
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Kind, Rule


def adamax(b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-8) -> Rule:
    """The corrected mean over a decaying maximum of |g|."""
    hyperparameters.check(b1=b1, b2=b2, eps=eps)

    def at(t, b1, b2, eps):
        c1, c2 = complement(b1, t), complement(b2, t)
        return {"c1": c1, "c2": c2, "am": 1 / correction(c1, t), "eps": eps}

    def formula(g, mu, nu, *, c1, c2, am, eps):
        mu = lerp(mu, g, c1)
        nu = jnp.maximum(magnitude(g) + eps, nu - c2 * nu)
        return ratio(times(am, mu), nu), {"mu": mu, "nu": nu}

    moments: dict[str, Kind] = {"mu": "signed", "nu": "magnitude"}
    values = {"b1": b1, "b2": b2, "eps": eps}
    return Rule("adamax", optax.ScaleByAdamState, moments, values, at, formula)
