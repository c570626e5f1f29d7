# SPDX-License-Identifier: Apache-2.0
"""The contracts of the design, each once, over every recipe × dtype × storage it is about."""

import contextlib
import functools
import itertools
from collections.abc import Iterator

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
from adamx.core import random_bits
from tests import cases, oracles

every_recipe = pytest.mark.parametrize("recipe", cases.RECIPES.values(), ids=cases.RECIPES)
every_storage = pytest.mark.parametrize("storage", cases.STORAGES)
every_dtype = pytest.mark.parametrize("dtype", cases.DTYPES)
every_tree = pytest.mark.parametrize("tree", cases.TREES.values(), ids=cases.TREES)

# The rules, and everything they can be asked for: contract 5 is about each of them.
RULES = {r.link: r for r in cases.RECIPES.values()} | {
    "nesterov": cases.RECIPES["nadam"],
    **cases.VARIANTS,
}
RATES = (0.9, 0.95, 0.999, 0.9999, 0.99999, 1 - 1e-7)
STEPS = (1, 2, 3, 5, 6, 7, 10, 100, 1_000, 100_000, 1_000_000)


@contextlib.contextmanager
def wide_enough(dtype: str) -> Iterator[None]:
    with jax.enable_x64(dtype == "float64"):
        yield


def form(tree):
    """Everything about a tree that must not change from step to step."""
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


# 3 and 4: dtypes


@every_recipe
@every_dtype
@every_storage
def test_dtypes_of_state_and_updates_never_change_and_nothing_compiles_twice(
    recipe, dtype, storage
):
    with wide_enough(dtype):
        opt = recipe(storage=storage)
        params = cases.params(dtype)
        if storage == "int4" and dtype == "complex64" and recipe.name != "lion":
            with pytest.raises(TypeError, match=r"dense/bias: .* no room for complex means"):
                opt.init(params)
            return
        state = opt.init(params)
        traces = 0

        @jax.jit
        def step(grads, state, params):
            nonlocal traces
            traces += 1
            updates, state = opt.update(grads, state, params)
            return updates, state, optax.apply_updates(params, updates)

        first = step(cases.grads(params), state, params)
        second = step(cases.grads(params, 2), first[1], first[2])
        assert traces == 1
        assert form(state) == form(first[1]) == form(second[1])
        assert form(first[0]) == form(second[0]) == form(params) == form(second[2])
        chex.assert_tree_all_finite(second)

        # scan and cond refuse a carry whose type drifts
        def body(carry, seed):
            params, state = carry
            updates, new = opt.update(params, state, params)
            new = jax.lax.cond(seed > 0, lambda: new, lambda: state)
            return (optax.apply_updates(params, updates), new), None

        carry = jax.eval_shape(lambda: jax.lax.scan(body, (params, state), jnp.arange(3))[0])
        assert form(carry[1]) == form(state)


@every_recipe
@pytest.mark.parametrize(
    "grad_dtype, param_dtype",
    [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "bfloat16")],
)
def test_mixed_gradients_and_parameters_keep_the_step_in_the_wider_dtype(
    recipe, grad_dtype, param_dtype
):
    opt = recipe()
    params = jax.tree.map(lambda x: x.astype(param_dtype), cases.params())
    grads = jax.tree.map(lambda x: x.astype(grad_dtype), cases.grads(cases.params()))
    state = opt.init(params)
    updates, new = jax.eval_shape(opt.update, grads, state, params)
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype("float32")}
    assert form(new) == form(state)


@every_recipe
def test_bfloat16_gradients_never_round_a_float32_step(recipe):
    """Fed the same numbers as bfloat16 or as float32, float32 parameters take the same step."""
    opt, params = recipe(), cases.params()
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), cases.grads(params))
    broad = jax.tree.map(lambda x: x.astype(jnp.float32), narrow)
    a, _ = opt.update(narrow, opt.init(params), params)
    b, _ = opt.update(broad, opt.init(params), params)
    chex.assert_trees_all_equal(a, b)


@every_recipe
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_moments_of_half_precision_parameters_rest_in_float32(recipe, dtype):
    state = recipe().init(cases.params(dtype))
    rest = {x.dtype for x in jax.tree.leaves(state) if x.dtype != jnp.int32}
    assert rest == {jnp.dtype("float32")}


@every_recipe
def test_half_precision_steps_are_the_float32_steps_cast_once(recipe):
    opt = recipe()
    params = cases.params("bfloat16")
    grads = cases.grads(params)
    wide = functools.partial(jax.tree.map, lambda x: x.astype(jnp.float32))
    narrow_step, _ = opt.update(grads, opt.init(params), params)
    wide_step, _ = opt.update(wide(grads), opt.init(wide(params)), wide(params))
    cast = jax.tree.map(lambda x: x.astype(jnp.bfloat16), wide_step)
    chex.assert_trees_all_equal(narrow_step, cast)


# 5: accuracy


@pytest.mark.parametrize("b2", RATES)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_float32_step_is_within_1e_6_of_the_oracle(rule, b2):
    decay = "b3" if "adan" in rule.link else "b2"
    link = rule.scale_by(**{decay: b2})
    check_accuracy(rule, link, {decay: b2}, {}, STEPS)


@pytest.mark.parametrize("b2", RATES)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_traced_float32_rate_is_taken_at_its_word(rule, b2):
    decay = "b3" if "adan" in rule.link else "b2"
    link = rule.scale_by()
    given = np.float32(b2)
    check_accuracy(rule, link, {decay: float(given)}, {decay: jnp.float32(given)}, STEPS[::3])


def check_accuracy(rule, link, oracle_kwargs, overrides, steps):
    oracle, names = oracles.TABLE[rule.link]
    kwargs = rule.link_kwargs | oracle_kwargs
    rng = np.random.default_rng(7)
    size = 2_000
    g = (rng.normal(size=size) * 10.0 ** rng.uniform(-6, 4, size)).astype(np.float32)
    near = (g * rng.normal(1, 0.5, size)).astype(np.float32)
    held = {k: np.zeros(size, np.float32) for k in names}
    state = link.init(jnp.asarray(g))
    update = jax.jit(lambda g, s: link.update(g, s, **overrides))
    for t in steps:
        if t > 1:
            held = {k: near**2 if k in ("nu", "nu_max", "n") else near for k in names}
            if rule.link == "scale_by_adamax":
                held["nu"] = np.abs(near)
        else:
            held = {k: v.astype(np.float32) for k, v in oracles.start(rule.link, (size,)).items()}
        counted = {"t" if "adan" in rule.link else "count": jnp.int32(t - 1)}
        got, new = update(jnp.asarray(g), state._replace(**held, **counted))
        want, moments = oracle(g, held, t, **kwargs)
        largest = oracles.largest_term(oracle, g, held, t, **kwargs)
        if rule.link == "scale_by_lion":  # a sum before its sign, and a sign that may be in doubt
            terms = np.abs(0.9 * held["mu"]) + np.abs(0.1 * g)
            largest = np.maximum(largest, np.minimum(terms * kwargs.get("smooth_beta", 1.0), 1))
            sure = np.abs(0.9 * held["mu"] + 0.1 * g) > 1e-6 * terms
            got, want, largest = np.asarray(got)[sure], want[sure], largest[sure]
        np.testing.assert_array_less(np.abs(got - want), 1e-6 * largest + 1e-37, err_msg=f"t={t}")
        for name in names:
            scale = np.abs(held[name]) + np.abs(moments[name])
            error = np.abs(np.asarray(getattr(new, name), float) - moments[name])
            np.testing.assert_array_less(error, 1e-6 * scale + 1e-30, err_msg=f"{name}, t={t}")


@every_recipe
def test_a_float64_trajectory_is_the_oracles(recipe):
    oracle, _ = oracles.TABLE[recipe.link]
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        grads = rng.normal(size=(30, 16))
        link = recipe.scale_by()
        state = link.init(jnp.zeros(16))
        _, got = jax.lax.scan(lambda s, g: link.update(g, s)[::-1], state, jnp.asarray(grads))
        want = oracles.trajectory(oracle, grads, **recipe.link_kwargs).directions
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


# 6: no number breaks it

HOSTILE = {
    "zero": 0.0,
    "denormal": 1e-40,
    "1e-30": 1e-30,
    "1e-12": 1e-12,
    "1e4": 1e4,
    "1e20": 1e20,
    "float32's largest": 3.4e38,
}


@every_recipe
@every_storage
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_no_magnitude_gives_a_step_that_is_not_finite(recipe, storage, dtype):
    opt = recipe(1.0, storage=storage)
    most = float(jnp.finfo(dtype).max)
    params = jnp.ones(len(HOSTILE), dtype)
    g = jnp.asarray(np.clip(list(HOSTILE.values()), 0, most), dtype)
    state = opt.init(params)
    update = jax.jit(opt.update)
    for sign in (1, 1, -1, 1):
        updates, state = update(sign * g, state, params)
        chex.assert_tree_all_finite((updates, state))


@every_recipe
def test_a_zero_gradient_moves_nothing(recipe):
    opt = recipe(1.0) if recipe.name == "yogi" else recipe(1.0, weight_decay=0.0)
    params = cases.params("float16")
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = opt.update(zero, opt.init(params), params)
    if recipe.name == "yogi":  # its mean starts at 1e-6, as the paper's accumulators do
        return chex.assert_trees_all_close(updates, zero, atol=2e-3)
    return chex.assert_trees_all_equal(updates, zero)


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "amsgrad", "adamax", "lamb", "adan"])
@pytest.mark.parametrize("size", [1e-30, 1e-4, 1.0, 1e15, 1e20, 3e38])
def test_the_first_step_is_right_at_any_magnitude(name, size):
    """m̂ / (√v̂ + ε) is 1 after one gradient, however large, and g / ε where ε dominates."""
    recipe = cases.RECIPES[name]
    link = recipe.scale_by()
    direction, _ = link.update(jnp.float32(size), link.init(jnp.float32(0)))
    oracle, _ = oracles.TABLE[recipe.link]
    kwargs = recipe.link_kwargs
    want, _ = oracle(min(size, 2.0**62), oracles.start(recipe.link, ()), 1, **kwargs)
    np.testing.assert_allclose(direction, want, rtol=2e-6)


# AMSGrad's maximum may not fall and Yogi's square falls by g^2 a step: by their papers' own rules
# neither forgets. That they stay finite is the law before.
FORGETFUL = {k: r for k, r in cases.RECIPES.items() if k not in ("amsgrad", "yogi")}


@pytest.mark.parametrize("recipe", FORGETFUL.values(), ids=FORGETFUL)
@every_storage
@pytest.mark.parametrize("spike", [1e20, -3e38])
def test_one_finite_huge_gradient_never_disables_a_coordinate_for_ever(recipe, storage, spike):
    # Fast rates, so that "for ever" can be told from "for a while" in 2,000 steps.
    fast = {"b1": 0.5, "b2": 0.9} | ({"b3": 0.9} if recipe.name == "adan" else {})
    opt = recipe(1e-3, **fast, storage=storage, weight_decay=0.0)
    state = opt.init(jnp.float32(0))

    def body(carry, g):
        p, s = carry
        u, s = opt.update(g, s, p)
        return (p + u, s), u

    g = jnp.ones(2_000).at[3].set(spike)
    _, steps = jax.lax.scan(body, (jnp.float32(1), state), g)
    assert np.isfinite(steps).all()
    assert abs(float(steps[-1])) > 1e-5, "it still stands"


@every_recipe
@every_storage
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_stays_visible(recipe, storage, bad):
    opt = recipe(0.1, storage=storage, weight_decay=0.0)
    params = jnp.ones(3)
    updates, state = opt.update(jnp.array([1.0, bad, 1.0]), opt.init(params), params)
    seen = [updates, *jax.tree.leaves(state)]
    assert any(
        not bool(jnp.isfinite(x).all()) for x in seen if jnp.issubdtype(x.dtype, jnp.inexact)
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=4, max_size=4))
def test_adam_is_finite_on_any_float32_gradients(values):
    link = _shared_link()
    state = link.init(jnp.float32(0))
    for value in values:
        if np.isinf(value):
            return
        direction, state = link.update(jnp.float32(value), state)
        assert np.isfinite(direction)
        assert abs(float(direction)) <= 1.1e9  # m-hat / eps, where squares underflow


@functools.cache
def _shared_link():
    return adamx.scale_by_adam()


# 7: differentiable


@every_recipe
@pytest.mark.parametrize("point", [0.0, 0.3])
def test_gradients_through_the_update_are_finite_hyperparameters_included(recipe, point):
    names = {"b1": 0.9, "b2": 0.99, "learning_rate": 0.1}
    if "eps" in _hypers(recipe):
        names["eps"] = 1e-3

    def loss(hyper, g):
        opt = recipe(hyper["learning_rate"], weight_decay=0.01)
        params = jnp.array([0.0, 1.0])
        state = opt.init(params)
        for _ in range(6):  # RAdam's first rectified steps are among them
            updates, state = opt.update(g, state, params, **hyper)
            params = optax.apply_updates(params, updates)
        return jnp.sum(params**2)

    hyper = {k: jnp.float32(v) for k, v in names.items()}
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))(hyper, jnp.array([point, 0.5]))
    chex.assert_tree_all_finite(gradient)
    if recipe.name != "lamb" or point:
        assert gradient[0]["learning_rate"] != 0


def _hypers(recipe):
    return () if recipe.name == "lion" else ("eps",)


@pytest.mark.parametrize("name", ["adam", "adabelief", "radam", "adan"])
def test_derivative_by_a_hyperparameter_is_the_difference_quotient(name):
    with jax.enable_x64(True):
        recipe = cases.RECIPES[name]
        grads = jnp.asarray(np.random.default_rng(5).normal(size=(8, 3)))

        def total(b2):
            opt = recipe(0.1)
            state = opt.init(grads[0])
            out = 0.0
            for g in grads:
                u, state = opt.update(g, state, g, b2=b2)
                out += jnp.sum(u**2)
            return out

        total = jax.jit(total)
        h = 1e-6
        quotient = (total(0.97 + h) - total(0.97 - h)) / (2 * h)
        np.testing.assert_allclose(jax.grad(total)(0.97), quotient, rtol=1e-6)


# 8: hyperparameters


@every_recipe
def test_every_way_to_give_a_hyperparameter_takes_the_same_step(recipe):
    params = cases.params()
    grads = cases.grads(params)
    wanted = {"learning_rate": 0.03, "b1": 0.8, "b2": 0.95, "weight_decay": 0.01}

    def steps(opt, **overrides):
        state, p = opt.init(params), params
        for _ in range(2):
            u, state = opt.update(grads, state, p, **overrides)
            p = optax.apply_updates(p, u)
        return p

    plain = steps(recipe(**wanted))
    arrays = {k: jnp.float32(v) for k, v in wanted.items()}
    schedules = {
        k: lambda count, v=v: v + 0.0 * count.astype(jnp.float32) for k, v in wanted.items()
    }
    by = {
        "array": steps(recipe(**arrays)),
        "schedule": steps(recipe(**schedules)),
        "override": steps(recipe(0.5, weight_decay=0.3), **wanted),
        "traced": jax.jit(lambda h: steps(recipe(**h)))(arrays),
        "traced override": jax.jit(lambda h: steps(recipe(0.5, weight_decay=0.3), **h))(arrays),
    }
    for way, got in by.items():
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(plain), strict=True):
            # 1 - b is exact for Python numbers only; float32's 1 - 0.95 is 2e-7 / 0.05 off.
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6, err_msg=way)


@every_recipe
def test_changing_a_value_never_recompiles(recipe):
    opt = recipe(0.5, weight_decay=0.1)
    params = cases.params()
    traces = 0

    @jax.jit
    def step(grads, state, params, rate, decay):
        nonlocal traces
        traces += 1
        return opt.update(grads, state, params, learning_rate=rate, weight_decay=decay)

    for rate in (0.1, 0.2, 0.3):
        step(cases.grads(params), opt.init(params), params, rate, 2 * rate)
    assert traces == 1


@every_recipe
def test_hyperparameters_vmap(recipe):
    params = cases.params()
    grads = cases.grads(params)

    def after(rate, b1):
        opt = recipe(rate, b1=b1)
        updates, _ = opt.update(grads, opt.init(params), params)
        return updates

    rates, b1s = jnp.array([0.1, 0.01]), jnp.array([0.9, 0.5])
    many = jax.vmap(after)(rates, b1s)
    for i in range(2):
        one = after(rates[i], b1s[i])
        chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], many), one, rtol=1e-5)


def test_a_schedule_counts_from_zero_as_in_optax():
    seen = optax.linear_schedule(0.0, 1.0, 4)
    opt, theirs = adamx.adam(seen), optax.adam(seen)
    params = jnp.ones(2)
    s, z = opt.init(params), theirs.init(params)
    for _ in range(5):
        with jax.numpy_dtype_promotion("standard"):
            (u, s), (v, z) = opt.update(params, s), theirs.update(params, z)
        np.testing.assert_allclose(u, v, rtol=2e-5)  # Optax's own 1 - b2^t is 1e-5 off


# 9: trees


@every_tree
@every_recipe
def test_every_tree_goes_through(recipe, tree):
    opt, params = recipe(), tree()
    state = opt.init(params)
    grads = jax.tree.map(lambda p: 0.5 * p, params)
    updates, new = opt.update(grads, state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert jax.tree.structure(state) == jax.tree.structure(new)
    assert form(state) == form(new)
    optax.apply_updates(params, updates)


@every_recipe
@every_storage
def test_init_needs_shapes_only(recipe, storage):
    params = cases.params("bfloat16")
    shapes = jax.eval_shape(lambda: params)
    opt = recipe(storage=storage)
    assert (
        form(jax.eval_shape(opt.init, shapes)) == form(opt.init(shapes)) == form(opt.init(params))
    )


@every_storage
def test_init_keeps_a_parameters_sharding(storage):
    mesh = Mesh(np.array(jax.devices()), "x")
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    params = jax.device_put(jnp.ones((16, 3)), sharding)
    state = adamx.amsgrad(0.1, storage=storage).init(params)
    moments = [x for x in jax.tree.leaves(state) if x.ndim]
    assert len(moments) == (2 if storage == "int4" else 3)
    assert all(x.sharding.is_equivalent_to(sharding, 2) for x in moments)


# 10: random bits


@pytest.mark.parametrize("spec", [PartitionSpec("x"), PartitionSpec(None, "x"), PartitionSpec()])
def test_codes_do_not_depend_on_sharding(spec):
    mesh = Mesh(np.array(jax.devices()), "x")
    params = jnp.asarray(np.random.default_rng(0).normal(size=(16, 24)), jnp.float32)
    opt = adamx.adam(0.1, storage="bfloat16")
    plain, spread = params, jax.device_put(params, NamedSharding(mesh, spec))
    s, z = opt.init(plain), opt.init(spread)
    for _ in range(3):
        _, s = opt.update(plain, s)
        _, z = opt.update(spread, z)
    np.testing.assert_array_equal(s[0].nu, z[0].nu)


def test_codes_do_not_depend_on_restarts_nor_on_the_company_of_other_leaves():
    opt = adamx.adam(0.1, storage="bfloat16")
    params = {"a": jnp.ones(100), "b": 2 * jnp.ones(100)}
    _, state = opt.update(params, opt.init(params))
    _, ahead = opt.update(params, state)
    restored = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), state)
    chex.assert_trees_all_equal(opt.update(params, restored)[1], ahead)
    alone, _ = {"b": params["b"]}, None
    _, one = opt.update(alone, opt.init(alone))
    np.testing.assert_array_equal(one[0].nu["b"], state[0].nu["b"])


def test_noise_is_uniform_and_its_streams_differ():
    streams = np.stack(
        [
            np.asarray(
                random_bits.bits(random_bits.Key(random_bits.keys(seed, 5, leaf)), (1 << 14,), draw)
            )
            for seed, leaf, draw in itertools.product((0, 1), (7, 8), (0, 1))
        ]
    )
    unit = streams / 2.0**32
    # A mean of 2^14 uniforms has a standard deviation of 0.00226: five of them.
    assert np.abs(unit.mean(1) - 0.5).max() < 0.0113
    for bit in range(32):  # each bit is a fair coin: 2^14 tosses, five standard deviations
        assert np.abs(((streams >> bit) & 1).mean(1) - 0.5).max() < 0.0196
    correlation = np.corrcoef(unit) - np.eye(len(unit))
    assert np.abs(correlation).max() < 0.039
    assert np.abs(np.corrcoef(unit[0, :-1], unit[0, 1:])[0, 1]) < 0.039
    assert np.unique(streams[0]).size == 1 << 14


@pytest.mark.parametrize("draw", range(4))
def test_noise_is_even_over_time_in_every_element(draw):
    """Of n steps, an element spends its share in each part of the circle, to 8 in place of
    the sqrt(n) of chance: what is rounded up too often now is rounded down soon."""
    steps = 987
    at = jax.vmap(
        lambda t: random_bits.bits(
            random_bits.Key(random_bits.keys(np.uint32(3), t, np.uint32(7))), (64,), draw
        )
    )
    unit = np.asarray(at(jnp.arange(steps))) / 2.0**32
    for part in (0.001, 0.1, 0.25, 0.5, 0.9):
        assert np.abs((unit < part).sum(0) - part * steps).max() < 8


# 12: buffers


@every_recipe
@every_storage
def test_no_state_leaf_shares_a_buffer(recipe, storage):
    opt = recipe(lambda count: 0.1, storage=storage, weight_decay=lambda count: 0.1)
    params = cases.params()
    state = opt.init(params)
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((params, state)) if x.size]
    assert len(set(pointers)) == len(pointers)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        updates, state = opt.update(params, state, params)
        return optax.apply_updates(params, updates), state

    params, state = step(params, state)
    params, state = step(params, state)
    chex.assert_tree_all_finite((params, state))


# 13: lowers for every platform


@every_recipe
@every_storage
def test_exports_for_every_platform(recipe, storage):
    opt = recipe(storage=storage)
    params = cases.params("bfloat16")
    step = jax.jit(lambda g, s, p: adamx.step(opt, g, s, p))
    exported = export.export(step, platforms=("cpu", "cuda", "rocm", "tpu"))(
        params, opt.init(params), params
    )
    assert exported.platforms == ("cpu", "cuda", "rocm", "tpu")


# every way to run it is the same


class Variants(chex.TestCase):
    """`chex.all_variants` makes this one test five: eager and jitted, on this device or on all."""

    @chex.all_variants
    def test_all_variants_take_the_same_step(self):
        for recipe in cases.RECIPES.values():
            opt = recipe()
            params = {"w": jnp.arange(1.0, 7.0).reshape(2, 3)}
            want, _ = opt.update(params, opt.init(params), params)

            def step(params, opt=opt):
                return opt.update(params, opt.init(params), params)[0]

            chex.assert_trees_all_close(self.variant(step)(params), want, rtol=1e-6)


@every_recipe
@every_storage
def test_plain_jit_vmap_scan_and_pmap_agree(recipe, storage):
    opt = recipe(storage=storage)
    params = cases.params()
    grads = [cases.grads(params, seed) for seed in range(3)]

    def run(params):
        state = opt.init(params)
        for g in grads:
            updates, state = opt.update(g, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    def scanned(params):
        def body(carry, g):
            updates, state = opt.update(g, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        stacked = jax.tree.map(lambda *x: jnp.stack(x), *grads)
        return jax.lax.scan(body, (params, opt.init(params)), stacked)[0]

    want = run(params)
    copies = jax.tree.map(lambda x: jnp.stack([x] * 8), params)
    first = functools.partial(jax.tree.map, lambda x: x[3])
    ways = {
        "jit": jax.jit(run)(params),
        "scan": scanned(params),
        "vmap": first(jax.vmap(run)(copies)),
        "pmap": first(jax.pmap(run)(copies)),
    }
    # Fused and unfused float32 may differ in the last bit, which stochastic rounding can turn
    # into one unit of bfloat16 (2^-8) in a moment.
    rtol, atol = (2e-6, 1e-6) if storage == "float32" else (1.6e-2, 1e-3)
    for way, got in ways.items():
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=way)
