# SPDX-License-Identifier: Apache-2.0
"""Settings computed from others: for another batch size, another width, another length of training.

    adamx.adamw(3e-4, b2=knobs.beta2_from_half_life(tokens=10e6, batch=64 * 2048))
    adamx.adamw(**knobs.rescale(256, 1024, learning_rate=1e-3, b2=0.99)._asdict())

Schedules are here where Optax has none. Each returns a schedule of the step, as Optax's do.
"""

from adamx.knobs.half_life import beta2_from_half_life, half_life
from adamx.knobs.inverse_sqrt import warmup_inverse_sqrt_schedule
from adamx.knobs.mup import mup_multipliers, scale_by_mup
from adamx.knobs.rescale import Rescaled, rescale
from adamx.knobs.timescale import decay_from_timescale, timescale
from adamx.knobs.warmup_stable_decay import warmup_stable_decay_schedule

__all__ = [
    "Rescaled",
    "beta2_from_half_life",
    "decay_from_timescale",
    "half_life",
    "mup_multipliers",
    "rescale",
    "scale_by_mup",
    "timescale",
    "warmup_inverse_sqrt_schedule",
    "warmup_stable_decay_schedule",
]
