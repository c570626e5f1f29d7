# SPDX-License-Identifier: Apache-2.0
"""Schedules against formulas in float64, and against compositions of Optax's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx import knobs

COUNTS = np.arange(0, 130)


def wsd(t, peak, steps, warmup, decay, first, last, shape):
    if decay and t > steps - decay:
        s = min((t - steps + decay) / decay, 1.0)
        return last + (peak - last) * (1 - (s**0.5 if shape == "1-sqrt" else s))
    if not decay and t >= steps:
        return last
    return peak if t >= warmup else first + (peak - first) * t / warmup


@pytest.mark.parametrize("shape", ["1-sqrt", "linear"])
@pytest.mark.parametrize("warmup, decay", [(10, 20), (0, 20), (10, 0), (60, 40), (0, 100)])
def test_it_rises_stays_and_falls(warmup, decay, shape):
    schedule = knobs.warmup_stable_decay_schedule(0.3, 100, warmup, decay, 0.01, 0.002, shape)
    want = [wsd(t, 0.3, 100, warmup, decay, 0.01, 0.002, shape) for t in COUNTS.tolist()]
    np.testing.assert_allclose(jax.vmap(schedule)(COUNTS), want, 1e-6)  # float32
    assert schedule(3).dtype == jnp.float32


def test_linear_is_what_optax_composes():
    ours = knobs.warmup_stable_decay_schedule(1.0, 100, 10, 20, shape="linear")
    pieces = [
        optax.linear_schedule(0.0, 1.0, 10),
        optax.constant_schedule(1.0),
        optax.linear_schedule(1.0, 0.0, 20),
    ]
    theirs = optax.join_schedules(pieces, [10, 80])
    for t in (0, 3, 10, 50, 80, 81, 95, 100, 120):
        np.testing.assert_allclose(ours(t), theirs(t), 1e-6, 1e-7)


def test_inverse_sqrt_is_the_papers():
    width, warmup = 512, 40
    schedule = knobs.warmup_inverse_sqrt_schedule((width * warmup) ** -0.5, warmup)
    steps = COUNTS[1:].astype(float)
    want = width**-0.5 * np.minimum(steps**-0.5, steps * warmup**-1.5)
    np.testing.assert_allclose(jax.vmap(schedule)(COUNTS[1:]), want, 1e-6)
    assert float(schedule(0)) == 0


def test_a_recipe_takes_them_and_compiles_once():
    opt = adamx.adam(knobs.warmup_stable_decay_schedule(1.0, 4, 2, 1))
    params, state = jnp.zeros(1), opt.init(jnp.zeros(1))
    step = jax.jit(lambda p, s: opt.update(jnp.ones(1), s, p))
    found = []
    for _ in range(5):
        updates, state = step(params, state)
        found.append(-float(updates[0]))
    np.testing.assert_allclose(found, [0, 0.5, 1, 1, 0], 1e-6)
    assert step._cache_size() == 1


@pytest.mark.parametrize(
    "call, said",
    [
        (
            lambda: knobs.warmup_stable_decay_schedule(1.0, 10, 6, 5),
            r"`warmup_steps` and `decay_steps` must fit into `steps`, got 6 \+ 5 > 10",
        ),
        (
            lambda: knobs.warmup_stable_decay_schedule(1.0, 10, 1, 1, shape="cosine"),
            "`shape` must be one of '1-sqrt', 'linear', got 'cosine'",
        ),
        (
            lambda: knobs.warmup_stable_decay_schedule(1.0, 10, 1.5, 1),
            "`warmup_steps` must be a whole number of at least 0, got 1.5",
        ),
        (lambda: knobs.warmup_inverse_sqrt_schedule(1.0, 0), "`warmup_steps` must be a whole"),
        (lambda: knobs.warmup_inverse_sqrt_schedule(np.inf, 5), "`peak_value` must be a finite"),
    ],
)
def test_a_wrong_length_is_refused_by_name(call, said):
    with pytest.raises(ValueError, match=said):
        call()
