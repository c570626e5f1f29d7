# SPDX-License-Identifier: Apache-2.0
"""Storages: what they round, how, and how they are chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adamx
from adamx import storage
from adamx.core import random_bits
from adamx.storage.floats import stochastic
from tests import cases


def test_stochastic_rounding_is_to_a_neighbour_and_unbiased():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=16) * 10.0 ** rng.uniform(-30, 30, 16)).astype(np.float32)
    draws = 100_000
    bits = random_bits.noise(random_bits.Key(random_bits.words(0, 0, 0)), (draws, 16)).draw(0)
    got = np.asarray(stochastic(jnp.broadcast_to(x, (draws, 16)), bits), np.float64)
    down = (x.view(np.uint32) & 0xFFFF0000).view(np.float32)
    up = ((x.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32)
    assert ((got == down) | (got == up)).all()
    # A coin of 100,000 tosses: five standard deviations of its mean, at most half a unit each.
    unit = np.abs(up.astype(np.float64) - down)
    assert (np.abs(got.mean(0) - x) < 5 * 0.5 * unit / np.sqrt(draws)).all()


@settings(deadline=None, max_examples=100)
@given(st.floats(width=32, allow_nan=True, allow_infinity=True), st.integers(-(2**31), 2**31 - 1))
def test_stochastic_rounding_keeps_sign_and_finiteness(value, bits):
    got = float(stochastic(jnp.float32(value), jnp.int32(bits)))
    if np.isnan(value):
        assert np.isnan(got)
    elif np.isinf(value):
        assert got == value
    else:
        assert np.isfinite(got) or abs(value) > 3.3e38
        assert np.signbit(got) == np.signbit(np.float32(value))


def test_values_that_bfloat16_has_are_never_changed():
    x = jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.bfloat16)
    for seed in range(3):
        bits = random_bits.noise(random_bits.Key(random_bits.words(seed, 0, 0)), x.shape).draw(0)
        np.testing.assert_array_equal(stochastic(x.astype(jnp.float32), bits), x)


def test_squares_in_bfloat16_follow_a_change_of_the_gradient():
    """After gradients of 1 come gradients of 0.1: to nearest, nu would stay at 1 for ever."""
    for kwargs in ({"storage": "bfloat16"}, {"nu_dtype": "bfloat16"}):
        link = adamx.scale_by_adam(**kwargs)
        g = jnp.ones(512)
        state = link.init(g)._replace(nu=jnp.ones(512, jnp.bfloat16), count=jnp.int32(10_000))

        def body(state, _, link=link, g=g):
            return link.update(0.1 * g, state)[1], None

        state, _ = jax.jit(lambda s, body=body: jax.lax.scan(body, s, None, 2_000))(state)
        want = 0.01 + 0.99 * 0.999**2_000
        # One coordinate's relative noise is about sqrt(2^-8 / 2 / ...) < 0.1; 512 of them average.
        np.testing.assert_allclose(np.asarray(state.nu, np.float64).mean(), want, rtol=0.02)


@pytest.mark.parametrize("name", ["bfloat16", "int8"])
def test_rounded_moments_follow_float32s_without_bias(name):
    """20,000 streams of their own, so that what is left on average is bias and not luck."""
    stream = jnp.asarray(np.random.default_rng(0).normal(size=(200, 20_000)), jnp.float32)
    kinds = adamx.rules.adam().moments

    def after(name):
        link = adamx.scale_by_adam(b2=0.99, storage=name)

        def body(state, g):
            return link.update(g, state)[1], None

        state, _ = jax.jit(lambda s, gs: jax.lax.scan(body, s, gs))(link.init(stream[0]), stream)
        held = storage.named(name).decode({"mu": state.mu, "nu": state.nu}, kinds)
        return {k: np.asarray(x, np.float64) for k, x in held.items()}

    want, got = after("float32"), after(name)
    longer = np.sqrt(want["nu"] / got["nu"]) - 1
    slope = (got["mu"] * want["mu"]).sum() / (want["mu"] ** 2).sum()
    # Even over time is not independent: int8's roots end up to 1.5% off on average, a tenth of
    # their own scatter. Rounding that kept v instead of its fourth root would be 5% off.
    assert abs(longer.mean()) < (5e-4 if name == "bfloat16" else 1.5e-2)
    assert abs(slope - 1) < 1e-3
    assert 1e-3 < longer.std() < 0.15


def test_mu_and_nu_dtypes_are_taken_at_their_word():
    params = cases.params()
    for name in ("adam", "amsgrad", "adan", "adamax", "adabelief", "yogi", "radam", "adopt"):
        opt = cases.RECIPES[name](mu_dtype="float16", nu_dtype="bfloat16")
        state = opt.init(params)
        kinds = {f: jax.tree.leaves(getattr(state[0], f)) for f in state[0]._fields}
        for field, leaves in kinds.items():
            want = {"mu": "float16", "m": "float16", "v": "float16", "g": "float16"}.get(
                field, "int32" if field in ("count", "t") else "bfloat16"
            )
            assert {x.dtype for x in leaves} == {jnp.dtype(want)}, (name, field)
        _, new = opt.update(cases.grads(params), state, params)
        assert jax.tree.map(lambda x: x.dtype, new) == jax.tree.map(lambda x: x.dtype, state)


def test_a_function_chooses_a_storage_for_each_leaf():
    seen = []

    def choose(path, shape):
        seen.append((path, shape))
        return "bfloat16" if len(shape) > 1 else storage.float32()

    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    opt = adamx.adam(0.1, storage=choose)
    state = opt.init(params)
    assert seen == [("bias", (3,)), ("kernel", (2, 3))]
    assert state[0].mu["kernel"].dtype == state[0].nu["kernel"].dtype == jnp.bfloat16
    assert state[0].mu["bias"].dtype == state[0].nu["bias"].dtype == jnp.float32
    opt.update(params, state, params)


def test_two_seeds_round_differently():
    params = jnp.asarray(np.random.default_rng(0).normal(size=1000), jnp.float32)

    def nu(seed):
        opt = adamx.scale_by_adam(storage=storage.bfloat16(seed))
        return np.asarray(opt.update(params, opt.init(params))[1].nu, np.float32)

    assert (nu(0) == nu(0)).all()
    assert 0.2 < (nu(0) != nu(1)).mean() < 0.8


def test_a_mean_too_large_for_float16_is_held_at_its_largest():
    link = adamx.scale_by_adam(mu_dtype="float16")
    g = jnp.array([1e8, -1e8, 1.0])
    _, state = link.update(g, link.init(g))
    np.testing.assert_array_equal(np.asarray(state.mu[:2], np.float32), [65504.0, -65504.0])


def test_bfloat16_keeps_the_means_of_complex_leaves_complex():
    params = jnp.ones(2, jnp.complex64)
    state = adamx.scale_by_adam(storage="bfloat16").init(params)
    assert (state.mu.dtype, state.nu.dtype) == (jnp.complex64, jnp.bfloat16)


@pytest.mark.parametrize("name", storage.NAMED)
def test_named_storages_are_hashable_and_equal_to_themselves(name):
    assert hash(storage.named(name)) == hash(storage.named(name))
    assert storage.named(name) == storage.named(name)
    assert storage.named(name).name == name
