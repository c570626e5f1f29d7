# SPDX-License-Identifier: Apache-2.0
"""Folded micro-batches make the step of the papers, in every storage, and wait in between."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests import cases

N, STEPS, RATE, DECAY, B1 = 3, 4, 0.1, 0.2, 0.9


def b2_at(t):
    return 1 - 1 / (t + 2)


def oracle(p, grads, squares):
    """AdamW in float64 on lists of micro-batches; b2 follows a schedule."""
    mu, nu, grown = np.zeros_like(p), np.zeros_like(p), 0.0
    for t, micro in enumerate(grads):
        b2 = b2_at(t)
        mu = B1 * mu + (1 - B1) * np.mean(micro, 0)
        nu = b2 * nu + (1 - b2) * squares(micro)
        grown = 1 - b2 ** (t + 1)
        u = mu / (1 - B1 ** (t + 1)) / (np.sqrt(nu / grown) + 1e-8)
        p = p - RATE * u - RATE * DECAY * p
    return p


def mean_of_squares(micro):
    return np.mean(np.square(micro), 0)


def adama(micro):
    """Of losses divided by the number of micro-batches."""
    return np.sum(np.square(np.divide(micro, len(micro))), 0)


def drawn(shape, steps=STEPS, n=N):
    rng = np.random.default_rng(0)
    return rng.normal(size=shape), rng.normal(size=(steps, n, *shape))


def run(opt, p, grads):
    """Parameters after all steps, and the last state; one program for all calls."""
    step = jax.jit(lambda p, s, g: adamx.step(opt, p, s, g))
    p, state = jnp.asarray(p), opt.init(jnp.asarray(p))
    for g in grads:
        p, state = step(p, state, jnp.asarray(g, p.dtype))
    assert step._cache_size() == 1
    return p, state


@pytest.mark.parametrize("squares", [mean_of_squares, adama])
def test_a_step_is_that_of_the_papers(squares):
    p, grads = drawn((5,))
    longer = N**0.5 if squares is adama else 1.0
    opt = adamx.adamw(
        longer * RATE, b1=B1, b2=b2_at, eps=longer * 1e-8, weight_decay=DECAY / longer
    )
    with jax.enable_x64(True):
        found, state = run(adamx.fold_micro_batches(opt, N), p, grads.reshape(-1, 5))
    # The schedule of b2 is in float32.
    np.testing.assert_allclose(found, oracle(p, grads, squares), 1e-7)
    assert (state.micro_step, state.inner[0].count) == (0, STEPS)
    narrow, _ = run(
        adamx.fold_micro_batches(opt, N), jnp.float32(p), jnp.float32(grads).reshape(-1, 5)
    )
    np.testing.assert_allclose(narrow, found, 1e-5, 1e-6)  # float32


# Of 2,048 elements: how far the mean of 1 / sqrt(nu) may be off, which rounding keeps, and the
# deviation of mu / sqrt(nu). Seen without folding (n = 1): int8 0.055, int4 0.83.
ERRORS = {"float32": (1e-5, 1e-6), "bfloat16": (0.01, 0.02), "int8": (0.02, 0.1), "int4": (0.1, 1)}


@pytest.mark.parametrize("storage", cases.STORAGES)
def test_every_storage_keeps_the_two_means(storage):
    p, grads = drawn((64, 32), steps=10, n=4)
    opts = [adamx.fold_micro_batches(adamx.adam(0.0, storage=s), 4) for s in (storage, None)]
    _, state = run(opts[0], jnp.float32(p), grads.reshape(-1, 64, 32))
    found = adamx.convert(state, *opts).inner[0]
    mu, nu = 0, 0
    for micro in grads:
        mu, nu = 0.9 * mu + 0.1 * micro.mean(0), 0.999 * nu + 0.001 * mean_of_squares(micro)
    of_roots, of_means = ERRORS[storage]
    np.testing.assert_allclose(np.mean((found.nu / nu) ** -0.5), 1, atol=of_roots)
    assert np.std((found.mu - mu) / np.sqrt(nu)) < of_means


def test_it_waits_bit_for_bit_and_schedules_count_steps():
    params = {"a": jnp.array([1.0, -0.0, 3e-3], jnp.bfloat16)}
    rate = optax.linear_schedule(1e-2, 0.0, 10)
    opt = adamx.adamw(rate, weight_decay=0.1, storage="int8", landing="kahan")
    opt = adamx.fold_micro_batches(opt, 2)
    grads = {"a": jnp.ones(3, jnp.bfloat16)}
    first, state = params, opt.init(params)
    after, waiting = adamx.step(opt, first, state, grads)
    np.testing.assert_array_equal(*(np.asarray(x["a"]).view(np.uint16) for x in (after, first)))
    assert waiting.micro_step == 1
    assert waiting.inner[0].count == 0
    old = jax.tree.leaves(state.inner[1:])
    for x, y in zip(jax.tree.leaves(waiting.inner[1:]), old, strict=True):
        np.testing.assert_array_equal(x, y)
    after, state = adamx.step(opt, after, waiting, grads)
    rule, _, rate, _ = state.inner
    assert (rule.count, rate.count) == (1, 1)
    assert float(after["a"][0]) < 1
    assert cases.form(state) == cases.form(opt.init(params))


@pytest.mark.parametrize("make", [adamx.adam, adamx.adamw, adamx.lamb])
@pytest.mark.parametrize("storage", ["float32", "int4"])
def test_equal_micro_batches_are_one_batch(make, storage):
    params = {k: v for k, v in cases.params().items() if v is not None}
    grads = cases.grads(params)
    plain = make(1e-2, storage=storage)
    folded = adamx.fold_micro_batches(plain, 2)
    assert cases.form(folded.init(params).inner) == cases.form(plain.init(params))
    state = folded.init(params)
    for _ in range(2):
        updates, state = folded.update(grads, state, params)
    want, _ = plain.update(grads, plain.init(params), params)
    # After the first step the direction is 1, but for what two roundings cost in 4 bits.
    tolerance = 1e-5 if storage == "float32" else 0.35
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, tolerance, tolerance * 1e-2), updates, want
    )


@pytest.mark.parametrize("waiting", [2, 3])
def test_a_run_goes_on_with_fewer_micro_batches_in_a_step(waiting):
    """Where as many gradients wait as a step has from now on, or more."""
    before, after = (adamx.fold_micro_batches(adamx.adam(0.1), every=n) for n in (4, 2))
    params, state = run(before, np.ones(3), [np.ones(3)] * waiting)
    for taken in (1, 1, 2, 2, 3):
        params, state = adamx.step(after, params, state, jnp.ones(3))
        assert state.inner[0].count == taken
        # Gradients are equal; those of the first step were weighed as quarters, not as halves.
        np.testing.assert_allclose(params, 1 - 0.1 * taken, atol=0.02)


@pytest.mark.parametrize(
    "opt, said",
    [
        (adamx.nadam(1e-3), "without `nesterov`, got nadam"),
        (adamx.adamw(1e-3, nesterov=True), "without `nesterov`, got adamw"),
        (adamx.lion(1e-3), "`opt` must be adamx.adam, adamw or lamb, without `nesterov`, got lion"),
        (adamx.amsgrad(1e-3), "got amsgrad"),
        (
            adamx.adamw(1e-3, weight_decay=adamx.decay.l2(0.1)),
            "`opt` must not have a penalty before its rule, got one in adamw",
        ),
        (adamx.cautious(adamx.adamw(1e-3)), "without cautious, got it around adamw"),
        (
            adamx.grams(adamx.cautious(adamx.lamb(1e-3))),
            "without cautious and grams, got them around lamb",
        ),
        (optax.adam(1e-3), "`opt` must be adamx.adam, adamw or lamb by itself"),
    ],
)
def test_what_does_not_fold_is_refused(opt, said):
    with pytest.raises(ValueError, match=said):
        adamx.fold_micro_batches(opt, 2)


def test_a_wrong_number_or_state_is_refused():
    opt = adamx.adam(1e-3)
    with pytest.raises(ValueError, match="`every` must be a whole number of at least 1, got 0"):
        adamx.fold_micro_batches(opt, 0)
    with pytest.raises(ValueError, match="the state should be a FoldState, got tuple"):
        adamx.fold_micro_batches(opt, 2).update(jnp.ones(1), opt.init(jnp.ones(1)))
