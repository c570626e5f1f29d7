# SPDX-License-Identifier: Apache-2.0
"""Yogi: Zaheer et al., 2018, NeurIPS. The mean square moves by steps of g^2, never in leaps."""

import jax.numpy as jnp
import optax

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, complement, correction, lerp, ratio, root, times
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule


def yogi(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-3,
    eps_root: Hyper = 0.0,
    initial_accumulator_value: float = 1e-6,
) -> Rule:
    """Adam's direction over a mean square that additive steps keep from collapsing."""
    hyperparameters.check(b1=b1, b2=b2, eps=eps, eps_root=eps_root)
    hyperparameters.check(initial_accumulator_value=initial_accumulator_value)

    def at(t, b1, b2, eps, eps_root):
        c1, c2 = complement(b1, t), complement(b2, t)
        am, av = 1 / correction(c1, t), 1 / correction(c2, t)
        return {"c1": c1, "c2": c2, "am": am, "av": av, "eps": eps, "eps_root": eps_root}

    def formula(g, mu, nu, *, c1, c2, am, av, eps, eps_root):
        mu = lerp(mu, g, c1)
        sq = abs_sq(g)
        nu = nu - c2 * jnp.sign(nu - sq) * sq
        return ratio(times(am, mu), root(av * nu + eps_root), eps), {"mu": mu, "nu": nu}

    return Rule(
        "yogi",
        optax.ScaleByAdamState,
        {"mu": "signed", "nu": "squared"},
        {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root},
        at,
        formula,
        start={"mu": initial_accumulator_value, "nu": initial_accumulator_value},
    )
