# SPDX-License-Identifier: Apache-2.0
"""LaProp beyond the laws: where it is Adam, and how far its mean can go."""

import jax
import jax.numpy as jnp
import numpy as np

import adamx


def ran(link, grads):
    def step(state, g):
        u, state = link.update(g, state)
        return state, (u, state)

    return jax.jit(lambda gs: jax.lax.scan(step, link.init(gs[0]), gs)[1])(grads)


def test_without_a_memory_of_gradients_it_is_adam():
    grads = jnp.asarray(np.random.default_rng(0).normal(size=(20, 30)), jnp.float32)
    ours, _ = ran(adamx.scale_by_laprop(b1=0.0), grads)
    adams, _ = ran(adamx.scale_by_adam(b1=0.0, eps=1e-15), grads)
    np.testing.assert_allclose(ours, adams, rtol=1e-6)


def test_a_gradient_is_divided_by_the_root_of_its_own_day():
    """After a gradient of 1, which stays in the mean as 1, one of 100 counts as 1.4, not as 100."""
    steps, _ = ran(adamx.scale_by_laprop(), jnp.array([1.0, 100.0]))
    nu = (0.999 * 0.001 + 0.001 * 1e4) / (1 - 0.999**2)
    want = (0.9 * 0.1 + 0.1 * 100 / np.sqrt(nu)) / (1 - 0.9**2)
    np.testing.assert_allclose(steps, [1.0, want], rtol=1e-6)


def test_no_code_of_the_mean_saturates():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2_000, 256))
    streams = {
        "noisy": noise,
        "spiky": np.where(rng.random(noise.shape) < 1e-3, 1e4, 1) * noise,
        "sparse": np.where(rng.random(noise.shape) < 1e-2, noise, 0),
        "falling": noise * 10.0 ** -np.linspace(0, 6, 2_000)[:, None],
    }
    # A quiet time, then gradients that double: from the fourth on, the mean is above 8.
    doubling = np.concatenate([1e-3 * noise[:1_990, :1], 2.0 ** np.arange(4)[:, None]])
    link = adamx.scale_by_laprop(storage="int8")
    for name, stream in streams.items():
        codes = np.abs(np.asarray(ran(link, jnp.asarray(stream, jnp.float32))[1].mu, np.int32))
        assert codes.max() & 127 < 127, name
    exact = ran(adamx.scale_by_laprop(), jnp.asarray(doubling, jnp.float32))[1].mu[-4:, 0]
    assert np.all(exact[:3] < 7.97)
    assert exact[3] > 7.97
