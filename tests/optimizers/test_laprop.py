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
    link = adamx.scale_by_laprop(storage="int8")
    for name, stream in streams.items():
        codes = np.abs(np.asarray(ran(link, jnp.asarray(stream, jnp.float32))[1].mu, np.int32))
        assert codes.max() & 127 < 127, name


def test_after_a_quiet_time_a_jump_passes_the_last_code():
    """As `rule` says: from the fifth step on, to 9.3, and the steps are at most 16% shorter."""
    quiet = 1e-4 * (-1.0) ** np.arange(10_000)
    rows = jnp.asarray(np.concatenate([quiet, np.ones(40)]), jnp.float32)
    jump = rows[:, None] * jnp.ones(256)
    (exact, held), (coded, _) = (
        ran(adamx.scale_by_laprop(storage=s), jump) for s in ("float32", "int8")
    )
    mean = np.asarray(held.mu[-40:, 0])
    assert np.flatnonzero(mean > 7.97)[0] == 4
    assert 9.25 < mean.max() < 9.35
    lost = 1 - np.asarray(coded[-40:].mean(1) / exact[-40:, 0])
    assert 0.14 < lost.max() < 0.165
