# SPDX-License-Identifier: Apache-2.0
"""Codes by themselves: the numbers that they stand for, and how they round to them.

They are held against a second set in NumPy's double precision, written from what their docstrings
promise: numbers evenly spaced within an octave of `x + offset`, and the chances of rounding up.
"""

import functools
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx.storage import pair
from adamx.storage.means import ALONE, MEANS
from adamx.storage.squares import MAGNITUDES, SQUARES, leaning


class Reference(NamedTuple):
    """What a code promises.

    Attributes:
      encode, decode: of the code itself, from and to what is stored.
      octave: how many numbers there are in an octave of `x + offset`; 1/4 is one in four octaves.
      offset: what is added, beside a unit of 1.
      count: the largest code.
      start: the smallest `x + offset` that has a code.
      signed: whether it is a code of numbers of either sign.
    """

    encode: object
    decode: object
    octave: float
    offset: float
    count: int
    start: float
    signed: bool = False


REFERENCES = {
    "squares": Reference(
        lambda x, noise, unit: SQUARES.within(SQUARES.encode(x, noise)),
        lambda code, unit: SQUARES.decode(code),
        4, 2.0**-50, 254, 2.0**-50,
    ),
    "magnitudes": Reference(
        lambda x, noise, unit: MAGNITUDES.within(MAGNITUDES.encode(x, noise)),
        lambda code, unit: MAGNITUDES.decode(code),
        8, 2.0**-23, 254, 2.0**-23,
    ),
    "squares in a pair": Reference(
        lambda x, noise, unit: pair.join(pair.code(x, noise), 1 + 0 * noise) >> 4,
        lambda code, unit: pair.square(code << 4 | 1),
        1 / 4, 0.0, 15, 2.0**-52,
    ),
    "means": Reference(
        lambda x, noise, unit: MEANS.encode(x, unit, noise),
        lambda code, unit: MEANS.decode(code, unit),
        16, 1.0, 127, 1.0, signed=True,
    ),
    "means in a pair": Reference(
        lambda x, noise, unit: pair.MEANS.encode(x, unit, noise),
        lambda code, unit: pair.MEANS.decode(code, unit),
        2, 1.0, 7, 1.0, signed=True,
    ),
    "means alone": Reference(
        lambda x, noise, unit: ALONE.encode(x, noise),
        lambda code, unit: ALONE.decode(code),
        4, 2.0**-25, 127, 2.0**-25, signed=True,
    ),
}  # fmt: skip
every_code = pytest.mark.parametrize("name", REFERENCES)
UNITS = np.float32([2.0**-31, 1.5 * 2.0**-12, 1.0, 1.75 * 2.0**3])


def position(y):
    """The logarithm to base 2, straight within an octave: what a float's bits are."""
    octave = np.floor(np.log2(y))
    return octave + y / 2.0**octave - 1


def at(position):
    octave = np.floor(position)
    return 2.0**octave * (1 + position - octave)


def numbers(name, unit=1.0):
    """The numbers with the sizes 0 to `count`."""
    r = REFERENCES[name]
    unit = unit if r.offset == 1 else 1.0
    return at(position(r.start * unit) + np.arange(r.count + 1) / r.octave) - r.offset * unit


def units(name, n):
    """A unit for each of `n` numbers."""
    if REFERENCES[name].offset != 1:
        return np.ones(n, np.float32)
    return (UNITS if name == "means" else np.exp2(np.round(np.log2(UNITS))).astype(np.float32))[
        np.arange(n) % len(UNITS)
    ]


def codes(name):
    """Every code of a number, and the number."""
    r = REFERENCES[name]
    size = np.arange(r.count + 1)
    if not r.signed:
        return size.astype(np.int32), lambda unit: numbers(name, unit)
    minus = 8 if r.count == 7 else -128
    signs = np.concatenate([size, size[1:] | minus]).astype(np.int32)
    return signs, lambda unit: np.concatenate([numbers(name, unit), -numbers(name, unit)[1:]])


def random(rng, shape):
    return rng.integers(-(2**31), 2**31, shape).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def encode(name, x, noise, unit):
    x, unit = jnp.broadcast_to(x, noise.shape), jnp.broadcast_to(unit, noise.shape)
    return REFERENCES[name].encode(x, noise, unit)


@functools.partial(jax.jit, static_argnums=0)
def decode(name, code, unit):
    return REFERENCES[name].decode(code, jnp.broadcast_to(unit, code.shape))


@every_code
def test_every_code_stands_for_the_references_number(name):
    code, want = codes(name)
    for unit in sorted(set(units(name, 8))):
        got = np.asarray(decode(name, code, unit), np.float64)
        # A difference of two floats, rounded once: 2^-24 of the larger.
        np.testing.assert_allclose(got, want(np.float64(unit)), rtol=2.0**-23)


@every_code
def test_a_number_that_has_a_code_keeps_it_whatever_the_noise(name):
    code, _ = codes(name)
    rng = np.random.default_rng(0)
    noise = random(rng, (40, code.size))
    noise[:4] = np.int32([[0], [-1], [2**31 - 1], [-(2**31)]])
    for unit in sorted(set(units(name, 8))):
        x = decode(name, code, unit)
        np.testing.assert_array_equal(encode(name, x, noise, unit), code + 0 * noise)


@every_code
def test_a_number_becomes_one_of_its_two_neighbours(name):
    r, rng = REFERENCES[name], np.random.default_rng(0)
    x = np.float32(10.0 ** np.linspace(-30, 30, 1_500))
    x = x * rng.choice(np.float32([-1, 1]), x.size) if r.signed else x
    unit, noise = units(name, x.size), random(rng, (6, x.size))
    noise[:3] = np.int32([[0], [-1], [-(2**31)]])
    got = np.abs(np.asarray(decode(name, encode(name, x, noise, unit), unit), np.float64))
    for i, (size, one) in enumerate(zip(np.abs(np.float64(x)), np.float64(unit), strict=True)):
        known = numbers(name, one)
        known = known if r.signed else known[known > 0]  # what is positive is never zero
        k = np.searchsorted(known, size, side="right") - 1
        near = known[[max(k, 0), min(k + 1, known.size - 1)]] if k >= 0 else known[[0, 0]]
        # The sum with the offset is rounded: 2^-24 of the larger, some 2^-19 of a small number.
        off = np.abs(got[:, i, None] - near).min(-1)
        assert (off <= 2.0**-23 * (near.max() + r.offset * one)).all(), (x[i], got[:, i], near)


@every_code
def test_the_chance_of_rounding_up_is_the_part_of_the_way(name):
    """For the squares of a byte plus a sixteenth of the distance to the nearer neighbour."""
    r, draws = REFERENCES[name], 200_000
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    k = np.append(rng.integers(1, r.count - 1, 7), 1)
    unit = units(name, 8).astype(np.float64)
    known = np.stack([numbers(name, u) for u in unit])
    low, high = (np.take_along_axis(known, j[:, None], 1)[:, 0] for j in (k, k + 1))
    part = np.concatenate([rng.uniform(0, 1, 6), [1e-3, 1 - 1e-3]])
    offset = r.offset * unit
    middle = at(position(low + offset) + part / r.octave) - offset
    x = np.float32(middle * (rng.choice([-1.0, 1.0], 8) if r.signed else 1))
    noise = random(rng, (draws, 8))
    leans = name == "squares"
    got = np.asarray(decode(name, encode(name, x, leaning(noise) if leans else noise, unit), unit))
    up = np.abs(np.abs(got) - high) < np.abs(np.abs(got) - low)
    want = part + (np.minimum(part, 1 - part) / 16 if leans else 0)
    error = np.sqrt(want * (1 - want) / draws)  # of the mean of as many coins
    # Five of them, and what the sum with the offset rounds.
    assert (np.abs(up.mean(0) - want) <= 5 * error + 1e-5).all(), (up.mean(0), want)
    if r.octave >= 1:  # straight between neighbours: unbiased
        exact = low + want * (high - low)
        bias = np.abs(np.where(up, high, low).mean(0) - exact)
        assert (bias <= 5 * error * (high - low) + 1e-5 * high).all()


@pytest.mark.parametrize("name", ["squares", "magnitudes", "squares in a pair", "means alone"])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, np.uint32(0xFFFFFFFF).view(np.float32)])
def test_what_is_not_finite_has_a_code_of_its_own(name, bad):
    x, noise = np.float32([1, bad, 1]), np.int32([[0], [-1], [5]]) + np.zeros((1, 3), np.int32)
    if name == "squares in a pair":
        byte = jax.jit(lambda x, n: pair.join(pair.code(x, n), 0 * n))(x + 0 * noise, noise)
        assert (np.asarray(byte == pair.NAN) == [False, True, False]).all()
        return
    got = np.asarray(decode(name, encode(name, x, noise, np.float32(1)), np.float32(1)))
    assert (np.isnan(got) == [False, True, False]).all()


@every_code
def test_zero_stays_zero_and_denormals_are_nothing_or_the_smallest(name):
    noise = random(np.random.default_rng(0), (100, 4))
    x = np.float32([0, 1e-40, 1e-45, 1.1e-38])
    code = np.asarray(encode(name, x, noise, np.float32(1)))
    assert (code[:, 0] == 0).all()
    assert (code <= 1).all()


@pytest.mark.parametrize("name", ["squares", "magnitudes", "squares in a pair"])
def test_a_square_that_has_not_fallen_never_falls_by_rounding(name):
    rng = np.random.default_rng(0)
    old = np.repeat(np.arange(REFERENCES[name].count + 1, dtype=np.int32), 400)
    before = np.asarray(decode(name, old, np.float32(1)))
    noise = random(rng, old.shape)
    grown = before * np.float32(1 + rng.choice([0, 1e-6, 1e-3, 0.3, 10], old.shape))
    code = np.asarray(encode(name, grown, noise, np.float32(1)))
    assert (code >= old).all()
    assert (code[grown == before] == old[grown == before]).all()
    fallen = np.asarray(encode(name, np.float32(0.9) * before, noise, np.float32(1)))
    assert (fallen <= old).all()
    assert (fallen < old)[old > 1].any()  # one that has, may


@pytest.mark.parametrize("book", [SQUARES, MAGNITUDES], ids=["squares", "magnitudes"])
def test_the_unit_is_a_part_of_the_root_even_above_the_last_code(book):
    """So a mean above the range keeps its ratio to the root that is clipped beside it."""
    exponents = (-50, 100) if book is SQUARES else (-23, 50)
    x = np.float32(2.0 ** np.linspace(*exponents, 999))
    noise = random(np.random.default_rng(0), x.shape)
    code = jax.jit(book.encode)(x, noise)
    unit = np.asarray(book.units.number(code), np.float64) / MEANS.part
    root = np.sqrt(x + book.least) if book is SQUARES else x + book.least
    # Of x + least: at its least twice x. A root between two codes, a factor 1.12 apart.
    assert (unit / root).max() < 1.06 * 1.12
    assert (unit / root).min() > 1 / 1.12


def test_a_byte_holds_every_pair_of_codes():
    byte = np.arange(255, dtype=np.int32)
    square = np.asarray(jax.jit(pair.square)(byte))
    mean = np.asarray(jax.jit(pair.MEANS.decode)(byte, pair.UNITS.number(byte >> 4)))
    minus_zero = (byte & 15) == 8
    assert (mean[minus_zero] == 0).all()
    both = zip(square[~minus_zero].tolist(), mean[~minus_zero].tolist(), strict=True)
    assert len(set(both)) == 255 - 16
    assert (square == 0).tolist() == (byte == 0).tolist()
    again = jax.jit(
        lambda v, m, n: pair.join(
            c := pair.code(v, n), pair.MEANS.encode(m, pair.UNITS.number(c), n)
        )
    )(square, mean, random(np.random.default_rng(0), 255))
    np.testing.assert_array_equal(np.asarray(again)[~minus_zero], byte[~minus_zero])
