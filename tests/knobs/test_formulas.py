# SPDX-License-Identifier: Apache-2.0
"""Each formula does to an optimizer what it says, and its way back leads back."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx import knobs


@pytest.mark.parametrize("batch", [100, 400])
def test_the_weight_of_a_gradient_halves_after_the_half_life(batch):
    b2 = knobs.beta2_from_half_life(tokens=2000, batch=batch)
    link, zero = adamx.scale_by_adam(b2=b2), jnp.zeros(1)
    _, state = link.update(jnp.ones(1), link.init(zero))
    first = float(state.nu[0])
    for _ in range(2000 // batch):
        _, state = link.update(zero, state)
    np.testing.assert_allclose(float(state.nu[0]), first / 2, 1e-6)  # float32
    np.testing.assert_allclose(knobs.half_life(b2, batch), 2000, 1e-12)


def walked(settings, noise, steps):
    """How far Adam walks from zero when its gradients are nothing but noise."""
    opt = adamx.adam(**settings)

    def step(carry, key):
        params, state = carry
        return adamx.step(opt, params, state, noise * jax.random.normal(key, params.shape)), None

    params = jnp.zeros(2000)
    keys = jax.random.split(jax.random.key(0), steps)
    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, keys))((params, opt.init(params)))
    return float(jnp.std(params))


def test_rescaled_settings_walk_as_far_in_fewer_steps():
    k, steps = 4, 800
    before = {"learning_rate": 1e-3, "b1": 0.9, "b2": 0.99, "eps": 1e-8}
    after = knobs.rescale(64, 64 * k, **before)._asdict()
    far = walked(before, 1.0, steps), walked(after, 1 / math.sqrt(k), steps // k)
    # The deviation of 2,000 walkers is known to 1.6 % each; the averages' ends cost a few per cent.
    # A rate scaled by k, or not at all, would be off by a factor of 2.
    np.testing.assert_allclose(*far, 0.1)


def test_a_rescaled_schedule_is_read_faster():
    schedule = optax.linear_schedule(1.0, 0.0, 100)
    rate = knobs.rescale(1, 4, learning_rate=schedule).learning_rate
    np.testing.assert_allclose([rate(t) for t in (0, 10, 25)], [2.0, 1.2, 0.0], 1e-6)


def test_rescaling_back_leads_back():
    settings = {"learning_rate": 3e-4, "b1": 0.95, "b2": 0.98, "eps": 1e-7}
    there = knobs.rescale(32, 96, **settings)
    back = knobs.rescale(96, 32, **there._asdict())
    np.testing.assert_allclose(back, list(settings.values()), 1e-12)


@pytest.mark.parametrize("k, b1", [(20, 0.95), (100, 0.99), (1000, 0.999), (10, 0.9)])
def test_the_largest_batch_that_a_rate_allows_is_allowed(k, b1):
    found = knobs.rescale(32, 32 * k, learning_rate=1e-3, b1=b1, b2=0.99999)
    np.testing.assert_allclose(found.b1, 0, atol=1e-12)
    assert adamx.adam(**found._asdict()) is not None


def test_weights_without_gradients_fall_to_one_e_th_within_the_time_scale():
    rate, epochs, each = 1e-2, 4, 50
    decay = knobs.decay_from_timescale(rate, epochs, each)
    left = (1 - rate * decay) ** (epochs * each)
    np.testing.assert_allclose(left, math.exp(-1), 3e-3)  # 1 - x for e^-x: x / 2 = 1 / 400
    np.testing.assert_allclose(knobs.timescale(rate, decay, each), epochs, 1e-12)
    opt = adamx.adamw(rate, weight_decay=decay)
    params, state = jnp.ones(1), opt.init(jnp.ones(1))
    for _ in range(10):
        params, state = adamx.step(opt, params, state, jnp.zeros(1))
    np.testing.assert_allclose(params, (1 - rate * decay) ** 10, 1e-6)  # float32


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: knobs.beta2_from_half_life(0, 8), "`tokens` must be a finite number above 0, got"),
        (lambda: knobs.beta2_from_half_life(1e20, 1), "`tokens` must be at most 1e16 batches"),
        (lambda: knobs.half_life(1.0, 8), r"`b2` must be in \[0, 1\), got 1.0"),
        (
            lambda: knobs.rescale(64, 1024, learning_rate=1e-3),
            "`b1`: a batch 16 times as large needs 1 - b1 = 1.6, which must be at most 1: keep "
            "`batch_to` within 10 times `batch_from`",
        ),
        (
            lambda: knobs.rescale(1, 30, learning_rate=1e-3, b1=0.99, b2=0.95),
            "`b2`: a batch 30 times as large",
        ),
        (lambda: knobs.rescale(1, -2, learning_rate=1e-3), "`batch_to` must be a finite number"),
        (lambda: knobs.rescale(1, 2, learning_rate=math.nan), "`learning_rate` must be a finite"),
        (lambda: knobs.decay_from_timescale(1e-3, 0, 10), "`epochs` must be a finite number above"),
    ],
)
def test_a_wrong_number_is_refused_by_name(call, said):
    with pytest.raises(ValueError, match=said):
        call()
