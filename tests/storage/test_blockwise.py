# SPDX-License-Identifier: Apache-2.0
"""The references that the study compares with do what their descriptions say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.blockwise import FORMATS, dynamic_levels

BYTES = {
    "bitsandbytes": 2.03125,
    "torchao8": 2.03125,
    "torchao4": 1.0625,
    "torchao-e4m3": 2.03125,
    "e4m3": 2.0,
    "e5m2": 2.0,
    "flashoptim": 2.125,
    "block32": 2.125,
}

# The largest error of a mean over its block's largest: half the widest gap between levels. For the
# dynamic maps the widest gap is within the first decade, 0.9 / 64 and 0.9 / 4; for softsign the
# slope of the inverse is at most 2, at 1; floats keep half a unit of a value just below the
# largest; bfloat16 scales may be half a unit off themselves.
MEAN = {
    "bitsandbytes": 0.5 * 0.9 / 64,
    "torchao8": 0.5 * 0.9 / 64,
    "torchao4": 0.5 * 0.9 / 4,
    "torchao-e4m3": 2.0**-4,
    "e4m3": 2.0**-4,
    "flashoptim": 0.5 * 2 / 127 + 2.0**-11,
    "block32": 0.5 / 127 + 2.0**-8,
}


def test_every_reference_states_its_bytes():
    assert {name: reference.bytes for name, reference in FORMATS.items()} == BYTES


@pytest.mark.parametrize("signed", [True, False])
def test_the_dynamic_map_has_256_levels_in_seven_decades(signed):
    levels = dynamic_levels(signed)
    assert len(set(levels)) == 256
    assert levels[-1] == 1
    assert 0 in levels
    positive = levels[levels > 0]
    # The lowest decade has one part (two without a sign): the midpoint of [0.1, 1] or [0.1, 0.55].
    np.testing.assert_allclose(positive[0], (0.55 if signed else 0.325) * 1e-6, rtol=1e-12)
    in_top_decade = np.count_nonzero((positive > 0.1) & (positive < 1))
    assert in_top_decade == (64 if signed else 128)
    # All but 1 itself have their negative.
    np.testing.assert_array_equal(levels[levels < 0], -positive[:-1][::-1] if signed else [])


def test_the_four_bit_map_has_three_decades():
    want = [0.00550, 0.0325, 0.0775, 0.2125, 0.4375, 0.6625, 0.8875, 1.0]
    levels = dynamic_levels(True, 4)
    np.testing.assert_allclose(levels[levels > 0], want, rtol=1e-12)
    assert len(levels) == 16


@pytest.mark.parametrize("name", MEAN)
def test_a_mean_is_off_by_half_a_gap_at_most(name):
    m = np.random.default_rng(0).uniform(-1, 1, (64, 256)).astype(np.float32)
    m[:, ::32] = 1.0  # every block's largest
    got = np.asarray(FORMATS[name].mean(jnp.asarray(m)))
    error = np.abs(got - m).max()
    assert error < MEAN[name] * (1 + 1e-5)
    assert error > MEAN[name] / 4  # and it is a code of that coarseness


@pytest.mark.parametrize("name", FORMATS)
def test_levels_survive_a_second_round_trip(name):
    """A value that was decoded is a level: coding it again changes nothing but a scale's digits."""
    m = np.random.default_rng(1).normal(size=427).astype(np.float32)
    m[::32] = 5.0  # the largest of each block is positive: the dynamic maps have 1, but not -1
    m = jnp.asarray(m.reshape(7, 61))
    once = FORMATS[name].requantise(m, jnp.square(m))
    twice = FORMATS[name].requantise(*once)
    for a, b in zip(once, twice, strict=True):
        # Blocks whose largest went through a 16-bit scale may shift by a unit of that scale, and
        # the square of a root by two.
        np.testing.assert_allclose(a, b, rtol=2.0**-6, atol=0)


@pytest.mark.parametrize("name", FORMATS)
def test_any_shape_comes_back(name):
    arrays = [jnp.full(shape, 0.25) for shape in ((), (1,), (5, 7), (3, 1, 129), (0, 4))]
    coded = jax.jit(lambda arrays: [FORMATS[name].requantise(a, a) for a in arrays])(arrays)
    for x, (m, v) in zip(arrays, coded, strict=True):
        assert m.shape == v.shape == x.shape
        assert m.dtype == v.dtype == jnp.float32
        np.testing.assert_allclose(m, x, rtol=2.0**-8)
        np.testing.assert_allclose(v, x, rtol=2.0**-8)


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_stays_nothing(name):
    m, v = FORMATS[name].requantise(jnp.zeros(300), jnp.zeros(300))
    np.testing.assert_array_equal(m, 0)
    # torchao's four bits have no zero: the least is a sixteenth of its least scale.
    np.testing.assert_allclose(v, 1e-12 / 16 if name == "torchao4" else 0, rtol=1e-6)


def test_who_loses_a_small_square_beside_a_large_one():
    """A root of a thousandth of the block's largest: 1e-6 of the square."""
    v = jnp.ones(32).at[0].set(1e-6)
    kept = {name: float(FORMATS[name].square(v)[0]) for name in FORMATS}
    lost = {name for name, value in kept.items() if value == 0}
    assert lost == {"flashoptim", "block32", "torchao-e4m3", "e4m3", "e5m2"}
    assert kept["torchao4"] == 1 / 16
    np.testing.assert_allclose(kept["bitsandbytes"], 1e-6, rtol=0.3)
