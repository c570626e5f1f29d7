# SPDX-License-Identifier: Apache-2.0
"""Adafactor, against the paper in NumPy float64 and against Optax, and what Optax gets wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.optimizers.stepped import after

SHAPES = {"kernel": (4, 6), "square": (3, 3), "three": (2, 5, 3), "bias": (5,), "gain": ()}
LEAST = {"min_dim_size_to_factor": 2}


def draws(steps, scale=1.0, dtype=np.float64):
    """Parameters, and gradients of a few steps."""
    rng = np.random.default_rng(0)
    return [
        {k: np.asarray(scale * rng.normal(size=s), dtype) for k, s in SHAPES.items()}
        for _ in range(steps + 1)
    ]


def rms(x):
    return np.sqrt(np.mean(np.square(x)))


def paper(params, grads, rate, momentum=None, decay=0.0, eps1=1e-30, eps2=1e-3, d=1.0):
    """Algorithms 4 to 6 of arXiv 1804.04235, one leaf: row and column sums of the two longest
    dimensions, the relative step `rate`, a mean of steps, and decay times `rate`."""
    x, axes = params.copy(), sorted(range(params.ndim), key=lambda i: params.shape[i])[-2:]
    factored = params.ndim > 1 and min(params.shape[i] for i in axes) >= 2
    r = c = v = m = 0.0
    for t, g in enumerate(grads, start=1):
        b2, square = 1 - t**-0.8, g**2 + eps1
        if factored:
            shorter, longer = axes
            r = b2 * r + (1 - b2) * square.sum(longer, keepdims=True)
            c = b2 * c + (1 - b2) * square.sum(shorter, keepdims=True)
            v_hat = r * c / r.sum(shorter, keepdims=True)
        else:
            v = b2 * v + (1 - b2) * square
            v_hat = v
        u = g / np.sqrt(v_hat)
        step = rate * max(eps2, rms(x)) * u / max(1.0, rms(u) / d)
        if momentum is not None:
            m = momentum * m + (1 - momentum) * step
            step = m
        x = x - step - rate * decay * x
    return x


@pytest.mark.parametrize("kwargs", [{}, {"momentum": 0.9, "weight_decay": 0.1}], ids=["", "all"])
def test_steps_are_the_papers(kwargs):
    with jax.enable_x64(True):
        params, *grads = draws(5)
        opt = adamx.adafactor(0.1, **LEAST, dtype_momentum=jnp.float64, **kwargs)
        got, _ = after(opt, jax.tree.map(jnp.asarray, params), grads)
        h = {"momentum": kwargs.get("momentum"), "decay": kwargs.get("weight_decay", 0.0)}
        for name, x in got.items():
            want = paper(params[name], [g[name] for g in grads], 0.1, **h)
            np.testing.assert_allclose(x, want, rtol=1e-12, atol=1e-14, err_msg=name)


CALLS = {
    "defaults": {"learning_rate": 0.1},
    "no rate": {},
    "all": {
        "learning_rate": optax.linear_schedule(0.1, 0.05, 4),
        "momentum": 0.9,
        "weight_decay_rate": 0.01,
        "weight_decay_mask": {k: len(s) > 1 for k, s in SHAPES.items()},
    },
    "plain": {
        "learning_rate": 0.1,
        "multiply_by_parameter_scale": False,
        "clipping_threshold": None,
        "decay_rate": 0.5,
        "eps": 1e-6,
    },
    "not factored": {"learning_rate": 0.1, "factored": False},
}


@pytest.mark.parametrize("kwargs", CALLS.values(), ids=CALLS)
def test_trajectory_and_state_are_optaxs(kwargs):
    params, *grads = draws(4, dtype=np.float32)
    params = jax.tree.map(jnp.asarray, params)
    with jax.numpy_dtype_promotion("standard"):
        want, theirs = after(optax.adafactor(**LEAST, **kwargs), params, grads)
    got, ours = after(adamx.adafactor(**LEAST, **kwargs), params, grads)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves((got, ours)), jax.tree.leaves((want, theirs)), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_zero_float16_gradients_move_nothing_where_optax_makes_nan():
    params = {"kernel": jnp.ones((4, 6), jnp.float16), "bias": jnp.ones(3, jnp.float16)}
    zero = jax.tree.map(jnp.zeros_like, params)
    ours = adamx.adafactor(0.1, **LEAST)
    updates, _ = ours.update(zero, ours.init(params), params)
    assert all(not np.any(u) for u in jax.tree.leaves(updates))


def test_a_row_without_gradients_beside_a_huge_one_is_finite():
    """Optax divides a row's mean by the mean of all: the quotient underflows, 0 * inf is NaN."""
    g = jnp.zeros((4, 6)).at[0].set(1e15)
    link = adamx.scale_by_factored_rms(min_dim_size_to_factor=2)
    direction, _ = link.update(g, link.init(g))
    np.testing.assert_allclose(direction[0], 1.0, rtol=1e-5)
    np.testing.assert_array_equal(direction[1:], 0.0)


def test_a_step_offset_beyond_the_count_starts_afresh_where_optax_makes_nan():
    params = {"kernel": jnp.ones((4, 6))}
    opt, plain = adamx.adafactor(0.1, decay_offset=1000, **LEAST), adamx.adafactor(0.1, **LEAST)
    got, want = (o.update(params, o.init(params), params)[0] for o in (opt, plain))
    np.testing.assert_array_equal(got["kernel"], want["kernel"])


def test_momentum_in_eight_bits_goes_where_float32_goes():
    params, *grads = draws(50, dtype=np.float32)
    params = jax.tree.map(jnp.asarray, params)
    settings = {"momentum": 0.9, **LEAST}
    want, _ = after(adamx.adafactor(1e-2, **settings), params, grads)
    got, state = after(adamx.adafactor(1e-2, storage="int8", **settings), params, grads)
    assert state[4].ema["kernel"].dtype == jnp.int8
    far, off = (optax.tree.norm(optax.tree.sub(want, x)) for x in (params, got))
    assert off < 0.2 * far  # a code is off by an eighth at most, without bias


def test_decay_follows_the_rate_and_the_mask():
    params = {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(3)}
    zero = jax.tree.map(jnp.zeros_like, params)
    rate = optax.linear_schedule(0.0, 0.4, 2)
    opt = adamx.adafactor(rate, weight_decay=0.5, weight_decay_mask="*/kernel", **LEAST)
    got, _ = after(opt, params, [zero] * 3)
    np.testing.assert_allclose(got["kernel"], (1 - 0.1) * (1 - 0.2), rtol=1e-6)
    np.testing.assert_array_equal(got["bias"], 1.0)


@pytest.mark.parametrize(
    "kwargs, words",
    [
        ({"weight_decay": 0.1}, "`weight_decay` is multiplied by the learning rate"),
        ({"learning_rate": 0.1, "storage": "int8"}, "`storage` is of the momentum"),
        (
            {"learning_rate": 0.1, "weight_decay": 0.1, "weight_decay_rate": 0.1},
            "either `weight_decay` or `weight_decay_rate`",
        ),
        ({"min_dim_size_to_factor": 0}, "`min_dim_size_to_factor` must be a whole number"),
        ({"min_dim_size_to_factor": jnp.ones([])}, "whole number of at least 1, got Array"),
    ],
)
def test_errors_name_the_argument(kwargs, words):
    with pytest.raises(ValueError, match=words):
        adamx.adafactor(**kwargs)
