# SPDX-License-Identifier: Apache-2.0
"""How a float32 step is written into a parameter. Each landing is a file and a row in `NAMED`.

`nearest` leaves rounding to `optax.apply_updates`, where steps below half a unit in a parameter's
last place are lost. The others are links that can end any Optax chain:
`optax.chain(optax.adamw(1e-3), adamx.landing.exact())`. For bfloat16 and float16 parameters they
emit float32 updates, whose sum with the parameter is exactly the intended new parameter.

Optax's `apply_if_finite`, `conditionally_mask` and `conditionally_transform` need updates of the
gradients' dtype: with a landing in them give them float32 gradients, or take
`health.skip_nonfinite` for the first.
"""

from adamx.landing.chain import Ended, Landing, ending
from adamx.landing.compensated8 import compensated8
from adamx.landing.exact import exact
from adamx.landing.kahan import kahan
from adamx.landing.master import master_params
from adamx.landing.nearest import Nearest, nearest
from adamx.landing.stochastic import stochastic
from adamx.landing.transform import LandingState

LandingLike = str | Landing

NAMED: dict[str, Landing] = {
    "nearest": nearest,
    "stochastic": stochastic(),
    "kahan": kahan(),
    "exact": exact(),
    "compensated8": compensated8(),
}


def choose(landing: LandingLike) -> Landing:
    """The landing with this name; any other landing is returned as it is.

    Example:
      >>> choose("softly")
      Traceback (most recent call last):
      ...
      ValueError: `landing` must be one of 'nearest', 'stochastic', 'kahan', 'exact', ...
    """
    if isinstance(landing, str) and landing in NAMED:
        return NAMED[landing]
    if isinstance(landing, str) or not (callable(landing) or hasattr(landing, "update")):
        known = ", ".join(map(repr, NAMED))
        raise ValueError(
            f"`landing` must be one of {known}, a link or a function of a chain, got {landing!r}"
        )
    return landing


__all__ = [
    "NAMED",
    "Ended",
    "Landing",
    "LandingLike",
    "LandingState",
    "Nearest",
    "choose",
    "compensated8",
    "ending",
    "exact",
    "kahan",
    "master_params",
    "nearest",
    "stochastic",
]
