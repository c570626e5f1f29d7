# SPDX-License-Identifier: Apache-2.0
"""AdaBelief: Zhuang et al., 2020, arXiv 2010.07468. Large steps where the mean predicts well."""

import optax

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, complement, correction, lerp, ratio, root, times
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Kind, Rule
from adamx.rules import nadam


def belief(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-16,
    eps_root: Hyper = 1e-16,
    *,
    nesterov: bool = False,
) -> Rule:
    """The mean over the root of the mean squared error of predicting the gradient by the mean."""
    hyperparameters.check(b1=b1, b2=b2, eps=eps, eps_root=eps_root)

    def at(t, b1, b2, eps, eps_root):
        c1, c2 = complement(b1, t), complement(b2, t)
        weights = nadam.weights(t, c1, None) if nesterov else {"am": 1 / correction(c1, t)}
        scalars = {"c1": c1, "c2": c2, "av": 1 / correction(c2, t), "eps": eps}
        return scalars | {"eps_root": eps_root} | weights

    def formula(g, mu, nu, *, c1, c2, am, av, eps, eps_root, ag=None):
        surprise = times(1 - c1, g - mu)  # the gradient less the new mean, without cancellation
        mu = lerp(mu, g, c1)
        nu = lerp(nu, abs_sq(surprise), c2) + eps_root
        top = times(am, mu) if ag is None else times(am, mu) + times(ag, g)
        return ratio(top, root(av * nu), eps), {"mu": mu, "nu": nu}

    values = {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    moments: dict[str, Kind] = {"mu": "signed", "nu": "squared"}
    return Rule("adabelief", optax.ScaleByBeliefState, moments, values, at, formula)
