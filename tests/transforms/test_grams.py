# SPDX-License-Identifier: Apache-2.0
"""Grams, against NumPy; what it shares with `cautious` is in `test_cautious.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx


def test_steps_have_adams_sizes_and_the_gradients_signs_before_decay():
    rows = np.random.default_rng(0).normal(size=(6, 8, 5))
    rows[3, 0] = 0
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        params = jnp.ones((8, 5), jnp.float64)
        ours = adamx.grams(adamx.adamw(1.0, weight_decay=0.5))
        other = adamx.grams(optax.adam(0.1), updates="downhill")
        adam = adamx.scale_by_adam()
        held = [opt.init(params) for opt in (ours, other, adam)]
        for g in map(jnp.asarray, rows):
            found, held[0] = ours.update(g, held[0], params)
            theirs, held[1] = other.update(g, held[1], params)
            plain, held[2] = adam.update(g, held[2], params)
            want = np.abs(plain) * np.sign(g)
            np.testing.assert_allclose(found, -want - 0.5, rtol=1e-12)
            np.testing.assert_allclose(theirs, -0.1 * want, rtol=1e-6)
