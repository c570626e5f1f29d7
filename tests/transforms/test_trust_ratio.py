# SPDX-License-Identifier: Apache-2.0
"""LAMB's trust ratio, against NumPy, on hostile numbers and over shards."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx


def test_lamb_is_the_papers_step():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        p, g = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
        opt = adamx.lamb(0.1, weight_decay=0.02)
        updates, _ = opt.update(jnp.asarray(g), opt.init(jnp.asarray(p)), jnp.asarray(p))
        u = g / (np.abs(g) + 1e-6) + 0.02 * p
        want = -0.1 * u * np.linalg.norm(p) / np.linalg.norm(u)
        np.testing.assert_allclose(updates, want, rtol=1e-12)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_no_magnitude_breaks_the_ratio(size):
    link = adamx.scale_by_trust_ratio()
    params, updates = size * jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0])
    got, _ = link.update(updates, link.init(params), params)
    np.testing.assert_allclose(got, [0.0, 5.0 * size], rtol=1e-6)


@pytest.mark.parametrize("params, updates", [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0])])
def test_a_leaf_of_zeros_keeps_its_update(params, updates):
    link = adamx.scale_by_trust_ratio()
    params, updates = jnp.array(params), jnp.array(updates)
    np.testing.assert_array_equal(link.update(updates, link.init(params), params)[0], updates)


def test_its_arguments_are_optaxs():
    params, updates = jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0])
    for args in ((0.0, 0.5, 0.1), (10.0, 1.0, 0.0)):
        ours, theirs = adamx.scale_by_trust_ratio(*args), optax.scale_by_trust_ratio(*args)
        got, _ = ours.update(updates, ours.init(params), params)
        want, _ = theirs.update(updates, theirs.init(params), params)
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_shards_in_pmap_take_the_step_of_the_whole():
    p = jnp.asarray(np.random.default_rng(1).normal(size=(8, 5)), jnp.float32)
    g = jnp.asarray(np.random.default_rng(2).normal(size=(8, 5)), jnp.float32)
    whole = adamx.lamb(0.1, weight_decay=0.01)
    want, _ = whole.update(g, whole.init(p), p)
    sharded = adamx.lamb(0.1, weight_decay=0.01, axis_name="shard")

    @functools.partial(jax.pmap, axis_name="shard")
    def step(g, p):
        return sharded.update(g, sharded.init(p), p)[0]

    np.testing.assert_allclose(step(g, p), want, rtol=1e-5)


def test_a_schedule_is_refused():
    with pytest.raises(TypeError, match="`eps` must be a number or an array"):
        adamx.scale_by_trust_ratio(eps=lambda count: 0.1)
