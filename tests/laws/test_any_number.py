# SPDX-License-Identifier: Apache-2.0
"""Contract 6: no number breaks a step."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adamx
from tests import cases, oracles
from tests.cases import every_pair, every_recipe, pairs

HOSTILE = {
    "zero": 0.0,
    "denormal": 1e-40,
    "1e-30": 1e-30,
    "1e-12": 1e-12,
    "1e4": 1e4,
    "1e20": 1e20,
    "float32's largest": 3.4e38,
}


@pairs("float16", "bfloat16", "float32")
def test_no_magnitude_gives_a_step_that_is_not_finite(recipe, storage, dtype):
    opt = recipe(1.0, storage=storage)
    most = float(jnp.finfo(dtype).max)
    params = jnp.ones(len(HOSTILE), dtype)
    g = jnp.asarray(np.clip(list(HOSTILE.values()), 0, most), dtype)
    state = opt.init(params)
    update = jax.jit(opt.update)
    for sign in (1, 1, -1, 1):
        updates, state = update(sign * g, state, params)
        chex.assert_tree_all_finite((updates, state))


@every_recipe
def test_a_zero_gradient_moves_nothing(recipe):
    opt = recipe(1.0) if recipe.name == "yogi" else recipe(1.0, weight_decay=0.0)
    params = cases.params("float16")
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = opt.update(zero, opt.init(params), params)
    if recipe.name == "yogi":  # its mean starts at 1e-6, as the paper's accumulators do
        return chex.assert_trees_all_close(updates, zero, atol=2e-3)
    return chex.assert_trees_all_equal(updates, zero)


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "amsgrad", "adamax", "lamb", "adan"])
@pytest.mark.parametrize("size", [1e-30, 1e-4, 1.0, 1e15, 1e20, 3e38])
def test_the_first_step_is_right_at_any_magnitude(name, size):
    """m̂ / (√v̂ + ε) is 1 after one gradient, however large, and g / ε where ε dominates."""
    recipe = cases.RECIPES[name]
    link = recipe.scale_by()
    direction, _ = link.update(jnp.float32(size), link.init(jnp.float32(0)))
    oracle, _ = oracles.TABLE[recipe.link]
    kwargs = recipe.link_kwargs
    want, _ = oracle(min(size, 2.0**62), oracles.start(recipe.link, ()), 1, **kwargs)
    np.testing.assert_allclose(direction, want, rtol=2e-6)


# AMSGrad's maximum may not fall and Yogi's square falls by g^2 a step: by their papers' own rules
# neither forgets. That they stay finite is the law before.
UNFORGETTING = ("amsgrad", "yogi")


@every_pair
def test_one_finite_huge_gradient_never_disables_a_coordinate_for_ever(recipe, storage):
    if recipe.name in UNFORGETTING:
        pytest.skip("by its paper's own rule it never forgets")
    # Fast rates, so that "for ever" can be told from "for a while" in 2,000 steps.
    fast = {"b1": 0.5, "b2": 0.9} | ({"b3": 0.9} if recipe.name == "adan" else {})
    opt = recipe(1e-3, **fast, storage=storage, weight_decay=0.0)
    spikes = jnp.array([1e20, -3e38])

    def body(carry, g):
        p, s = carry
        u, s = opt.update(g, s, p)
        return (p + u, s), u

    g = jnp.ones((2_000, len(spikes))).at[3].set(spikes)
    p = jnp.ones(len(spikes))
    _, steps = jax.lax.scan(body, (p, opt.init(p)), g)
    assert np.isfinite(steps).all()
    assert np.all(np.abs(steps[-1]) > 1e-5), "a coordinate still stands"


@every_pair
def test_a_gradient_that_is_not_finite_stays_visible(recipe, storage):
    opt = recipe(0.1, storage=storage, weight_decay=0.0)
    params = jnp.ones(3)
    for bad in (np.nan, np.inf, -np.inf):
        updates, state = opt.update(jnp.array([1.0, bad, 1.0]), opt.init(params), params)
        seen = [
            x for x in (updates, *jax.tree.leaves(state)) if jnp.issubdtype(x.dtype, jnp.inexact)
        ]
        assert any(not bool(jnp.isfinite(x).all()) for x in seen), bad


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=4, max_size=4))
def test_adam_is_finite_on_any_float32_gradients(values):
    link = _shared_link()
    state = link.init(jnp.float32(0))
    for value in values:
        if np.isinf(value):
            return
        direction, state = link.update(jnp.float32(value), state)
        assert np.isfinite(direction)
        assert abs(float(direction)) <= 1.1e9  # m-hat / eps, where squares underflow


@functools.cache
def _shared_link():
    return adamx.scale_by_adam()


@pytest.mark.parametrize("moments", ["bfloat16", "float32", "int8"])
@pytest.mark.parametrize("spike", [1e21, -1e100, 1e300])
def test_a_float64_gradient_that_narrow_moments_cannot_hold_is_forgotten(moments, spike):
    with jax.enable_x64(True):
        dtypes = (
            {"storage": "int8"}
            if moments == "int8"
            else dict.fromkeys(("mu_dtype", "nu_dtype"), moments)
        )
        opt = adamx.adam(1e-3, b1=0.5, b2=0.9, **dtypes)
        params = jnp.ones(3, jnp.float64)
        grads = jnp.ones((2_000, 3)).at[3].set(spike)
        state, updates = jax.lax.scan(
            lambda s, g: opt.update(g, s, params)[::-1], opt.init(params), grads
        )
        chex.assert_tree_all_finite((state, updates))
        np.testing.assert_allclose(updates[-1], -1e-3, rtol=0.2)
