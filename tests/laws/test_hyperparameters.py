# SPDX-License-Identifier: Apache-2.0
"""Contract 8: every way to give a hyperparameter takes the same step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx
from tests import cases
from tests.cases import every_recipe


@every_recipe
def test_every_way_to_give_a_hyperparameter_takes_the_same_step(recipe):
    params = cases.params()
    grads = cases.grads(params)
    wanted = {"learning_rate": 0.03, "b1": 0.8, "b2": 0.95, "weight_decay": 0.01}

    def steps(opt, **overrides):
        state, p = opt.init(params), params
        for _ in range(2):
            u, state = opt.update(grads, state, p, **overrides)
            p = optax.apply_updates(p, u)
        return p

    plain = steps(recipe(**wanted))
    arrays = {k: jnp.float32(v) for k, v in wanted.items()}
    schedules = {
        k: lambda count, v=v: v + 0.0 * count.astype(jnp.float32) for k, v in wanted.items()
    }
    by = {
        "array": steps(recipe(**arrays)),
        "schedule": steps(recipe(**schedules)),
        "override": steps(recipe(0.5, weight_decay=0.3), **wanted),
        "traced": jax.jit(lambda h: steps(recipe(**h)))(arrays),
        "traced override": jax.jit(lambda h: steps(recipe(0.5, weight_decay=0.3), **h))(arrays),
    }
    for way, got in by.items():
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(plain), strict=True):
            # 1 - b is exact for Python numbers only; float32's 1 - 0.95 is 2e-7 / 0.05 off.
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6, err_msg=way)


@every_recipe
def test_changing_a_value_never_recompiles(recipe):
    opt = recipe(0.5, weight_decay=0.1)
    params = cases.params()
    traces = 0

    @jax.jit
    def step(grads, state, params, rate, decay):
        nonlocal traces
        traces += 1
        return opt.update(grads, state, params, learning_rate=rate, weight_decay=decay)

    for rate in (0.1, 0.2, 0.3):
        step(cases.grads(params), opt.init(params), params, rate, 2 * rate)
    assert traces == 1


@every_recipe
def test_hyperparameters_vmap(recipe):
    params = cases.params()
    grads = cases.grads(params)

    def after(rate, b1):
        opt = recipe(rate, b1=b1)
        updates, _ = opt.update(grads, opt.init(params), params)
        return updates

    rates, b1s = jnp.array([0.1, 0.01]), jnp.array([0.9, 0.5])
    many = jax.vmap(after)(rates, b1s)
    for i in range(2):
        one = after(rates[i], b1s[i])
        chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], many), one, rtol=1e-5)


def test_a_schedule_counts_from_zero_as_in_optax():
    seen = optax.linear_schedule(0.0, 1.0, 4)
    opt, theirs = adamx.adam(seen), optax.adam(seen)
    params = jnp.ones(2)
    s, z = opt.init(params), theirs.init(params)
    for _ in range(5):
        with jax.numpy_dtype_promotion("standard"):
            (u, s), (v, z) = opt.update(params, s), theirs.update(params, z)
        np.testing.assert_allclose(u, v, rtol=2e-5)  # Optax's own 1 - b2^t is 1e-5 off
