# SPDX-License-Identifier: Apache-2.0
"""StableAdamW against the paper's algorithm in float64, on shards, and beside the loops in C++."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

import adamx
from adamx import kernels
from tests import cases

HYPER = {"b1": 0.9, "b2": 0.99, "eps": 1e-6}


def oracle(grads, params, rate=0.1, decay=0.3):
    """Wortsman et al. (2304.13013), algorithm 2, on one leaf: all parameters after each step."""
    v, u, p, out = 0.0, 0.0, params, []
    for t, g in enumerate(grads, start=1):
        b1, b2 = (b * (1 - b ** (t - 1)) / (1 - b**t) for b in (HYPER["b1"], HYPER["b2"]))
        v, u = b1 * v + (1 - b1) * g, b2 * u + (1 - b2) * g**2
        rms = np.sqrt(np.mean(g**2 / np.maximum(u, HYPER["eps"] ** 2)))
        eta = rate / max(1.0, rms)
        p = p - eta * decay * p - eta * v / (np.sqrt(u) + HYPER["eps"])
        out.append(p)
    return np.stack(out)


def gradients(steps=12, shape=(8, 6)):
    """Of all sizes, with a spike in the middle."""
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(steps, *shape)) * 10.0 ** rng.integers(-3, 2, size=shape)
    grads[steps // 2] *= 100
    return grads


def ran(opt, grads, params):
    def step(carry, g):
        p, state = carry
        updates, state = opt.update(g, state, p)
        p = optax.apply_updates(p, updates)
        return (p, state), p

    return jax.lax.scan(step, (params, opt.init(params)), grads)[1]


def test_it_follows_the_papers_algorithm():
    grads, params = gradients(), np.ones((8, 6))
    with jax.enable_x64(True):
        opt = adamx.stable_adamw(0.1, weight_decay=0.3)
        got = ran(opt, jnp.asarray(grads), jnp.asarray(params))
    np.testing.assert_allclose(got, oracle(grads, params), rtol=1e-12, atol=1e-13)
    assert np.all(np.abs(np.diff(got[5:7], axis=0)) < np.abs(np.diff(got[4:6], axis=0)).max())


def test_shards_take_the_steps_of_the_whole_leaf():
    with jax.enable_x64(True):
        grads, params = jnp.asarray(gradients()), jnp.ones((8, 6), jnp.float64)
        want = ran(adamx.stable_adamw(0.1), grads, params)
        mesh = Mesh(np.array(jax.devices()), "x")
        opt = adamx.stable_adamw(0.1, axis_name="x")
        cut, rows = PartitionSpec("x"), PartitionSpec(None, "x")
        split = jax.shard_map(
            lambda g, p: ran(opt, g, p), mesh=mesh, in_specs=(rows, cut), out_specs=rows
        )
        np.testing.assert_allclose(jax.jit(split)(grads, params), want, rtol=1e-12)


def test_its_link_has_adams_own_state():
    params = cases.params()
    link = adamx.scale_by_stable_adam(storage="int8")
    chex.assert_trees_all_equal(link.init(params), adamx.scale_by_adam(storage="int8").init(params))
    quiet = adamx.scale_by_stable_adam(**HYPER)
    g = jnp.full(4, 0.5)  # of constant gradients g / sqrt(v) is 1, and nothing is divided
    direction, state = quiet.update(g, quiet.init(g))
    adams, _ = adamx.scale_by_adam(**HYPER).update(g, quiet.init(g))
    np.testing.assert_allclose(direction, adams, rtol=1e-6)
    assert type(state) is optax.ScaleByAdamState


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_loops_in_cpp_leave_it_to_xla(storage):
    params, grads = cases.params()["dense"], cases.grads(cases.params()["dense"])
    opt, found = adamx.stable_adamw(0.1, storage=storage), []
    for loops in (True, False):
        with kernels.using(loops and bool(kernels.available())):
            found.append(adamx.jit_step(opt, kernels=loops)(
                jax.tree.map(jnp.copy, params), opt.init(params), grads
            ))  # fmt: skip
    chex.assert_trees_all_equal(*found)


def test_a_mask_of_decay_and_another_place_of_it_are_kept():
    params = {"kernel": jnp.ones(3), "bias": jnp.ones(3)}
    zero = jax.tree.map(jnp.zeros_like, params)
    masked = adamx.stable_adamw(0.1, weight_decay=0.5, mask="*/bias|bias")
    updates, _ = masked.update(zero, masked.init(params), params)
    np.testing.assert_allclose(updates["kernel"], 0)
    np.testing.assert_allclose(updates["bias"], -0.05, rtol=1e-6)
    # Independent decay stands behind the rate, and is not divided.
    free = adamx.stable_adamw(1e-9, weight_decay=adamx.decay.independent(0.5))
    state = free.init(params)
    for size in (1.0, 100.0):
        grads = jax.tree.map(lambda p, size=size: size * p, params)
        updates, state = free.update(grads, state, params)
        np.testing.assert_allclose(updates["bias"], -0.5, rtol=1e-6)
