# SPDX-License-Identifier: Apache-2.0
"""A gradient over the root of its mean square: Adam without momentum, for links that average."""

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, correction, lerp, ratio, root, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.moments.find import RmsState


def formula(g, nu, *, b2, c2, av, eps):
    nu = lerp(nu, abs_sq(g), b2, c2)
    return ratio(g, root(av * nu), eps), {"nu": nu}


def scalars(t, b2, eps):
    b2, c2 = weights(b2, t)
    return {"b2": b2, "c2": c2, "av": 1 / correction(c2, t), "eps": eps}


def rule(b2: Hyper = 0.999, eps: Hyper = 1e-8) -> Rule:
    """The gradient over the root of the mean square, corrected for its start at zero."""
    hyper = hyperparameters.checked(b2=b2, eps=eps)
    return Rule("rms", RmsState, {"nu": "squared"}, hyper, scalars, formula)
