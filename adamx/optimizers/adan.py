# SPDX-License-Identifier: Apache-2.0
"""Adan: Xie et al., 2022, arXiv 2208.06677. Nesterov's momentum from differences of gradients."""

import jax.numpy as jnp
import optax

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, complement, correction, lerp, ratio, root, times
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Kind, Rule


def adan(
    b1: Hyper = 0.98,
    b2: Hyper = 0.92,
    b3: Hyper = 0.99,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    *,
    difference_weight: Hyper | None = None,
) -> Rule:
    """The mean plus a weighted mean of differences, over the root of the looked-ahead square.

    The weight of the differences is `1 - b2` in Optax; the paper's (and its authors' code's) is
    `b2` in the convention used here, in which averages decay by b.
    """
    hyperparameters.check(b1=b1, b2=b2, b3=b3, eps=eps, eps_root=eps_root)
    hyperparameters.check(difference_weight=difference_weight)

    def at(t, b1, b2, b3, eps, eps_root, difference_weight=None):
        c1, c2, c3 = complement(b1, t), complement(b2, t), complement(b3, t)
        weight = c2 if difference_weight is None else difference_weight
        return {
            "c1": c1,
            "c2": c2,
            "c3": c3,
            "later": t > 1,
            "weight": weight,
            "am": 1 / correction(c1, t),
            "av": weight / correction(c2, t),
            "an": 1 / correction(c3, t),
            "eps": eps,
            "eps_root": eps_root,
        }

    def formula(grad, m, v, n, g, *, c1, c2, c3, later, weight, am, av, an, eps, eps_root):
        difference = jnp.where(later > 0, grad - g, jnp.zeros_like(grad))
        m = lerp(m, grad, c1)
        v = lerp(v, difference, c2)
        n = lerp(n, abs_sq(grad + times(weight, difference)), c3)
        u = ratio(times(am, m) + times(av, v), root(an * n + eps_root), eps)
        return u, {"m": m, "v": v, "n": n, "g": grad}

    values = {"b1": b1, "b2": b2, "b3": b3, "eps": eps, "eps_root": eps_root}
    if difference_weight is not None:
        values["difference_weight"] = difference_weight
    moments: dict[str, Kind] = {"m": "signed", "v": "signed", "n": "squared", "g": "signed"}
    return Rule("adan", optax.ScaleByAdanState, moments, values, at, formula, count="t")
