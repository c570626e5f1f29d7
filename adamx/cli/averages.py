# SPDX-License-Identifier: Apache-2.0
"""Where a model is evaluated: at the average of schedule-free learning, where there is one."""

from typing import Any

import jax
import optax.contrib

import adamx


def evaluated(state: Any, params: Any) -> Any:
    """The parameters to evaluate at."""
    held = jax.tree.leaves(state, is_leaf=_is_average)
    if not any(map(_is_average, held)):
        return params
    return adamx.schedule_free_eval_params(state, params)


def _is_average(x: Any) -> bool:
    return isinstance(x, optax.contrib.ScheduleFreeState)
