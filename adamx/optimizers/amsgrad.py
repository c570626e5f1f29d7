# SPDX-License-Identifier: Apache-2.0
"""AMSGrad: Reddi, Kale & Kumar, 2018, arXiv 1904.09237. The mean square may only grow.

Three forms are about. The paper's corrects no bias at all. torch takes the maximum of raw mean
squares and corrects the result; Optax corrects first and takes the maximum of that, in which the
first gradient's correction (a factor of 1000) stays for ever.
"""

from typing import Literal

import jax.numpy as jnp
import optax

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, complement, correction, lerp, ratio, root, times
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.rules.adam import epsilon


def amsgrad(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    *,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    max_of: Literal["corrected", "raw"] = "corrected",
    eps_mode: Literal["outside", "hat"] = "outside",
) -> Rule:
    """The mean over the root of the largest mean square so far."""
    hyperparameters.check(b1=b1, b2=b2, eps=eps, eps_root=eps_root)
    hyperparameters.check_choice("eps_mode", eps_mode, ("outside", "hat"))
    hyperparameters.check_choice("max_of", max_of, ("corrected", "raw"))

    def at(t, b1, b2, eps, eps_root):
        c1, c2 = complement(b1, t), complement(b2, t)
        bc2 = correction(c2, t)
        av = 1 / bc2 if bias_correction_nu else 1.0
        return {
            "c1": c1,
            "c2": c2,
            "am": 1 / correction(c1, t) if bias_correction_mu else 1.0,
            "before": av if max_of == "corrected" else 1.0,
            "after": av if max_of == "raw" else 1.0,
            "eps": epsilon(eps, eps_mode, bc2) if bias_correction_nu else eps,
            "eps_root": eps_root,
        }

    def formula(g, mu, nu, nu_max, *, c1, c2, am, before, after, eps, eps_root):
        mu = lerp(mu, g, c1)
        nu = lerp(nu, abs_sq(g), c2)
        nu_max = jnp.maximum(nu_max, before * nu)
        u = ratio(times(am, mu), root(after * nu_max + eps_root), eps)
        return u, {"mu": mu, "nu": nu, "nu_max": nu_max}

    return Rule(
        "amsgrad",
        optax.ScaleByAmsgradState,
        {"mu": "signed", "nu": "squared", "nu_max": "squared"},
        {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root},
        at,
        formula,
    )
