# SPDX-License-Identifier: Apache-2.0
"""Lion on complex gradients, in all of its modes."""

import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from tests import oracles


@pytest.mark.parametrize("mode", ["hard", "smooth", "refined"])
def test_a_complex_gradient_points_where_its_step_goes(mode):
    """An imaginary part of pi / 2 is a pole of the complex tanh, and behind it the sign changes."""
    sizes = np.array([0.0, 1e-3, 0.5, np.pi / 2, 2.0, 3.0, 50.0])
    link, real = (adamx.scale_by_lion(b1=0.0, mode=mode, smooth_beta=2.0) for _ in range(2))
    want, _ = real.update(jnp.asarray(sizes, "float32"), real.init(jnp.zeros(7)))
    for turn in (1, 1j, -1j, (3 + 4j) / 5):
        g = jnp.asarray(turn * sizes, jnp.complex64)
        found, _ = link.update(g, link.init(g))
        np.testing.assert_allclose(found, turn * np.asarray(want), atol=1e-6)
        moments = oracles.start("lion", sizes.shape, np.complex128)
        oracle, _ = oracles.lion(g, moments, 1, b1=0.0, mode=mode, smooth_beta=2.0)
        np.testing.assert_allclose(found, oracle, atol=1e-6)
