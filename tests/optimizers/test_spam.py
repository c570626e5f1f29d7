# SPDX-License-Identifier: Apache-2.0
"""SPAM beyond the laws: resets, the warm-up after them, and which gradients it clips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx


def ran(link, grads):
    def step(state, g):
        u, state = link.update(g, state)
        return state, (u, state)

    return jax.jit(lambda gs: jax.lax.scan(step, link.init(gs[0]), gs)[1])(grads)


def test_after_a_reset_a_run_starts_anew():
    grads = jnp.asarray(np.random.default_rng(0).normal(size=(14, 9)), jnp.float32)
    link = adamx.scale_by_spam(reset_every=7, warmup_steps=3, clip_after=2)
    steps, states = ran(link, grads)
    again, fresh = ran(link, grads[7:])
    np.testing.assert_array_equal(steps[7:], again)
    np.testing.assert_array_equal(states.mu[7:], fresh.mu)
    np.testing.assert_array_equal(states.nu[7:], fresh.nu)


def test_of_a_fraction_of_a_step_between_resets_the_whole_part_counts():
    grads = jnp.asarray(np.random.default_rng(0).normal(size=(10, 9)), jnp.float32)
    want, _ = ran(adamx.scale_by_spam(reset_every=3), grads)
    for reset_every in (3.4, jnp.float32(3.9)):
        got, _ = ran(adamx.scale_by_spam(reset_every=reset_every), grads)
        np.testing.assert_array_equal(got, want)


def test_a_reset_heals_what_is_not_finite():
    grads = jnp.ones((8, 3)).at[1, 1].set(jnp.nan)
    steps, _ = ran(adamx.scale_by_spam(reset_every=4), grads)
    assert np.isnan(steps[1:4, 1]).all()
    assert np.isfinite(steps[4:]).all()


def test_steps_grow_by_a_cosine_after_a_reset():
    """Under a constant gradient mean and root cancel: the step is the warm-up itself."""
    steps, _ = ran(adamx.scale_by_spam(eps=0.0), jnp.ones(700))
    k = np.minimum(np.arange(1, 501) / 150, 1)
    want = 1 - 0.99 * (1 + np.cos(np.pi * k)) / 2
    np.testing.assert_allclose(steps[:500], want, rtol=2e-6)
    np.testing.assert_allclose(steps[500:], want[:200], rtol=2e-6)


def test_a_spike_counts_as_the_root_of_theta_mean_squares():
    grads = jnp.ones((40, 4)).at[30].set(jnp.array([1.0, 1e3, -1e6, 50.0]))
    _, states = ran(adamx.scale_by_spam(theta=2_000.0), grads)
    before, after = states.nu[29], states.nu[30]
    most = np.sqrt(2_000 * before[0])
    assert 50 > most > 5
    seen = np.array([1.0, most, most, most])
    np.testing.assert_allclose(after, 0.999 * before + 0.001 * seen**2, rtol=1e-5)
    seen = seen * [1, 1, -1, 1]
    np.testing.assert_allclose(states.mu[30], 0.9 * states.mu[29] + 0.1 * seen, rtol=1e-5)


def test_nothing_is_clipped_early_or_against_no_history():
    early = jnp.ones((3, 1)).at[2].set(1e3)
    late = jnp.zeros((40, 1)).at[30].set(1e3)  # the authors' code makes this 0 until the next reset
    for grads, t in ((early, 2), (late, 30)):
        _, states = ran(adamx.scale_by_spam(), grads)
        assert states.nu[t, 0] > 0.9e3


def test_its_numbers_may_be_schedules_or_traced_and_are_checked():
    grads = jnp.asarray(np.random.default_rng(0).standard_cauchy(size=(12, 9)), jnp.float32)
    wanted = {"theta": 3.0, "reset_every": 6.0, "warmup_steps": 3.0, "clip_after": 2.0}
    want, _ = ran(adamx.scale_by_spam(**wanted), grads)
    constant = {k: lambda count, v=v: v + 0 * count.astype(jnp.float32) for k, v in wanted.items()}
    by = {
        "schedule": ran(adamx.scale_by_spam(**constant), grads),
        "traced": jax.jit(lambda h: ran(adamx.scale_by_spam(**h), grads))(
            {k: jnp.float32(v) for k, v in wanted.items()}
        ),
    }
    for way, (got, _) in by.items():
        np.testing.assert_allclose(got, want, rtol=1e-5, err_msg=way)
    none, _ = ran(adamx.scale_by_spam(warmup_steps=0), grads[:1])
    np.testing.assert_allclose(none, np.sign(grads[:1]), rtol=1e-4)
    with pytest.raises(ValueError, match="`reset_every` must be in \\[1, inf\\), got 0"):
        adamx.spam(0.1, reset_every=0)
