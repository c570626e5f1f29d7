# SPDX-License-Identifier: Apache-2.0
"""Gradient centralisation, against NumPy and Optax, on whole leaves and on cut ones."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx


def test_it_is_optaxs_where_outputs_come_first():
    g = {"k": jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5)), jnp.float32)}
    ours, theirs = adamx.centralise(output_axis=0), optax.centralize()
    np.testing.assert_allclose(
        ours.update(g, ours.init(g))[0]["k"], theirs.update(g, theirs.init(g))[0]["k"], atol=1e-6
    )


def test_each_output_of_a_flax_kernel_loses_its_mean_over_inputs():
    rng = np.random.default_rng(0)
    g = rng.normal(size=(3, 3, 4, 5))  # height, width, inputs, outputs
    found, _ = adamx.centralise().update(jnp.asarray(g, jnp.float32), optax.EmptyState())
    np.testing.assert_allclose(found, g - g.mean((0, 1, 2), keepdims=True), atol=1e-6)
    np.testing.assert_allclose(np.asarray(found).sum((0, 1, 2)), 0, atol=1e-5)


def test_other_leaves_and_dtypes_pass():
    g = {
        "bias": jnp.ones(3, jnp.bfloat16),
        "scale": jnp.ones(()),
        "kernel": jnp.array([[1, 2], [3, 6]], jnp.bfloat16),
        "complex": jnp.array([[1 + 1j], [3 - 1j]], jnp.complex64),
        "empty": jnp.ones((0, 3)),
        "frozen": None,
    }
    found, _ = adamx.centralise().update(g, optax.EmptyState())
    assert jax.tree.map(lambda x: (x.shape, x.dtype), found) == jax.tree.map(
        lambda x: (x.shape, x.dtype), g
    )
    np.testing.assert_array_equal(found["bias"], g["bias"])
    np.testing.assert_array_equal(found["kernel"].astype(jnp.float32), [[-1, -2], [1, 2]])
    np.testing.assert_allclose(found["complex"], [[-1 + 1j], [1 - 1j]])


def test_what_is_no_axis_is_named():
    with pytest.raises(TypeError, match="`output_axis` must be an integer, got 'last'"):
        adamx.centralise("last")
    g = {"k": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match="k: no axis 2 in an array of shape \\(2, 2\\)"):
        adamx.centralise(2).update(g, optax.EmptyState())
