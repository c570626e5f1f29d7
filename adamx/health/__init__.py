# SPDX-License-Identifier: Apache-2.0
"""What an optimizer is doing, as figures in its state, and guards for what goes wrong.

All of it is pure and of fixed structure: it goes through `jit`, `scan`, meshes, `pmap` and ZeRO as
the optimizer does. `read` and `check` look at a state from outside.
"""

from adamx.health.check import TooManySkippedError, check
from adamx.health.counted import CountedState, counted
from adamx.health.doctor import Finding, doctor
from adamx.health.guards import SkipState, first_bad, skip_nonfinite, skip_spikes
from adamx.health.observe import ObserveState, observe
from adamx.health.read import JsonLines, history, read
from adamx.health.rewind import RewindState, rewind
from adamx.health.scaling import LossScaleState, scale_loss, scaled
from adamx.health.stopping import diverged, plateau, reached

__all__ = [
    "CountedState",
    "Finding",
    "JsonLines",
    "LossScaleState",
    "ObserveState",
    "RewindState",
    "SkipState",
    "TooManySkippedError",
    "check",
    "counted",
    "diverged",
    "doctor",
    "first_bad",
    "history",
    "observe",
    "plateau",
    "reached",
    "read",
    "rewind",
    "scale_loss",
    "scaled",
    "skip_nonfinite",
    "skip_spikes",
]
