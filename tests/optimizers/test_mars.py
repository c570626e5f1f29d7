# SPDX-License-Identifier: Apache-2.0
"""MARS-AdamW against the paper's algorithm in float64, and its correction as a link by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

import adamx

B1, B2, EPS = 0.95, 0.99, 1e-8


def corrected(grads, gamma=0.025, b1=B1, most=1.0):
    """Yuan et al. (2411.10438): c_t with the last gradient for that at the last point, clipped."""
    before, out = grads[0], []
    for g in grads:
        c = g + gamma * b1 / (1 - b1) * (g - before)
        out.append(c / max(1.0, np.linalg.norm(c) / most))
        before = g
    return np.stack(out)


def oracle(grads, params, rate=0.1, decay=0.2, **kwargs):
    """AdamW of them on one leaf: all parameters after each step."""
    m, v, p, out = 0.0, 0.0, params, []
    for t, c in enumerate(corrected(grads, **kwargs), start=1):
        m, v = B1 * m + (1 - B1) * c, B2 * v + (1 - B2) * c**2
        p = p - rate * (m / (1 - B1**t) / (np.sqrt(v / (1 - B2**t)) + EPS) + decay * p)
        out.append(p)
    return np.stack(out)


def ran(opt, grads, params):
    def step(carry, g):
        p, state = carry
        updates, state = opt.update(g, state, p)
        p = optax.apply_updates(p, updates)
        return (p, state), p

    return jax.lax.scan(step, (params, opt.init(params)), grads)[1]


def gradients(steps=10, shape=(8, 6)):
    """Some below the norm of 1, the first of them, and some above."""
    sizes = 10.0 ** np.linspace(-3, 1, steps)[:, None, None]
    return np.random.default_rng(0).normal(size=(steps, *shape)) * sizes


@pytest.mark.parametrize("gamma", [0.025, 0.0, 0.4])
def test_it_follows_the_papers_algorithm(gamma):
    grads, params = gradients(), np.ones((8, 6))
    with jax.enable_x64(True):
        opt = adamx.mars(0.1, weight_decay=0.2, gamma=gamma)
        got = ran(opt, jnp.asarray(grads), jnp.asarray(params))
    np.testing.assert_allclose(got, oracle(grads, params, gamma=gamma), rtol=1e-11, atol=1e-12)


def test_without_correction_and_clip_it_is_adamw():
    grads, params = jnp.asarray(gradients(), jnp.float32), jnp.ones((8, 6))
    got = ran(adamx.mars(0.1, gamma=0.0, max_norm=None), grads, params)
    want = ran(adamx.adamw(0.1, b1=B1, b2=B2, weight_decay=0.0), grads, params)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_a_shard_is_clipped_by_the_norm_of_the_whole_leaf():
    with jax.enable_x64(True):
        grads, params = jnp.asarray(gradients()), jnp.ones((8, 6), jnp.float64)
        mesh = Mesh(np.array(jax.devices()), "x")
        opt = adamx.mars(0.1, weight_decay=0.2, axis_name="x")
        cut, rows = PartitionSpec("x"), PartitionSpec(None, "x")
        split = jax.shard_map(
            lambda g, p: ran(opt, g, p), mesh=mesh, in_specs=(rows, cut), out_specs=rows
        )
        got = jax.jit(split)(grads, params)
    np.testing.assert_allclose(got, oracle(np.asarray(grads), np.ones((8, 6))), rtol=1e-11)


def test_the_correction_is_a_link_for_any_rule_and_its_rates_may_be_given_in_any_way():
    grads = jnp.asarray(gradients(), jnp.float32)
    want = corrected(np.asarray(grads, np.float64), gamma=0.1, b1=0.9, most=2.0)
    by = {
        "number": (adamx.reduce_variance(0.1, 0.9, 2.0), {}),
        "array": (adamx.reduce_variance(*map(jnp.float32, (0.1, 0.9, 2.0))), {}),
        "schedule": (adamx.reduce_variance(lambda t: 0.1 + 0 * t.astype("float32"), 0.9, 2.0), {}),
        "override": (adamx.reduce_variance(), {"gamma": 0.1, "b1": 0.9, "max_norm": 2.0}),
    }
    for way, (link, given) in by.items():
        state, found = link.init(grads[0]), []
        for g in grads:
            c, state = link.update(g, state, **given)
            found.append(c)
        # float32's 1 - 0.9 is 1e-6 off, where it is not a Python number
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5, err_msg=way)


def test_the_last_gradient_is_kept_in_the_dtype_that_was_asked_for():
    params = {"w": jnp.ones(3, jnp.bfloat16), "c": jnp.ones(2, jnp.complex64), "frozen": None}
    kept = adamx.reduce_variance().init(params).previous
    assert (kept["w"].dtype, kept["c"].dtype, kept["frozen"]) == ("float32", "complex64", None)
    half = adamx.mars(0.1, previous_dtype="bfloat16")
    state = half.init(params)
    assert state[0].previous["w"].dtype == jnp.bfloat16
    _, new = half.update(params, state, params)
    assert jax.tree.map(lambda x: x.dtype, new) == jax.tree.map(lambda x: x.dtype, state)
    with pytest.raises(
        ValueError, match="`previous_dtype` must be a floating dtype of at least 16"
    ):
        adamx.reduce_variance(previous_dtype="int8")


def test_what_does_not_fit_is_named():
    link = adamx.reduce_variance()
    state = link.init({"w": jnp.ones(3)})
    with pytest.raises(ValueError, match="w: gradient has shape \\(4,\\), state has \\(3,\\)"):
        link.update({"w": jnp.ones(4)}, state)
    with pytest.raises(ValueError, match="reduce_variance: w: the state's `previous` has this"):
        link.update({"v": jnp.ones(3)}, state)
    with pytest.raises(ValueError, match="`gamma` must be in \\[0, inf\\), got -1"):
        adamx.mars(0.1, gamma=-1.0)
    with pytest.raises(TypeError, match="w: gradient is complex64, the state's `previous` is real"):
        link.update({"w": jnp.ones(3, jnp.complex64)}, state)
    params = {"w": jnp.ones(3)}
    landed = adamx.adamw(0.1, landing="kahan").init(params)  # of four parts, too
    with pytest.raises(ValueError, match="mars: the state is a ScaleByAdamState, expected Varia"):
        adamx.mars(0.1).update(params, landed, params)


@pytest.mark.parametrize("most", [1.0, None])
@pytest.mark.parametrize("kept", [None, "bfloat16", "float16"])
def test_one_wild_gradient_does_not_stop_a_coordinate(kept, most):
    """Nothing that is finite is stored as inf, or makes inf of a change."""
    opt = adamx.mars(0.1, gamma=1.0, max_norm=most, previous_dtype=kept)
    grads = jnp.ones((4, 3)).at[1].set(jnp.array([3.4e38, -3.4e38, 1.0]))
    assert np.isfinite(ran(opt, grads, jnp.ones(3))).all()
    with jax.enable_x64(True):
        wide = jnp.ones((4, 3), jnp.float64).at[1, 0].set(1e300)
        assert np.isfinite(ran(opt, wide, jnp.ones(3, jnp.float64))).all()
