# SPDX-License-Identifier: Apache-2.0
"""`skip_outliers` against its rule in NumPy: a window of losses and norms, and k deviations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx import health


def by_rule(rows, window, sigmas):
    """For each step whether a row (loss, norm) is an outlier among the last ones."""
    kept, skipped = [[], []], []
    for row in rows:
        bad = False
        for seen, x in zip(kept, row, strict=True):
            last = seen[-window:]
            if not np.isfinite(x):
                bad = True
                continue
            if len(last) >= 2 and len(seen) + 1 >= max(2, window // 2):
                bad |= bool(x - np.mean(last) > sigmas * np.std(last, ddof=1))
            seen.append(x)
        skipped.append(bad)
    return skipped


@pytest.mark.parametrize("window, sigmas", [(128, 6.0), (8, 2.0), (4, 1.5)])
def test_steps_are_skipped_by_the_rule(window, sigmas):
    rng = np.random.default_rng(window)
    rows = np.abs(rng.normal(1.0, 0.1, size=(300, 2)))
    rows[rng.choice(300, 25, replace=False), rng.integers(0, 2, 25)] *= 30
    rows[200, 0], rows[220, 1] = np.nan, np.inf
    rows[250:, 0] += 5  # a lasting change becomes usual
    opt = health.skip_outliers(optax.sgd(1.0), window, sigmas)
    p = {"kernel": jnp.zeros(3)}

    def step(state, row):
        _, state = opt.update(p, state, p, loss=row[0], grad_norm=row[1])
        return state, state.total

    _, totals = jax.lax.scan(step, opt.init(p), jnp.asarray(rows, jnp.float32))
    got = np.diff(np.asarray(totals), prepend=0).astype(bool)
    want = np.array(by_rule(rows.astype(np.float32).astype(float), window, sigmas))
    assert want.sum() > 3
    np.testing.assert_array_equal(got, want)


def test_a_skipped_step_changes_nothing_and_is_named():
    opt = health.skip_outliers(adamx.adam(0.1), window=4)
    p = {"bias": jnp.ones(2), "kernel": jnp.ones(3)}
    state, update = opt.init(p), jax.jit(opt.update)
    for size in (1.0, 1.01, 0.99, 1.0):
        _, state = update(jax.tree.map(lambda x: size * x, p), state, p)  # noqa: B023
    spike = {"bias": jnp.ones(2), "kernel": jnp.full(3, 1e4)}
    updates, after = update(spike, state, p)
    assert all(not np.any(u) for u in jax.tree.leaves(updates))
    jax.tree.map(np.testing.assert_array_equal, after.inner, state.inner)
    assert int(after.total) == 1
    assert health.first_bad(after, p) == "kernel"
    assert health.read(after)["spikes"] == 1


@pytest.mark.parametrize("level", [1.0, 0.1, 3e4])
def test_rounding_of_a_constant_is_no_spike(level):
    opt, p = health.skip_outliers(optax.sgd(1.0), window=8), {"kernel": jnp.zeros(3)}
    level = np.float32(level)
    above = np.nextafter(level, np.float32(np.inf))
    state, update = opt.init(p), jax.jit(opt.update)
    for loss in [level] * 8 + [above] * 2 + [level, above]:
        _, state = update(p, state, p, loss=loss, grad_norm=level)
    assert int(state.total) == 0
    _, state = update(p, state, p, loss=level * np.float32(1 + 1e-5), grad_norm=level)
    assert int(state.total) == 1


def test_a_loss_with_one_element_is_a_scalar():
    opt, p = health.skip_outliers(optax.sgd(1.0)), {"kernel": jnp.zeros(3)}
    opt.update(p, opt.init(p), p, loss=jnp.ones(1))
    with pytest.raises(ValueError, match=r"`loss` must be a scalar, got an array of shape \(2,\)"):
        opt.update(p, opt.init(p), p, loss=jnp.ones(2))


def test_the_loss_may_be_left_out():
    opt = health.skip_outliers(adamx.adam(0.1), window=4)
    p = {"kernel": jnp.ones(2)}
    state = opt.init(p)
    for _ in range(6):
        _, state = opt.update(p, state, p)
    assert state.usual.looks.tolist() == [0, 6]
    assert int(state.total) == 0


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"window": 1}, "`window` must be a whole number of at least 2, got 1"),
        ({"window": 2.5}, "`window` must be a whole number of at least 2, got 2.5"),
        ({"sigmas": 0}, "`sigmas` must be > 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        health.skip_outliers(adamx.adam(0.1), **arguments)


def test_the_loss_may_come_as_for_rewind():
    """As in a chain of guards, and as `data_parallel` hands it in."""
    opt = health.skip_outliers(adamx.adam(0.1), window=8)
    p = {"kernel": jnp.ones(2)}
    state, update = opt.init(p), jax.jit(opt.update)
    for loss in (1.0, 1.2, 0.9, 1.1, 50.0):
        _, state = update(p, state, p, value=loss)
    assert health.read(state)["spikes"] == 1
    _, state = update(p, state, p, value=jnp.nan, loss=1.0)  # `loss` is the more exact word
    assert health.read(state)["spikes"] == 1
