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
@pytest.mark.parametrize("point", [0.0, 0.3])
def test_gradients_through_the_update_are_finite_hyperparameters_included(recipe, point):
    names = {"b1": 0.9, "b2": 0.99, "learning_rate": 0.1}
    if "eps" in _hypers(recipe):
        names["eps"] = 1e-3

    def loss(hyper, g):
        opt = recipe(hyper["learning_rate"], weight_decay=0.01)
        params = jnp.array([0.0, 1.0])
        state = opt.init(params)
        for _ in range(6):  # RAdam's first rectified steps are among them
            updates, state = opt.update(g, state, params, **hyper)
            params = optax.apply_updates(params, updates)
        return jnp.sum(params**2)

    hyper = {k: jnp.float32(v) for k, v in names.items()}
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))(hyper, jnp.array([point, 0.5]))
    chex.assert_tree_all_finite(gradient)
    if recipe.name != "lamb" or point:
        assert gradient[0]["learning_rate"] != 0


def _hypers(recipe):
    return () if recipe.name == "lion" else ("eps",)


@pytest.mark.parametrize("name", ["adam", "adabelief", "radam", "adan"])
def test_derivative_by_a_hyperparameter_is_the_difference_quotient(name):
    with jax.enable_x64(True):
        recipe = cases.RECIPES[name]
        grads = jnp.asarray(np.random.default_rng(5).normal(size=(8, 3)))

        def total(b2):
            opt = recipe(0.1)
            state = opt.init(grads[0])
            out = 0.0
            for g in grads:
                u, state = opt.update(g, state, g, b2=b2)
                out += jnp.sum(u**2)
            return out

        total = jax.jit(total)
        h = 1e-6
        quotient = (total(0.97 + h) - total(0.97 - h)) / (2 * h)
        np.testing.assert_allclose(jax.grad(total)(0.97), quotient, rtol=1e-6)
