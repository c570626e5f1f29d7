# SPDX-License-Identifier: Apache-2.0
"""Norms against NumPy in float64, at magnitudes whose squares leave float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adamx.core import norms

SIZES = [0.0, 1e-37, 1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e18, 1e19, 1e25, 1e38]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_a_norm_is_numpys_at_any_magnitude(size, axis, keepdims):
    x = np.float32(np.random.default_rng(0).uniform(-1, 1, size=(2, 3, 4)) * size)
    want = np.sqrt(np.sum(np.float64(x) ** 2, axis=axis, keepdims=keepdims))
    got = norms.safe_norm(jnp.asarray(x), axis, keepdims)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=5e-7, atol=1e-38)


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1.0, 1e200, 1e307])
def test_a_float64_norm_stays_float64(size):
    with jax.enable_x64(True):
        got = norms.leaf_norm(jnp.array([3.0, -4.0]) * size)
        assert got.dtype == jnp.float64
        # Denormals are flushed to zero on some processors.
        np.testing.assert_allclose(got, 5 * size, rtol=1e-15, atol=1e-307)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64", "int32"])
def test_every_other_norm_is_a_strong_float32(dtype):
    x = jnp.full(4, 1000).astype(dtype)
    for got in (norms.leaf_norm(x), norms.rms(x) * 2, norms.global_norm({"a": x})):
        assert got.dtype == jnp.float32
        assert not got.aval.weak_type
        np.testing.assert_allclose(got, 2000.0, rtol=1e-6)


def test_both_parts_of_a_complex_number_count():
    x = jnp.array([3 + 4j, 12j]) * 1e25
    np.testing.assert_allclose(norms.leaf_norm(x), 13e25, rtol=1e-6)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=5, max_size=5))
def test_a_norm_of_any_five_floats_is_numpys(values):
    x = np.float32(values)
    x = np.where(np.abs(x) < np.finfo(np.float32).tiny, 0, x)  # flushed on some processors
    want = np.linalg.norm(np.float64(x))
    got = np.float64(norms.leaf_norm(jnp.asarray(x)))
    if want < np.finfo(np.float32).max:
        np.testing.assert_allclose(got, want, rtol=1e-6)
    else:
        assert got == np.inf or got > 3.4e38


def test_a_norm_out_of_range_is_infinite_and_nan_stays_nan():
    assert norms.leaf_norm(jnp.full(4, 3e38)) == np.inf
    assert norms.leaf_norm(jnp.array([1.0, -np.inf])) == np.inf
    assert np.isnan(norms.leaf_norm(jnp.array([1.0, np.nan])))
    assert np.isnan(norms.global_norm([jnp.array([1e30]), jnp.array([np.nan, np.inf])]))


@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e25])
def test_the_gradient_is_the_direction_and_zero_at_zero(size):
    x = jnp.array([3.0, 0.0, -4.0]) * size
    want = np.array([0.6, 0.0, -0.8]) * (size > 0)
    for function in (norms.leaf_norm, lambda x: norms.global_norm([x[:1], x[1:]])):
        np.testing.assert_allclose(jax.grad(function)(x), want, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(jax.jacfwd(function)(x), want, rtol=1e-6, atol=1e-7)
    rows = jnp.stack([x, 0 * x, jnp.array([3.0, 0.0, -4.0])])
    got = jax.jit(jax.vmap(jax.grad(norms.leaf_norm)))(rows)
    np.testing.assert_allclose(got, [want, 0 * want, [0.6, 0, -0.8]], rtol=1e-6, atol=1e-7)
    assert np.isfinite(jax.hessian(norms.leaf_norm)(x)).all()


@pytest.mark.parametrize("size", [1e-30, 1e20])
def test_an_array_that_the_compiler_knows_has_the_same_norm(size):
    x = np.float32([3 * size, 4 * size])
    got = jax.jit(lambda y: (norms.leaf_norm(x), norms.global_norm([jnp.asarray(x), y])))(x)
    np.testing.assert_allclose(got, [5 * size, 50**0.5 * size], rtol=1e-6)


def test_a_norm_of_nothing_is_zero():
    for tree in (None, {}, [], jnp.zeros((0, 3)), [None, jnp.zeros(0)]):
        assert norms.global_norm(tree) == 0
    assert norms.rms(jnp.zeros((0, 3))) == norms.leaf_norm(jnp.zeros((2, 0))) == 0


def test_many_leaves_lose_no_digits():
    leaves = [jnp.full(7, 0.1 + i / 300) for i in range(300)]
    want = np.linalg.norm(np.concatenate([np.float64(x) for x in leaves]))
    np.testing.assert_allclose(norms.global_norm(leaves), want, rtol=3e-7)
