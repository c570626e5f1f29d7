# SPDX-License-Identifier: Apache-2.0
"""The rule of a plain mean of what comes in, not corrected for its start at zero.

As one link of a method it has every storage; the rest of the method need not know.
"""

import optax

from adamx.core.arithmetic import lerp, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.core.values import bind


def ema(name: str, hyper: str, b: Hyper) -> Rule:
    """The mean that forgets at rate `b`, the hyperparameter `hyper`, in `optax.ema`'s state."""
    at = bind(scalars, hyper=hyper)
    return Rule(name, optax.EmaState, {"ema": "signed"}, {hyper: b}, at, formula)


def formula(g, ema, *, b, c):
    ema = lerp(ema, g, b, c)
    return ema, {"ema": ema}


def scalars(t, *, hyper, **rate):
    b, c = weights(rate[hyper], t)
    return {"b": b, "c": c}
