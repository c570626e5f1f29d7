# SPDX-License-Identifier: Apache-2.0
"""A run that begins to be guarded or observed goes on, and is told how."""

import jax.numpy as jnp
import pytest

import adamx
from adamx import health

WRAPS = [
    health.observe,
    health.skip_nonfinite,
    health.skip_spikes,
    health.skip_outliers,
    health.scale_loss,
    health.rewind,
    health.counted,
]


@pytest.mark.parametrize("wrap", WRAPS, ids=lambda wrap: wrap.__name__)
def test_the_state_of_what_is_inside_is_refused_and_taken_by_replace(wrap):
    inner, params = adamx.adam(0.1), {"a": jnp.ones(3)}
    params, state = adamx.step(inner, params, inner.init(params), params)
    opt = wrap(inner)
    with pytest.raises(
        ValueError, match=r"the state is a tuple, expected \w+State: with the state of what"
    ):
        adamx.step(opt, params, state, params, value=1.0)
    state = opt.init(params)._replace(inner=state)
    _, state = adamx.step(opt, params, state, params, value=1.0)
    assert state.inner[0].count == 2
