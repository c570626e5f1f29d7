# SPDX-License-Identifier: Apache-2.0
"""Adamax as Keras and TensorFlow compute it: epsilon is added to the decaying maximum of |g|.

The paper, torch, Optax and `adamx.adamax` add it to |g| before the maximum is taken.
"""

import dataclasses

import jax.numpy as jnp

from adamx.core.arithmetic import lerp, magnitude, ratio, times
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.optimizers.adamax import rule as papers


def rule(b1: Hyper = 0.9, b2: Hyper = 0.999, eps: Hyper = 1e-7) -> Rule:
    """The corrected mean over a decaying maximum of |g|, plus epsilon."""
    return dataclasses.replace(papers(b1, b2, eps), formula=formula)


def formula(g, mu, nu, *, b1, c1, b2, c2, am, eps):
    mu = lerp(mu, g, b1, c1)
    nu = jnp.maximum(magnitude(g), lerp(nu, jnp.zeros_like(nu), b2, c2))
    return ratio(times(am, mu), nu, eps), {"mu": mu, "nu": nu}
