# SPDX-License-Identifier: Apache-2.0
"""Many devices: training in parallel, ZeRO, and where an optimizer's state lies.

`data_parallel` makes a whole training step by `jit`, `shard_map` or `pmap`. Who writes the step
takes the parts: `state_shardings` and `init_sharded` for `jit`; `average_gradients` and `zero` for
functions that are mapped over devices.
"""

from adamx.parallel.average_gradients import average_gradients
from adamx.parallel.check_replicas import check_replicas
from adamx.parallel.data_parallel import data_parallel
from adamx.parallel.loss import Outcome, Run
from adamx.parallel.shardings import init_sharded, state_shardings
from adamx.parallel.spec import DataParallel
from adamx.parallel.zero import Zero, zero

__all__ = [
    "DataParallel",
    "Outcome",
    "Run",
    "Zero",
    "average_gradients",
    "check_replicas",
    "data_parallel",
    "init_sharded",
    "state_shardings",
    "zero",
]
