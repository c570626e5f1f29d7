# SPDX-License-Identifier: Apache-2.0
"""Contract 8: every way to give a hyperparameter takes the same step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx
from tests import cases
from tests.cases import each_rule, every_recipe


@every_recipe
def test_every_way_to_give_a_hyperparameter_takes_the_same_step(recipe):
    params = cases.params()["dense"]["kernel"]
    grads = cases.grads(params)
    wanted = {"learning_rate": 0.03, "b1": 0.8, "b2": 0.95, "weight_decay": 0.01}

    def steps(opt, overrides, params, grads):
        state = opt.init(params)
        for _ in range(2):
            u, state = opt.update(grads, state, params, **overrides)
            params = optax.apply_updates(params, u)
        return params

    plain = steps(recipe(**wanted), {}, params, grads)
    arrays = {k: jnp.float32(v) for k, v in wanted.items()}
    schedules = {
        k: lambda count, v=v: v + 0.0 * count.astype(jnp.float32) for k, v in wanted.items()
    }
    other = recipe(0.5, weight_decay=0.3)
    by = {
        "array": steps(recipe(**arrays), {}, params, grads),
        "schedule": steps(recipe(**schedules), {}, params, grads),
        "override": steps(other, wanted, params, grads),
        "traced": jax.jit(lambda h, *x: steps(recipe(**h), {}, *x))(arrays, params, grads),
        "traced override": jax.jit(lambda h, *x: steps(other, h, *x))(arrays, params, grads),
    }
    for way, got in by.items():
        # 1 - b is exact for Python numbers only; float32's 1 - 0.95 is 2e-7 / 0.05 off.
        np.testing.assert_allclose(got, plain, rtol=2e-5, atol=1e-6, err_msg=way)


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


@each_rule
def test_hyperparameters_vmap(recipe):
    params = cases.params()
    grads = cases.grads(params)

    def after(hyper, params, grads):
        opt = recipe(**hyper)
        updates, _ = opt.update(grads, opt.init(params), params)
        return updates

    hyper = {"learning_rate": jnp.array([0.1, 0.01]), "b1": jnp.array([0.9, 0.5])}
    many = jax.jit(jax.vmap(after, (0, None, None)))(hyper, params, grads)
    for i in range(2):
        one = after({k: v[i] for k, v in hyper.items()}, params, grads)
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
