# SPDX-License-Identifier: Apache-2.0
"""Where a model is evaluated: at the average of schedule-free learning, where there is one."""

from typing import Any

import optax.contrib

import adamx
from adamx.core.instances import instances


def evaluated(state: Any, params: Any) -> Any:
    """The parameters to evaluate at."""
    averages = instances(state, optax.contrib.ScheduleFreeState)
    return adamx.schedule_free_eval_params(state, params) if averages else params
