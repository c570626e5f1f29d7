# SPDX-License-Identifier: Apache-2.0
"""Landings: where a step comes to rest in a half-precision parameter, and what is kept of it."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import adamx
from adamx import health, landing
from adamx.core import random_bits
from adamx.landing import float_words
from tests import cases

HALVES = ("bfloat16", "float16")
LINKS = tuple(name for name in cases.LANDINGS if name != "nearest")
KEEPING = ("kahan", "exact", "compensated8")

every_half = pytest.mark.parametrize("dtype", HALVES)
every_link = pytest.mark.parametrize("name", LINKS)
every_keeping = pytest.mark.parametrize("name", KEEPING)
every_landing = pytest.mark.parametrize("name", cases.LANDINGS)
every_recipe = pytest.mark.parametrize("recipe", cases.RECIPES.values(), ids=cases.RECIPES)


def apply(params, updates):
    """Optax's own; float32 updates of bfloat16 parameters need JAX's usual promotion."""
    with jax.numpy_dtype_promotion("standard"):
        return optax.apply_updates(params, updates)


def stepped(opt):
    def step(g, state, p):
        updates, state = opt.update(g, state, p)
        return apply(p, updates), state

    return step


def scanned(opt, p, grads):
    """Parameters and state after all of `grads`, in one compiled scan."""

    @jax.jit
    def run(p, grads):
        def body(carry, g):
            p, state = carry
            return stepped(opt)(g, state, p), None

        return jax.lax.scan(body, (p, opt.init(p)), grads)[0]

    return run(p, grads)


def every_half_number(dtype):
    """All finite numbers of `dtype`, as JAX's and as float64."""
    p = jax.lax.bitcast_convert_type(jnp.arange(1 << 16, dtype=jnp.uint16), jnp.dtype(dtype))
    p = p[jnp.isfinite(p)]
    return p, np.asarray(p, np.float64)


def unit(x, dtype):
    """The unit in the last place of `x` in `dtype`."""
    digits, least = {"bfloat16": (8, -126), "float16": (11, -14)}[dtype]
    exponent = np.floor(np.log2(np.maximum(np.abs(x), 2.0**least)))
    return 2.0 ** (np.maximum(exponent, least) - digits + 1)


def draw(rng, dtype, size):
    """Parameters over the range in which float32 sums of them don't underflow."""
    low, high = {"bfloat16": (-60, 60), "float16": (-13, 14)}[dtype]
    return jnp.asarray(rng.choice([-1, 1], size) * 2.0 ** rng.uniform(low, high, size), dtype)


# Words


@every_half
def test_every_half_precision_number_is_the_upper_half_of_its_word(dtype):
    p, want = every_half_number(dtype)
    word = float_words.of_half(p)
    assert (np.asarray(word) & 0xFFFF == 0).all()
    got = np.asarray(float_words.value(word, p.dtype))
    np.testing.assert_array_equal(got.astype(np.float64), want)
    np.testing.assert_array_equal(np.asarray(float_words.half(word, p.dtype), np.float64), want)


@every_half
def test_a_word_holds_a_float32_and_keeps_its_order(dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 1 << 32, 1 << 18, dtype=np.uint32).view(np.float32)
    if dtype == "float16":
        x = np.float32(rng.choice([-1, 1], x.size) * 2.0 ** rng.uniform(-17, 16, x.size))
    x = np.sort(x[np.isfinite(x) & (x >= np.finfo(np.float32).tiny)])
    word = float_words.of(jnp.asarray(x), jnp.dtype(dtype))
    assert (np.diff(np.asarray(word, np.int64)) >= 0).all()
    x = np.concatenate([x, -x])
    word = float_words.of(jnp.asarray(x), jnp.dtype(dtype))
    np.testing.assert_array_equal(float_words.value(word, jnp.dtype(dtype)), x)


def test_a_word_of_float16_holds_small_numbers_to_2_to_the_minus_41():
    rng = np.random.default_rng(0)
    x = np.float32(rng.choice([-1, 1], 10_000) * 2.0 ** rng.uniform(-50, -17, 10_000))
    word = float_words.of(jnp.asarray(x), jnp.dtype("float16"))
    got = np.asarray(float_words.value(word, jnp.dtype("float16")), np.float64)
    assert np.abs(got - x).max() <= 2.0**-41


@every_half
def test_the_upper_half_is_the_nearest_number_and_the_lower_fits_16_bits(dtype):
    p, _ = every_half_number(dtype)
    rng = np.random.default_rng(0)
    low = rng.integers(-(1 << 15), 1 << 15, p.size)
    low[: p.size // 4] = rng.choice([-(1 << 15), (1 << 15) - 1, 0], p.size // 4)
    low = np.where(np.asarray(p) == 0, np.abs(low), low)  # sizes are not below zero
    word = float_words.of_half(p) + jnp.asarray(low, jnp.int32)
    upper = float_words.nearest(word)
    lower = np.asarray(word) - np.asarray(upper)
    assert (lower == lower.astype(np.int16)).all()
    np.testing.assert_array_equal(lower, np.asarray(word.astype(jnp.int16)))
    near = np.asarray(float_words.half(upper, p.dtype), np.float64)
    x = np.asarray(float_words.value(word, p.dtype))
    theirs = np.asarray(jnp.asarray(x).astype(dtype), np.float64)
    finite = np.isfinite(theirs)
    assert (np.isfinite(near) | ~finite).all()
    assert (np.abs(near - x) <= np.abs(theirs - x))[finite].all()


# Exact landings


@every_half
@every_link
def test_the_sum_that_optax_makes_needs_no_rounding(dtype, name):
    """So whatever a compiler does to the cast in `apply_updates`, the landing is the same."""
    rng = np.random.default_rng(0)
    p = draw(rng, dtype, 1 << 16)
    relative = jnp.asarray(rng.normal(size=p.size) * 2.0 ** rng.uniform(-20, 1, p.size))
    step = p.astype(jnp.float32) * relative.astype(jnp.float32)
    link = landing.NAMED[name]
    state = link.init(p)
    for _ in range(3):
        u, state = link.update(step, state, p)
        assert u.dtype == jnp.float32
        total = np.asarray(p.astype(jnp.float32)) + np.asarray(u)
        p = apply(p, u)
        assert p.dtype == dtype
        np.testing.assert_array_equal(np.asarray(p, np.float32), total)


@every_half
def test_exact_is_float32_addition_from_every_parameter(dtype):
    p, p64 = every_half_number(dtype)
    rng = np.random.default_rng(0)
    link = landing.exact()
    # Below, float16's words are coarser than float32, and XLA:CPU takes subnormal steps for 0.
    least = 2.0**-17 if dtype == "float16" else 2.0**-95
    most = float(jnp.finfo(dtype).max)
    for scale in (1e-7, 1e-4, 1e-2, 1.0, 10.0):
        low = jnp.asarray(rng.integers(-(1 << 15), 1 << 15, p.size), jnp.int16)
        if dtype == "float16":
            low = low & ~7  # where it is normal, float32 has 13 bits more
        state = link.init(p)._replace(remainder=low)
        old = np.asarray(adamx.master_params(state, p))
        with np.errstate(over="ignore", invalid="ignore"):
            step = np.float32(rng.normal(size=p.size) * scale * np.maximum(np.abs(p64), least))
            target = old + step
        sure = (np.abs(target) >= np.maximum(least, 2.0**-15 * np.abs(p64))) & (
            (np.abs(old) >= least) & (np.abs(target) <= most) & (np.abs(step) < 3.3e38)
        )
        assert sure.mean() > 0.4
        u, state = link.update(jnp.asarray(step), state, p)
        new = apply(p, u)
        got = np.asarray(adamx.master_params(state, new))
        np.testing.assert_array_equal(got[sure], target[sure])
        new, target = np.asarray(new, np.float64)[sure], target[sure]
        assert (np.abs(new - target) <= 0.5 * unit(target, dtype)).all()


@every_half
def test_a_step_that_undoes_a_parameter_is_landed_to_its_own_rounding(dtype):
    """Where p + u can't be the target, what is missed is less than a digit of the step."""
    rng = np.random.default_rng(0)
    p = draw(rng, dtype, 1 << 16)
    p = p.at[: 1 << 15].set(jnp.asarray(2.0 ** rng.integers(-10, 10, 1 << 15), dtype))
    link = landing.exact()
    low = jnp.asarray(rng.integers(-(1 << 15), 1 << 15, p.size), jnp.int16)
    state = link.init(p)._replace(remainder=low & ~7)
    old = np.asarray(adamx.master_params(state, p))
    step = (-old.view(np.int32) ^ 0).view(np.int32)
    step = (old.view(np.int32) + rng.integers(-300, 300, p.size).astype(np.int32)).view(np.float32)
    target = old - step
    u, state = link.update(jnp.asarray(-step), state, p)
    new = apply(p, u)
    got = np.asarray(adamx.master_params(state, new), np.float64)
    small = 2.0**-41 if dtype == "float16" else 0.0
    assert (np.abs(got - target) <= 2.0**-24 * np.abs(np.asarray(p, np.float64)) + small).all()
    if dtype == "bfloat16":  # and mostly nothing is missed
        assert (got == target).mean() > 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_exact_takes_the_trajectory_of_a_float32_run_bit_for_bit(seed):
    """2,000 steps of AdamW with decay and schedule, both runs fed the same bfloat16 gradients."""
    rng = np.random.default_rng(seed)
    steps, size = 2_000, 64
    p = jnp.asarray(rng.normal(size=size), jnp.bfloat16)
    grads = jnp.asarray(rng.normal(size=(steps, size)) * rng.normal(size=size), jnp.bfloat16)

    def rate(count):
        t = count.astype(jnp.float32)
        return 1e-2 * jnp.minimum(t / 100, 1 - t / steps)

    build = functools.partial(adamx.adamw, rate, weight_decay=0.1)
    want, _ = scanned(build(), p.astype(jnp.float32), grads)
    got, state = scanned(build(landing="exact"), p, grads)
    np.testing.assert_array_equal(adamx.master_params(state, got), want)
    assert (np.sign(np.asarray(want)) != np.sign(np.asarray(p, np.float32))).any()  # zero crossed
    stalled, _ = scanned(build(), p, grads)
    assert (np.asarray(stalled) != np.asarray(got)).mean() > 0.5


@pytest.mark.optimized
def test_exact_takes_the_trajectory_of_a_float32_run_in_float16_away_from_zero():
    rng = np.random.default_rng(0)
    p = jnp.asarray(rng.uniform(1, 2, 64), jnp.float16)
    grads = jnp.asarray(rng.normal(size=(1_000, 64)), jnp.float16)
    build = functools.partial(adamx.adamw, 1e-3, weight_decay=0.1)
    want, _ = scanned(build(), p.astype(jnp.float32), grads)
    got, state = scanned(build(landing="exact"), p, grads)
    np.testing.assert_array_equal(adamx.master_params(state, got), want)


@pytest.mark.optimized
def test_exact_follows_gradients_that_the_bfloat16_parameters_gave():
    rng = np.random.default_rng(0)
    curvature = jnp.asarray(2.0 ** rng.uniform(-4, 4, 64), jnp.bfloat16)
    p = jnp.asarray(rng.normal(size=64), jnp.bfloat16)
    opt, plain = adamx.adamw(3e-3, landing="exact"), adamx.adamw(3e-3)
    state, w = opt.init(p), p.astype(jnp.float32)
    theirs = plain.init(w)
    ours, alike = jax.jit(stepped(opt)), jax.jit(stepped(plain))
    for _ in range(300):
        g = curvature * p
        (p, state), (w, theirs) = ours(g, state, p), alike(g, theirs, w)
        np.testing.assert_array_equal(adamx.master_params(state, p), w)


@cases.each_rule
def test_every_recipe_lands_exactly_on_its_float32_run(recipe):
    rng = np.random.default_rng(0)
    steps = 20
    p = jnp.asarray(rng.normal(size=(4, 8)), jnp.bfloat16)
    grads = jnp.asarray(rng.normal(size=(steps, 4, 8)), jnp.bfloat16)
    kwargs = {"weight_decay": 10.0}  # of a rounded parameter a run is off by up to 5,000 units
    want, _ = scanned(recipe(**kwargs), p.astype(jnp.float32), grads)
    got, state = scanned(recipe(**kwargs, landing="exact"), p, grads)
    # A unit in the last place per step: LLVM may contract `p + lr * step` in one of the programs.
    np.testing.assert_allclose(
        adamx.master_params(state, got), want, rtol=steps * 2.0**-23, atol=1e-8
    )


@pytest.mark.parametrize(
    "dtype, name",
    [
        pytest.param(dtype, name, marks=() if fast else pytest.mark.slow)
        for dtype in HALVES
        for name in LINKS
        for fast in [dtype == "bfloat16" or name == "exact"]
    ],
)
def test_every_way_to_run_it_lands_alike(dtype, name):
    """To the last bit, given the same steps: compiled in pieces, in one, or several steps in one,
    where XLA may leave out the rounding between them."""
    rng = np.random.default_rng(0)
    p0 = {"w": draw(rng, dtype, 256), "x": jnp.ones(3)}
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), p0)
    steps = [jax.tree.map(lambda g, p: 0.01 * g * p, cases.grads(wide, i), wide) for i in range(4)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *steps)
    link = landing.NAMED[name]

    def run(p, steps, step):
        state = link.init(p)
        for u in steps:
            p, state = step(u, state, p)
        return p, state

    def whole(p, steps):
        return run(p, steps, stepped(link))

    def copies(n):
        return jax.tree.map(lambda x: jnp.stack([x] * n), steps)

    want = run(p0, steps, stepped(link))
    ways = {
        "jit": run(p0, steps, jax.jit(stepped(link))),
        "scan": scanned(link, p0, stacked),
        "unrolled": jax.jit(whole)(p0, steps),
        "vmap": jax.jit(jax.vmap(whole, (None, 0)))(p0, copies(2)),
        "pmap": jax.pmap(whole, in_axes=(None, 0))(p0, copies(8)),
    }
    for way, got in ways.items():
        got = jax.tree.map(lambda x: x[1], got) if way in ("vmap", "pmap") else got
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=way)


@every_landing
def test_a_recipe_lands_alike_eager_and_compiled(name):
    p0 = jnp.asarray(np.random.default_rng(0).normal(size=256), jnp.bfloat16)
    opt = adamx.adamw(1e-2, weight_decay=0.1, landing=name)
    grads = jnp.stack([cases.grads(p0, seed) for seed in range(6)])
    p, state = p0, opt.init(p0)
    for g in grads:
        p, state = stepped(opt)(g, state, p)
    chex.assert_trees_all_equal((p, state), scanned(opt, p0, grads))


# Chance


@every_half
@pytest.mark.parametrize("name", ["stochastic", "kahan", "compensated8"])
def test_landings_by_chance_are_unbiased(dtype, name):
    """100,000 draws each: five standard deviations of their mean."""
    rng = np.random.default_rng(0)
    draws = 100_000
    p = draw(rng, dtype, 12)
    if dtype == "float16":
        p = p.at[:4].set(jnp.asarray([2.0**-24, 3 * 2.0**-20, 0.0, 2.0**-15], dtype))
    relative = rng.normal(size=12) * 2.0 ** rng.uniform(-16, 0, 12)
    size = np.maximum(np.abs(np.asarray(p, np.float64)), 2.0**-14 if dtype == "float16" else 0)
    step = jnp.asarray(size * relative, jnp.float32)
    target = np.asarray(p, np.float64) + np.asarray(step, np.float64)
    many = jnp.broadcast_to(p, (draws, 12))
    link = landing.NAMED[name]
    u, state = jax.jit(link.update)(jnp.broadcast_to(step, many.shape), link.init(many), many)
    got = np.asarray(adamx.master_params(state, apply(many, u)), np.float64)
    spread = 5 * got.std(0) / np.sqrt(draws)
    # The target itself is a float32 sum, and float16's words end at 2^-40.
    assert (np.abs(got.mean(0) - target) <= spread + 2.0**-24 * np.abs(target) + 2.0**-41).all()
    grain = {"stochastic": 1, "kahan": 2.0**-8, "compensated8": 2.0**-8}[name]
    assert (np.ptp(got, axis=0) <= grain * unit(target, dtype) * 1.001).all()
    assert (got.std(0) > 0).any()


def test_the_noise_of_landings_is_not_that_of_storages():
    p = jnp.ones(1_000, jnp.bfloat16)
    opt = adamx.adam(2.0**-9, storage="bfloat16", landing="stochastic")
    u, state = opt.update(p, opt.init(p), p)
    by_landing = np.asarray(u) != 0
    words = random_bits.words(0, jnp.int32(0), random_bits.salt("leaf"))
    key = random_bits.Key(words)
    theirs = np.asarray(random_bits.noise(key, p.shape).draw(1)) >= 0
    assert abs(np.corrcoef(by_landing, theirs)[0, 1]) < 5 / np.sqrt(1_000)
    other = adamx.adam(2.0**-9, landing=landing.stochastic(seed=1))
    v, _ = other.update(p, other.init(p), p)
    assert 0.2 < (np.asarray(u) != np.asarray(v)).mean() < 0.8
    w, _ = opt.update(p, state, p)
    assert 0.2 < (np.asarray(u) != np.asarray(w)).mean() < 0.8


@every_landing
@every_half
def test_a_decay_of_1e_4_times_the_rate_is_not_lost(name, dtype):
    """To nearest it is: half a unit of bfloat16 is a thousand times as much."""
    steps, size = 500, 1 << 15
    p = jnp.asarray(np.random.default_rng(0).uniform(1, 2, size), dtype)
    opt = adamx.adamw(1e-2, weight_decay=1e-4, landing=name)
    got, state = scanned(opt, p, jnp.zeros((steps, size), dtype))
    weights = np.asarray(adamx.master_params(state, got), np.float64)
    start = np.asarray(p, np.float64)
    moved = (weights / start).mean() - 1
    if name == "nearest":
        return np.testing.assert_array_equal(got, p)
    # A float32 weight is off by at most half a unit a step, 6e-8 of 1e-6 and on average none;
    # by chance, 500 steps of 1e-6 in units of 2^-7 come to sqrt(5e-4 / 128 / 32768) = 1.1e-5.
    tolerance = 5.5e-5 if name == "stochastic" else 1.5e-5
    assert abs(moved - ((1 - 1e-6) ** steps - 1)) < tolerance
    return None


@every_half
def test_small_steps_add_up_in_all_but_nearest(dtype):
    p = jnp.ones(1 << 14, dtype)
    for name in cases.LANDINGS:
        opt = (
            optax.chain(optax.identity(), landing.NAMED[name]) if name in LINKS else optax.sgd(-1.0)
        )
        g = jnp.full((100, p.size), 2.0**-16, jnp.float32 if name in LINKS else dtype)
        got, state = scanned(opt, p, g)
        moved = float(jnp.mean(adamx.master_params(state, got) - 1))
        if name == "nearest":
            assert moved == 0
        else:  # sqrt(100 * 2^-16 * 2^-7 / 2^14) = 2.7e-5 by chance
            assert abs(moved - 100 * 2.0**-16) < (1.4e-4 if name == "stochastic" else 2e-6)


# Hostile numbers


@every_half
@every_landing
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_step_that_is_not_finite_stays_visible(dtype, name, bad):
    opt = adamx.adam(0.1, landing=name)
    p = jnp.ones(3, dtype)
    p, state = stepped(opt)(jnp.asarray([1, bad, 1], dtype), opt.init(p), p)
    assert np.isfinite(np.asarray(p, np.float32)).tolist() == [True, False, True]
    p, state = stepped(opt)(jnp.ones(3, dtype), state, p)
    assert np.isfinite(np.asarray(p, np.float32)).tolist() == [True, False, True]
    assert np.isfinite(np.asarray(adamx.master_params(state, p))).tolist() == [True, False, True]


@every_half
@every_link
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bare_step_or_parameter_that_is_not_finite_stays_visible(dtype, name, bad):
    link = landing.NAMED[name]
    p = jnp.ones(2, dtype)
    got, state = stepped(link)(jnp.asarray([bad, 1.0]), link.init(p), p)
    np.testing.assert_array_equal(np.asarray(got, np.float32), np.float32([bad, 2.0]))
    np.testing.assert_array_equal(adamx.master_params(state, got), np.float32([bad, 2.0]))
    p = jnp.asarray([bad, 1.0], dtype)
    got, state = stepped(link)(jnp.ones(2), link.init(p), p)
    assert not np.isfinite(np.asarray(got, np.float32)[0])
    assert float(got[1]) == 2


@every_half
@every_link
def test_a_step_beyond_the_largest_number_is_to_be_seen(dtype, name):
    most = float(jnp.finfo(dtype).max)
    p = jnp.asarray([most, -most, most, 0.9 * most], dtype)
    link = landing.NAMED[name]
    got, _ = stepped(link)(
        jnp.asarray([0.5, -0.5, -0.9, 1e-3], jnp.float32) * most, link.init(p), p
    )
    assert np.isinf(np.asarray(got, np.float32)).tolist() == [True, True, False, False]
    # What to nearest would stay stays, also by chance.
    nudge = 0.4 * unit(most, dtype)
    p = jnp.full(1_000, most, dtype)
    got, _ = stepped(link)(jnp.full(1_000, nudge, jnp.float32), link.init(p), p)
    assert (np.asarray(got, np.float32) == most).all()


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(LINKS),
    st.sampled_from(HALVES),
    st.integers(0, (1 << 16) - 1),
    st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=False),
    st.integers(0, (1 << 16) - 1),
)
def test_any_parameter_step_and_remainder_land_within_a_unit_of_their_sum(
    name, dtype, pattern, step, left
):
    half = jnp.dtype(dtype)
    p = jax.lax.bitcast_convert_type(jnp.uint16(pattern), half)
    link = landing.NAMED[name]
    state = link.init(p)
    if state.remainder is not None:
        rest = state.remainder.dtype
        bits = jnp.asarray(left % (1 << (8 * rest.itemsize)), f"uint{8 * rest.itemsize}")
        rest = jax.lax.bitcast_convert_type(bits, rest)
        if not np.isfinite(float(rest)):
            return
        state = state._replace(remainder=rest)
    start = float(p)
    if np.isfinite(start) and 0 < abs(start) < 2.0**-126:
        return  # XLA:CPU takes it for 0
    kept = float(adamx.master_params(state, p))
    new, state = stepped(link)(jnp.float32(step), state, p)
    weight = float(adamx.master_params(state, new))
    if not np.isfinite(start) or not np.isfinite(step):
        assert not np.isfinite(float(new))
        return
    assert abs(kept - start) <= unit(start, dtype)  # a stale remainder does no more than that
    total = kept + step
    if abs(total) <= 0.99 * float(jnp.finfo(half).max):
        rounding = 2.0**-23 * max(abs(kept), abs(step)) + 2.0**-126
        assert abs(float(new) - total) <= unit(total, dtype) + rounding
        assert abs(weight - float(new)) <= unit(float(new), dtype)


@every_half
@every_keeping
def test_parameters_changed_from_outside_take_at_most_a_unit_along(dtype, name):
    rng = np.random.default_rng(0)
    p = draw(rng, dtype, 4_000)
    link = landing.NAMED[name]
    step = p.astype(jnp.float32) * jnp.asarray(rng.normal(size=p.size), jnp.float32)
    _, state = stepped(link)(step, link.init(p), p)
    for other in (draw(rng, dtype, p.size), jnp.zeros_like(p)):
        got = np.asarray(adamx.master_params(state, other), np.float64)
        off = np.abs(got - np.asarray(other, np.float64))
        assert (off <= unit(np.asarray(other, np.float64), dtype)).all()


# State


@pytest.mark.parametrize(
    "recipe, name",
    [
        # No landing sees a recipe: some recipes by default, and each landing once.
        pytest.param(recipe, name, id=f"{key}-{name}", marks=() if fast else pytest.mark.slow)
        for key, recipe in cases.RECIPES.items()
        for name in cases.LANDINGS
        for fast in [key == "adamw" or (name == "kahan" and key in ("adan", "lion", "lamb"))]
    ],
)
def test_states_never_change_their_form_and_nothing_compiles_twice(recipe, name):
    opt = recipe(landing=name)
    p = cases.TREES["mixed dtypes"]() | {"n": None}
    state = opt.init(p)
    traces = 0

    @jax.jit
    def step(g, state, p):
        nonlocal traces
        traces += 1
        return stepped(opt)(g, state, p)

    first = step(cases.grads(p), state, p)
    second = step(cases.grads(p, 2), first[1], first[0])
    assert traces == 1
    chex.assert_trees_all_equal_shapes_and_dtypes((p, state), first, second)
    chex.assert_tree_all_finite(second)
    weak = [x for x in jax.tree.leaves((state, second)) if getattr(x, "weak_type", False)]
    assert not weak


@every_recipe
def test_the_default_landing_changes_nothing(recipe):
    p, g = cases.params("bfloat16"), cases.grads(cases.params("bfloat16"))
    opts = recipe(), recipe(landing="nearest"), recipe(landing=landing.nearest)
    first, *others = (opt.update(g, opt.init(p), p) for opt in opts)
    for other in others:
        chex.assert_trees_all_equal(first, other)
    if recipe.in_optax:
        assert jax.tree.structure(first[1]) == jax.tree.structure(recipe.of_optax().init(p))
    links = len(recipe().init(p))
    for name in LINKS:
        assert len(recipe(landing=name).init(p)) == links + 1


def test_recipes_with_equal_landings_are_equal():
    assert adamx.adam(0.1, landing="exact") == adamx.adam(0.1, landing="exact")
    assert adamx.adam(0.1, landing=landing.kahan(3)) == adamx.adam(0.1, landing=landing.kahan(3))
    assert adamx.adam(0.1, landing=landing.kahan(3)) != adamx.adam(0.1, landing="kahan")


@every_half
def test_remainders_take_the_bytes_they_promise(dtype):
    p = {"w": jnp.ones((8, 8), dtype), "x": jnp.ones(5)}
    for name, dtypes in {"exact": "int16", "compensated8": "int8", "kahan": dtype}.items():
        state = landing.NAMED[name].init(p)
        assert state.remainder["w"].dtype == dtypes
        assert state.remainder["w"].shape == (8, 8)
        assert state.remainder["x"] == optax.MaskedNode()
    assert landing.exact().init(p).draws is None
    assert landing.stochastic().init(p).remainder is None


@pytest.mark.filterwarnings("ignore:landing 'compensated8' does nothing")
@pytest.mark.parametrize("tree", cases.TREES.values(), ids=cases.TREES)
def test_every_tree_lands(tree):
    opt, p = adamx.adam(0.1, landing="compensated8"), tree()
    state = opt.init(p)
    g = jax.tree.map(lambda x: 0.5 * x, p)
    updates, new = opt.update(g, state, p)
    assert jax.tree.structure(updates) == jax.tree.structure(p)
    chex.assert_trees_all_equal_structs(state, new)
    assert jax.tree.structure(adamx.master_params(new, apply(p, updates))) == jax.tree.structure(p)


@every_half
@every_link
def test_init_needs_shapes_only(dtype, name):
    p = cases.params(dtype)
    shapes = jax.eval_shape(lambda: p)
    opt = adamx.adam(0.1, landing=name)
    chex.assert_trees_all_equal_shapes_and_dtypes(opt.init(shapes), opt.init(p))
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(opt.init, shapes), opt.init(p))


@every_keeping
def test_the_remainder_keeps_its_parameters_sharding(name):
    mesh = Mesh(np.array(jax.devices()), "x")
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    p = jax.device_put(jnp.ones((16, 3), jnp.bfloat16), sharding)
    link = landing.NAMED[name]
    assert link.init(p).remainder.sharding.is_equivalent_to(sharding, 2)


@every_link
def test_landings_do_not_depend_on_sharding(name):
    mesh = Mesh(np.array(jax.devices()), "x")
    plain = jnp.asarray(np.random.default_rng(0).normal(size=(16, 8)), jnp.bfloat16)
    spread = jax.device_put(plain, NamedSharding(mesh, PartitionSpec("x")))
    opt = adamx.adam(1e-3, landing=name)
    step = jax.jit(stepped(opt))
    results = [step(p, opt.init(p), p) for p in (plain, spread)]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@every_link
def test_no_buffer_is_shared_and_all_may_be_donated(name):
    opt = adamx.adamw(0.1, landing=name)
    p = cases.params("bfloat16")
    state = opt.init(p)
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((p, state)) if x.size]
    assert len(set(pointers)) == len(pointers)
    step = jax.jit(lambda s, p: stepped(opt)(p, s, p)[::-1], donate_argnums=(0, 1))
    state, p = step(state, p)
    state, p = step(state, p)
    chex.assert_tree_all_finite((state, p))


@every_half
@every_link
def test_exports_for_every_platform(dtype, name):
    p = cases.params(dtype)
    opt = adamx.adamw(0.1, landing=name)
    step = jax.jit(stepped(opt))
    exported = export.export(step, platforms=("cpu", "cuda", "rocm", "tpu"))(p, opt.init(p), p)
    assert exported.platforms == ("cpu", "cuda", "rocm", "tpu")


@every_link
def test_a_landing_ends_a_chain_of_optaxs(name):
    rng = np.random.default_rng(0)
    p = {"w": jnp.asarray(rng.normal(size=256), jnp.bfloat16), "x": jnp.ones(2)}
    with jax.numpy_dtype_promotion("standard"):
        opt = optax.chain(optax.adamw(1e-3), landing.NAMED[name])
        state = opt.init(p)
        g = jax.tree.map(jnp.ones_like, p)
        updates, state = opt.update(g, state, p)
        bare, _ = optax.adamw(1e-3).update(g, optax.adamw(1e-3).init(p), p)
    assert jax.tree.map(lambda x: str(x.dtype), updates) == {"w": "float32", "x": "float32"}
    np.testing.assert_array_equal(updates["x"], bare["x"])
    got = adamx.master_params(state, apply(p, updates))
    want = np.asarray(p["w"], np.float32) + np.asarray(bare["w"], np.float32)
    tolerance = {"stochastic": 2.0**-7, "exact": 0.0}.get(name, 2.0**-15)
    np.testing.assert_allclose(got["w"], want, rtol=tolerance)


@every_half
@every_link
def test_derivatives_go_through_a_landing_as_if_nothing_were_rounded(dtype, name):
    p, g = jnp.asarray([1.0, -2.0], dtype), jnp.asarray([3.0, 1.0], dtype)
    opt = adamx.adamw(0.1, weight_decay=0.5, landing=name)

    def total(rate, wide):
        p = wide.astype(dtype)
        updates, _ = opt.update(g, opt.init(p), p, learning_rate=rate)
        return jnp.sum(p.astype(jnp.float32) + updates)

    by_rate, by_p = jax.jit(jax.grad(total, (0, 1)))(jnp.float32(0.1), p.astype(jnp.float32))
    np.testing.assert_allclose(by_rate, -((1 + 0.5) + (1 - 1.0)), rtol=1e-5)  # the signs, the decay
    np.testing.assert_allclose(by_p, [0.95, 0.95], rtol=4e-3)  # a cotangent rests in `dtype`


CONDITIONAL = {
    "apply_if_finite": lambda opt: optax.apply_if_finite(opt, 3),
    "conditionally_mask": lambda opt: optax.conditionally_mask(
        opt, lambda step, **_: step % 2 == 0
    ),
    "conditionally_transform": lambda opt: optax.conditionally_transform(
        opt, lambda step, **_: step % 2 == 0
    ),
}


@pytest.mark.parametrize("wrap", CONDITIONAL.values(), ids=CONDITIONAL)
def test_conditions_of_optax_take_a_landing_with_float32_gradients(wrap):
    opt, p = wrap(adamx.adam(1e-3, landing="exact")), jnp.ones(3, jnp.bfloat16)
    state = opt.init(p)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = jax.jit(opt.update)(jnp.ones(3), state, p)
        assert updates.dtype == jnp.float32
        with pytest.raises(TypeError, match="must have equal"):  # of XLA's branches, Optax's own
            opt.update(p, state, p)


# master_params


def wrapped():
    def exact(**kwargs):
        return adamx.adamw(1e-2, landing="exact", **kwargs)

    return {
        "recipe": exact(),
        "chain": optax.chain(optax.clip(1.0), exact()),
        "inject_hyperparams": optax.inject_hyperparams(adamx.adamw)(1e-2, landing="exact"),
        "MultiSteps": optax.MultiSteps(exact(), 2),
        "masked": optax.masked(exact(), {"a": True, "b": True, "c": False}),
        "partition": optax.partition(
            {
                "one": exact(),
                "two": adamx.lion(1e-3, landing="compensated8"),
                "off": optax.sgd(0.0),
            },
            {"a": "one", "b": "two", "c": "off"},
        ),
    }


@pytest.mark.parametrize("opt", wrapped().values(), ids=wrapped())
def test_master_params_finds_remainders_wherever_they_are(opt):
    rng = np.random.default_rng(0)
    p = {k: jnp.asarray(rng.normal(size=50), jnp.bfloat16) for k in "ab"} | {"c": jnp.ones(2)}
    step = jax.jit(stepped(opt))
    with jax.numpy_dtype_promotion("standard"):
        state = opt.init(p)
        for seed in range(2):
            p, state = step(cases.grads(p, seed), state, p)
    got = adamx.master_params(state, p)
    for key in "ab":
        assert got[key].dtype == jnp.float32
        near = np.asarray(p[key], np.float64)
        off = np.abs(np.asarray(got[key], np.float64) - near)
        assert (off <= unit(near, "bfloat16")).all()
        assert (off > 0).mean() > 0.5
    np.testing.assert_array_equal(got["c"], p["c"])


def test_master_params_are_not_those_of_a_snapshot():
    opt = health.rewind(adamx.adamw(1e-2, landing="exact"))
    p = {"a": jnp.ones(5, jnp.bfloat16)}
    state = opt.init(p)
    for _ in range(2):
        p, state = adamx.step(opt, p, state, p, value=jnp.float32(1.0))
    want = state.inner[-1].remainder["a"]
    got = adamx.master_params(state, p)["a"]
    np.testing.assert_array_equal(got, landing.split_words.weight(p["a"], want))


def test_master_params_without_a_landing_are_the_parameters():
    p = cases.params("float16")
    got = adamx.master_params(adamx.adam(0.1).init(p), p)
    chex.assert_trees_all_equal(got, jax.tree.map(lambda x: x.astype(jnp.float32), p))


def test_optax_maps_over_the_state_of_a_landing():
    p = cases.params("bfloat16")
    opt = adamx.adamw(0.1, landing="compensated8")
    state = opt.init(p)
    seen = optax.tree.map_params(opt, lambda x: x.shape, state)
    assert seen[-1].remainder == jax.tree.map(lambda x: x.shape, p)
    assert seen[-1].draws == 0
    assert optax.tree.get(state, "count") == 0


# Errors


def test_errors_name_what_is_wrong():
    p = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(2, jnp.bfloat16)}
    exact, kahan = landing.exact(), landing.kahan()
    opt = adamx.adam(0.1, landing="exact")
    both = optax.chain(landing.exact(), landing.kahan())
    short = {"a": jnp.ones(3, jnp.bfloat16)}
    bad = [
        (lambda: adamx.adam(0.1, landing="softly"), "`landing` must be one of 'nearest', 'sto"),
        (lambda: adamx.adam(0.1, landing=3), "`landing` must be one of 'nearest', 'stochastic'"),
        (lambda: exact.update(p, exact.init(p)), "exact: a landing needs the parameters: call"),
        (lambda: opt.update(p, opt.init(p)), "exact: a landing needs the parameters: call"),
        (
            lambda: exact.update(p, kahan.init(p), p),
            "a: the remainder of a bfloat16 parameter must",
        ),
        (lambda: exact.update(p, optax.EmptyState(), p), "exact: the state is a EmptyState, expec"),
        (lambda: exact.update(p, exact.init(short), p), "b: the step has this leaf, the state's"),
        (
            lambda: exact.update(p, exact.init(p), short),
            "b: the step has this leaf, the tree of parameters does not",
        ),
        (lambda: exact.update({**p, "a": jnp.ones(2)}, exact.init(p), p), "a: step has shape (2,)"),
        (lambda: opt.update(p, adamx.adam(0.1).init(p), p), "a tuple of 3 parts"),
        (lambda: adamx.master_params(both.init(p), p), "a: two landings in the state"),
        (lambda: adamx.master_params(exact.init(p), short), "b: the state has a remainder for"),
        (
            lambda: adamx.master_params(exact.init(p), {**p, "b": jnp.ones(2)}),
            "b: the state's remainder is for a half-precision parameter of shape (2,), got float32",
        ),
    ]
    for build, message in bad:
        with pytest.raises((ValueError, TypeError), match=re.escape(message)):
            build()
