# SPDX-License-Identifier: Apache-2.0
"""What an optimizer is doing, as figures in its state, and guards for what goes wrong.

All of it is pure and of fixed structure: it goes through `jit`, `scan`, meshes, `pmap` and ZeRO as
the optimizer does. `read` and `check` look at a state from outside.
"""

from adamx.health.doctor import Finding, doctor
from adamx.health.guards import SkipState, TooManySkippedError, check, first_bad, skip_nonfinite
from adamx.health.observe import ObserveState, observe
from adamx.health.read import JsonLines, history, read
from adamx.health.stopping import diverged, plateau, reached

__all__ = [
    "Finding",
    "JsonLines",
    "ObserveState",
    "SkipState",
    "TooManySkippedError",
    "check",
    "diverged",
    "doctor",
    "first_bad",
    "history",
    "observe",
    "plateau",
    "reached",
    "read",
    "skip_nonfinite",
]
