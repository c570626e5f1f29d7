# SPDX-License-Identifier: Apache-2.0
"""Training on many devices: data parallelism, ZeRO, and shardings of an optimizer's state.

`data_parallel` builds a whole training step with `jit`, `shard_map` or `pmap`. To write your own
step, use the parts: `state_shardings` and `init_sharded` for `jit`; `average_gradients` and `zero`
for functions that are mapped over devices.
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
