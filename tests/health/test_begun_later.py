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


@pytest.mark.parametrize("loss", [1.0, float("nan")])
def test_a_run_that_goes_back_soon_goes_back_to_the_state_it_was_begun_with(loss):
    """Not to a new one, whose moments are zero and whose schedule begins again."""
    inner, params = adamx.adam(0.1), {"a": jnp.ones(3)}
    params, state = adamx.step(inner, params, inner.init(params), params)
    opt = health.rewind(inner, patience=2)
    begun = opt.init(params)._replace(inner=state)
    now, after = params, begun
    for value in (loss, float("nan"), float("nan")):
        if not after.total:
            now, after = adamx.step(opt, now, after, params, value=value)
    assert after.total == 1
    assert after.inner[0].count == 1
    assert jnp.array_equal(after.inner[0].mu["a"], state[0].mu["a"])
    assert jnp.array_equal(now["a"], params["a"])
