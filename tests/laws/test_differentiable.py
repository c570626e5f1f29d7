# SPDX-License-Identifier: Apache-2.0
"""Contract 7: differentiable through the update, hyperparameters included."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests import cases
from tests.cases import each_rule


@each_rule
def test_gradients_through_the_update_are_finite_hyperparameters_included(recipe):
    names = {"b1": 0.9, "b2": 0.99, "learning_rate": 0.1}
    if "eps" in _hypers(recipe):
        names["eps"] = 1e-3

    def loss(hyper, g, params):
        opt = recipe(hyper["learning_rate"], weight_decay=0.01)

        def body(carry, _):
            params, state = carry
            updates, state = opt.update(g, state, params, **hyper)
            return (optax.apply_updates(params, updates), state), None

        # RAdam's first rectified steps are among these six
        (params, _), _ = jax.lax.scan(body, (params, opt.init(params)), length=6)
        return jnp.sum(params**2)

    hyper = {k: jnp.float32(v) for k, v in names.items()}
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    for point in (0.0, 0.3):
        by = gradient(hyper, jnp.array([point, 0.5]), jnp.array([0.0, 1.0]))
        chex.assert_tree_all_finite(by)
        if recipe.name != "lamb" or point:
            assert by[0]["learning_rate"] != 0


def _hypers(recipe):
    return () if recipe.name == "lion" else ("eps",)


@pytest.mark.parametrize("name", ["adam", "adabelief", "radam", "adan"])
def test_derivative_by_a_hyperparameter_is_the_difference_quotient(name):
    with jax.enable_x64(True):
        recipe = cases.RECIPES[name]
        grads = jnp.asarray(np.random.default_rng(5).normal(size=(8, 3)))

        def total(b2, grads):
            opt = recipe(0.1)

            def body(state, g):
                u, state = opt.update(g, state, g, b2=b2)
                return state, jnp.sum(u**2)

            return jax.lax.scan(body, opt.init(grads[0]), grads)[1].sum()

        # The difference quotient from the same program, whose first result is the total.
        total = jax.jit(jax.value_and_grad(total))
        h = 1e-6
        quotient = (total(0.97 + h, grads)[0] - total(0.97 - h, grads)[0]) / (2 * h)
        np.testing.assert_allclose(total(0.97, grads)[1], quotient, rtol=1e-6)


def _derivatives(storage):
    """Of a loss after six steps, by b1 and by b2."""
    rng = np.random.default_rng(1)
    target = jnp.asarray(rng.normal(size=5_000), jnp.float32)
    noise = jnp.asarray(rng.normal(size=(6, 5_000)), jnp.float32)

    def loss(rates):
        opt = adamx.adam(0.5, storage=storage)
        params = jnp.zeros(5_000)
        state = opt.init(params)
        for shake in noise:
            grads = params - target + 2 * shake
            updates, state = opt.update(grads, state, params, **rates)
            params = optax.apply_updates(params, updates)
        return jnp.mean((params - target) ** 2)

    return jax.jit(jax.grad(loss))({"b1": jnp.float32(0.9), "b2": jnp.float32(0.9)})


def test_derivatives_go_through_bfloat16_moments_as_if_nothing_were_rounded():
    want, got = _derivatives("float32"), _derivatives("bfloat16")
    for rate in want:  # the derivative is taken at moments that are off by 2^-9 each
        np.testing.assert_allclose(got[rate], want[rate], rtol=0.01)


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_integers_say_that_they_pass_no_derivative_on(storage):
    with pytest.warns(UserWarning, match=f"storage '{storage}' keeps integers, .* 'bfloat16'"):
        _derivatives(storage)


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_one_step_from_integers_has_its_derivatives_by_the_learning_rate_without_a_warning(storage):
    params = jnp.array([1.0, -2.0])
    before = adamx.adam(1.0, storage=storage)
    _, state = before.update(params, before.init(params), params)

    def moved(rate):
        updates, _ = adamx.adam(rate, storage=storage).update(params, state, params)
        return updates.sum()

    np.testing.assert_allclose(jax.grad(moved)(0.1), moved(1.0), rtol=1e-6)


@pytest.mark.parametrize("name", ["b1", "b2"])
def test_a_derivative_by_a_rate_is_smooth_at_one_half(name):
    """There an average changes from one weight to the other."""
    g = jnp.array([1.0, 3.0])

    @jax.jit
    @jax.grad
    def slope(rate):
        link = adamx.scale_by_adam()
        _, state = link.update(g, link.init(g))
        return jnp.sum(link.update(g[::-1], state, **{name: rate})[0])

    below, at, above = (slope(jnp.float32(rate)) for rate in (0.4999, 0.5, 0.5001))
    np.testing.assert_allclose(at, (below + above) / 2, rtol=1e-3)
