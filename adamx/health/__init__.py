# SPDX-License-Identifier: Apache-2.0
"""Log what Adam is doing, and guard a run against NaNs, spikes and divergence.

The figures and counts are part of the optimizer's state. All updates are pure and the state has a
fixed structure, so they work under `jit`, `scan`, meshes, `pmap` and ZeRO like any optimizer.
`read` and `check` inspect a state on the host.

Guards are nested in this order; orders that cannot work raise an error:
`rewind(scale_loss(observe(skip_spikes(skip_nonfinite(chain(counted(clip), adamw))))))`.
"""

from adamx.health.guards.check import TooManySkippedError, check
from adamx.health.guards.count_clips import counted
from adamx.health.guards.leaf_names import first_bad
from adamx.health.guards.loss_scale import scale_loss, scaled
from adamx.health.guards.outliers import skip_outliers
from adamx.health.guards.rewind import rewind
from adamx.health.guards.skip import skip_nonfinite, skip_spikes
from adamx.health.observe import observe
from adamx.health.read import JsonLines, history, read
from adamx.health.report.doctor import Finding, doctor
from adamx.health.report.page import page
from adamx.health.report.plot import plot
from adamx.health.states import CountedState, LossScaleState, ObserveState, RewindState, SkipState
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
    "page",
    "plateau",
    "plot",
    "reached",
    "read",
    "rewind",
    "scale_loss",
    "scaled",
    "skip_nonfinite",
    "skip_outliers",
    "skip_spikes",
]
