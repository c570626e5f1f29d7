# SPDX-License-Identifier: Apache-2.0
"""CAME, against the paper in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.optimizers.stepped import after

SHAPES = {"kernel": (4, 6), "conv": (2, 3, 4), "bias": (5,)}


def rms(x):
    return np.sqrt(np.mean(np.square(x)))


def outer(x, r, c, b):
    """The means r and c of rows and columns after one more x, and their rank-one product."""
    r = b * r + (1 - b) * x.sum(-1, keepdims=True)
    c = b * c + (1 - b) * x.sum(-2, keepdims=True)
    return r, c, r * c / r.sum(-2, keepdims=True)


def paper(x, grads, rate, b1=0.9, b2=0.999, b3=0.9999, eps1=1e-30, eps2=1e-16, d=1.0, decay=0.0):
    """Algorithm 2 of arXiv 2307.02047; vectors as in the authors' program, without confidence."""
    r = c = v = m = big_r = big_c = 0.0
    for g in grads:
        if x.ndim > 1:
            r, c, v = outer(g**2 + eps1, r, c, b2)
        else:
            v = b2 * v + (1 - b2) * (g**2 + eps1)
        u = g / np.sqrt(v)
        u = u / max(1.0, rms(u) / d)
        m = b1 * m + (1 - b1) * u
        step = m
        if x.ndim > 1:
            big_r, big_c, s = outer((u - m) ** 2 + eps2, big_r, big_c, b3)
            step = m / np.sqrt(s)
        x = x - rate * step - rate * decay * x
    return x


def draws(steps, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [
        {k: np.asarray(rng.normal(size=s), dtype) for k, s in SHAPES.items()}
        for _ in range(steps + 1)
    ]


@pytest.mark.parametrize(
    "h", [{}, {"b1": 0.5, "b2": 0.9, "b3": 0.8, "decay": 0.1}], ids=["defaults", "fast"]
)
def test_steps_are_the_papers(h):
    with jax.enable_x64(True):
        params, *grads = draws(5)
        kwargs = {("weight_decay" if k == "decay" else k): v for k, v in h.items()}
        got, _ = after(adamx.came(0.01, **kwargs), jax.tree.map(jnp.asarray, params), grads)
        for name, x in got.items():
            want = paper(params[name], [g[name] for g in grads], 0.01, **h)
            np.testing.assert_allclose(x, want, rtol=1e-12, atol=1e-14, err_msg=name)


def test_a_mean_in_eight_bits_makes_little_more_than_a_byte_per_parameter():
    params = {"kernel": jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)}
    counted = adamx.nbytes(adamx.came(1e-3, storage="int8"), params)
    assert counted.per_parameter.moments < 1.04


def test_a_mean_in_eight_bits_goes_where_float32_goes():
    params, *grads = draws(50, np.float32)
    params = jax.tree.map(jnp.asarray, params)
    want, _ = after(adamx.came(1e-3), params, grads)
    got, _ = after(adamx.came(1e-3, storage="int8"), params, grads)
    far, off = (optax.tree.norm(optax.tree.sub(want, x)) for x in (params, got))
    assert off < 0.2 * far  # a code is off by an eighth at most, without bias
