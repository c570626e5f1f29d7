# SPDX-License-Identifier: Apache-2.0
"""A loop in C++ never changes the meaning: the same states and parameters with and without it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx import kernels
from tests import cases
from tests.products import rest_slow, values_in_turn

pytestmark = [
    pytest.mark.optimized,
    pytest.mark.skipif(not kernels.available(), reason=str(kernels.available())),
]

RECIPES = cases.RECIPES | cases.VARIANTS

# Of sums of two products LLVM rounds one product or the other; atan2 is another polynomial.
ROUNDS_APART = {"nadam", "nadamw", "nadam torch", "radam nesterov", "adabelief nesterov"}
ROUNDS_APART |= {"adan", "adam atan2"}
WITHOUT = {"adopt nesterov", "lion smooth", "lion refined", "ademamix", "ademamix warming"}
WITHOUT |= {"simplified_ademamix", "laprop", "spam", "spam often"}


TWINS = [name for name in RECIPES if name not in WITHOUT]
SMALL = ("bfloat16", "int8", "int4")  # in float32, XLA makes directions as fast
DTYPES = ("float32", "bfloat16")


def gradients(shape, dtype, steps=4, seed=0):
    """Of all magnitudes, with zeros; the last but one has what is hard in it."""
    rng = np.random.default_rng(seed)
    found = [rng.normal(size=shape) * 10.0 ** rng.integers(-9, 4, size=shape) for _ in range(steps)]
    for g in found:
        g[rng.random(shape) < 0.1] = 0
    odd = [1e-40, -1e-40, 1e-30, 1e20, -3e38, 0.0, -0.0, 6e-8]
    found[-2].reshape(-1)[: len(odd)] = odd[: found[-2].size]
    return [jnp.asarray(g, jnp.float32).astype(dtype) for g in found]


def calls(function, *args):
    """How many loops a compiled function calls."""
    return function.lower(*args).as_text().count("stablehlo.custom_call @adamx_")


def directions(opt, params, grads, loops):
    with kernels.using(loops):
        update, state = jax.jit(opt.update), opt.init(params)
        assert calls(update, grads[0], state, params) == loops
        for g in grads:
            found, state = update(g, state, params)
    return found, state


def test_most_formulas_have_a_twin():
    with kernels.using(True):
        for name, recipe in RECIPES.items():
            opt, x = recipe.scale_by(storage="bfloat16"), jnp.ones(4)
            found = calls(jax.jit(opt.update), x, opt.init(x), x)
            assert found == (name not in WITHOUT), name


@rest_slow(
    "name, storage, dtype",
    itertools.product(TWINS, SMALL, DTYPES),
    zip(TWINS, itertools.cycle(SMALL), itertools.cycle(DTYPES)),
)
def test_directions_and_moments_are_the_same(name, storage, dtype):
    params = jnp.ones((37, 29), dtype)
    opt, grads = RECIPES[name].scale_by(storage=storage), gradients(params.shape, dtype)
    if name.startswith("adabelief") and storage in ("int8", "int4"):
        pytest.skip("AdaBelief's mean beside a code is stepped by XLA")
    if name == "adan" and storage == "int4":
        pytest.skip("three moments beside a byte for two are stepped by XLA")
    (got, state), (want, wanted) = (directions(opt, params, grads, k) for k in (True, False))
    for a, b in zip(*map(jax.tree.leaves, (state, wanted)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    got, want = (np.asarray(x, np.float32) for x in (got, want))
    if name not in ROUNDS_APART:
        np.testing.assert_array_equal(got, want)
    # Two roundings of a term that may be some times larger than the sum.
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=4e-7 * np.abs(want).max())


PRECISIONS = [
    ("float32", "float32", "nearest"),
    ("float32", "bfloat16", "nearest"),
    *itertools.product(["bfloat16"], ["float32", "bfloat16"], cases.LANDINGS),
]
DECAYS = {
    "none": {"weight_decay": None},
    "some": {"weight_decay": 0.1, "mask": "k"},
    "scheduled": {"weight_decay": lambda count: 0.1 / (1 + count.astype(jnp.float32))},
    "independent": {"weight_decay": adamx.decay.independent(1e-3)},
}


def tree(dtype, seed=1):
    rng = np.random.default_rng(seed)
    shapes = {"k": (37, 29), "b": (33,), "s": (), "none": (0, 3)}
    return {k: jnp.asarray(rng.normal(size=v) * 0.1, dtype) for k, v in shapes.items()}


def steps(opt, params, grads, loops):
    step = adamx.jit_step(opt, kernels=loops)
    params, state = jax.tree.map(jnp.copy, params), opt.init(params)
    lowered = step.lower(params, state, grads[0]).as_text()
    assert lowered.count("stablehlo.custom_call @adamx_step") == loops * len(params)
    for g in grads:
        params, state = step(params, state, g)
    return params, state


@values_in_turn("precision, storage, decay", PRECISIONS, ["float32", "int8"], DECAYS)
def test_whole_steps_are_the_same(precision, storage, decay):
    dtype, gradient, landing = precision
    params = tree(dtype)
    rows = [tree(gradient, seed) for seed in range(3)]
    rate = falling if decay == "some" else 1e-2
    opt = adamx.adamw(rate, storage=storage, landing=landing, **DECAYS[decay])
    (got, state), (want, wanted) = (steps(opt, params, rows, k) for k in (True, False))
    if decay == "independent" and dtype == "bfloat16":
        # p - r u - w p has two sums of products, whose roundings LLVM chooses.
        close(adamx.master_params(state, got), adamx.master_params(wanted, want), 2e-6, dtype)
        return
    for a, b in zip(*map(jax.tree.leaves, ((got, state), (want, wanted))), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))


def falling(count):
    return 1e-2 / (1 + count.astype(jnp.float32))


def close(got, want, rtol, dtype):
    unit = 2.0**-7 if dtype == "bfloat16" else 0  # a parameter may round the other way
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol + unit)


STEPPED = sorted(set(cases.RECIPES) - {"adabelief", "adopt", "adan", *WITHOUT})


@values_in_turn("name, storage", STEPPED, ["float32", "bfloat16", "int4"])
def test_whole_steps_of_every_recipe_are_the_same(name, storage):
    params, rows = tree("float32"), [tree("float32", seed) for seed in range(3)]
    opt = cases.RECIPES[name](storage=storage)
    # A trust ratio or a correction beside the rule leaves only its direction to a loop; the formula
    # of StableAdamW has none.
    whole = name not in ("lamb", "mars", "stable_adamw")
    found = []
    for loops in (True, False):
        step, state = adamx.jit_step(opt, kernels=loops), opt.init(params)
        moved = jax.tree.map(jnp.copy, params)
        text = step.lower(moved, state, rows[0]).as_text()
        assert text.count("custom_call @adamx_step") == loops * whole * 4
        alone = not whole and storage != "float32" and name != "stable_adamw"
        assert text.count("custom_call @adamx_direction") == loops * alone * 4
        for g in rows:
            moved, state = step(moved, state, g)
        found.append((moved, state))
    apart = name in ROUNDS_APART
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        a, b = (np.asarray(x, np.float32) for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=1e-6 * apart, atol=1e-8 * apart)


@pytest.mark.parametrize("kwargs", [{"b2": 0.0}, {"b1": 0.0}, {"eps": 0.0}, {"b1": 0.3, "b2": 0.2}])
@pytest.mark.parametrize("name", ["adam", "amsgrad", "radam", "adamax", "yogi"])
def test_unusual_hyperparameters_give_the_same(name, kwargs):
    kwargs = {k: v for k, v in kwargs.items() if (name, k) != ("yogi", "b2")}
    params = jnp.ones((7, 5))
    opt = getattr(adamx, f"scale_by_{name}")(storage="bfloat16", **kwargs)
    grads = gradients(params.shape, "float32")
    got, want = (directions(opt, params, grads, k) for k in (True, False))
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=3e-7, atol=1e-7 * np.abs(b).max())


@pytest.mark.parametrize("storage", SMALL)
def test_what_is_not_finite_shows_in_the_same_places(storage):
    params = jnp.ones(64)
    g = jnp.linspace(-1, 1, 64).at[3].set(jnp.nan).at[17].set(jnp.inf).at[40].set(-jnp.inf)
    opt = adamx.scale_by_adam(storage=storage)
    (got, state), (want, wanted) = (directions(opt, params, [g, g], k) for k in (True, False))
    assert list(np.flatnonzero(np.isnan(got))) == [3, 17, 40]
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    for a, b in zip(*map(jax.tree.leaves, (state, wanted)), strict=True):
        a, b = (np.asarray(x, np.float32) for x in (a, b))  # whatever the bits of a NaN
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [1, 15, 16, 17, 255, 256, 257, 2**15 - 1, 2**15, 2**16 + 1])
def test_an_element_is_stepped_alike_wherever_it_is(size):
    """The same numbers at each position of an array, at its end and in each thread's piece."""
    g, opt = jnp.full(size, 0.3), adamx.adamw(1e-2)
    step, state, params = adamx.jit_step(opt), opt.init(g), jnp.full(size, 0.7)
    for _ in range(2):
        params, state = step(params, state, g)
    assert np.unique(params).size == np.unique(state[0].nu).size == 1


def test_noise_depends_on_the_position_in_the_whole_array():
    """Two leaves of one name and other shapes round alike where their positions are the same."""
    opt = adamx.scale_by_adam(storage="int8")
    g = jnp.asarray(np.random.default_rng(0).normal(size=(8, 50)), jnp.float32)
    _, whole = directions(opt, g, [g, g], True)
    _, flat = directions(opt, g.reshape(-1), [g.reshape(-1)] * 2, True)
    np.testing.assert_array_equal(whole.nu.reshape(-1), flat.nu)
