# SPDX-License-Identifier: Apache-2.0
"""Contract 7: differentiable through the update, hyperparameters included."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import cases
from tests.cases import every_recipe


@every_recipe
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
