# SPDX-License-Identifier: Apache-2.0
"""The commands evaluate schedule-free learning at its average, and all else where it trains."""

import jax.numpy as jnp
import numpy as np

import adamx
from adamx.cli.averages import evaluated
from adamx.health import observe


def test_the_average_is_evaluated_where_there_is_one():
    params = {"w": jnp.array([1.0, 2.0])}
    for build, moves in ((adamx.adamw, False), (adamx.schedule_free_adamw, True)):
        opt = observe(build(0.1))
        now, state = params, opt.init(params)
        for _ in range(3):
            now, state = adamx.step(opt, now, state, params)
        assert np.array_equal(evaluated(state, now)["w"], now["w"]) is not moves
