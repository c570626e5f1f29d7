# SPDX-License-Identifier: Apache-2.0
"""Runs of Optax carried over, whatever wraps them, and back: paths stay within 1e-9 of a step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import adamx
from adamx import interop
from tests.cases import form
from tests.interop.keras_side import distance, ours, problem
from tests.products import some_slow

BOUND, STEPS, RATE = 1e-9, 100, 1e-3

SCHEDULE = optax.linear_schedule(RATE, RATE / 2, 150)
KERNELS = {"bias": False, "gain": False, "kernel": True}


def labelled(home):
    return optax.partition(
        {"a": home.adamw(RATE), "b": home.lion(RATE)}, {"bias": "a", "gain": "b", "kernel": "a"}
    )


# The optimizer of either library, by what makes it.
ROWS = {
    **{
        name: lambda home, name=name: getattr(home, name)(RATE)
        for name in ("adam", "adamw", "adamax", "amsgrad", "lion", "yogi", "lamb", "adabelief")
    },
    "nadamw, schedule": lambda home: home.nadamw(SCHEDULE),
    "radam": lambda home: home.radam(RATE),
    "adan": lambda home: home.adan(RATE),
    "ademamix": lambda home: getattr(home, "contrib", home).ademamix(RATE),
    "simplified_ademamix": lambda home: getattr(home, "contrib", home).simplified_ademamix(RATE),
    "chain": lambda home: optax.chain(optax.clip_by_global_norm(1.0), home.adam(RATE)),
    "masked": lambda home: optax.masked(home.adamw(RATE), KERNELS),
    "mask of decay": lambda home: home.adamw(RATE, weight_decay=0.1, mask=KERNELS),
    "partition": labelled,
    "injected": lambda home: optax.inject_hyperparams(home.adam)(learning_rate=SCHEDULE),
    "accumulated": lambda home: optax.MultiSteps(
        home.adamw(RATE), 3, accumulator_dtype=None
    ).gradient_transformation(),
}


@pytest.fixture
def in_double():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


def trained(opt):
    start, grads = problem(np.random.default_rng(11), 2 * STEPS)
    first, second = (
        {k: g[half] for k, g in grads.items()} for half in (slice(STEPS), slice(STEPS, None))
    )
    path, state = ours(opt)(start, first)
    return {k: x[-1] for k, x in path.items()}, state, second


@pytest.mark.optimized
@some_slow("row", ROWS, ("adamw", "amsgrad", "lion", "adan", "ademamix", "partition", "injected"))
def test_a_run_goes_on_here_and_there_again(in_double, row):
    theirs, opt = ROWS[row](optax), ROWS[row](adamx)
    params, state, grads = trained(theirs)
    here, made = interop.from_optax(params, state, opt)
    assert jax.tree.structure(made) == jax.tree.structure(opt.init(params))
    want, got = ours(theirs)(params, grads, state)[0], ours(opt)(here, grads, made)
    assert distance(want, got[0]) < BOUND
    back, again = interop.to_optax(here, made, opt, theirs)
    assert form(again) == form(state)
    assert distance(want, ours(theirs)(back, grads, again)[0]) < BOUND


def test_wrappers_may_differ(in_double):
    theirs = optax.inject_hyperparams(optax.adamw)(learning_rate=RATE, weight_decay=0.1)
    params, state, grads = trained(theirs)
    opt = adamx.adamw(SCHEDULE, weight_decay=0.1)  # which counts steps
    _, made = interop.from_optax(params, state, opt)
    assert int(made[0].count) == STEPS
    assert int(made[-1].count) == STEPS
    opt = optax.chain(adamx.clip(1e9), adamx.adamw(RATE, weight_decay=0.1))
    here, made = interop.from_optax(params, state, opt)
    want, got = ours(theirs)(params, grads, state)[0], ours(opt)(here, grads, made)[0]
    assert distance(want, got) < BOUND
    _, back = interop.to_optax(here, made, opt, theirs)
    assert int(back.count) == STEPS


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("landing", ["nearest", "stochastic", "exact", "kahan", "compensated8"])
def test_every_storage_and_landing_and_back(storage, landing):
    with jax.numpy_dtype_promotion("standard"):
        theirs = optax.adam(RATE)
        start = {"kernel": jnp.asarray(np.random.default_rng(3).normal(size=(8, 4)), jnp.float32)}
        state = theirs.init(start)
        for seed in range(5):
            g = {
                "kernel": jnp.asarray(np.random.default_rng(seed).normal(size=(8, 4)), jnp.float32)
            }
            updates, state = theirs.update(g, state, start)
            start = optax.apply_updates(start, updates)
        like = {"kernel": jax.ShapeDtypeStruct((8, 4), jnp.bfloat16)}
        opt = adamx.adam(RATE, storage=storage, landing=landing)
        half, made = interop.from_optax(start, state, opt, like)
        assert half["kernel"].dtype == jnp.bfloat16
        assert form(made) == form(opt.init(half))
        whole, back = interop.to_optax(half, made, opt, theirs)
    lost = {"exact": 2**-24, "kahan": 2**-16, "compensated8": 2**-15}.get(landing, 2**-8)
    np.testing.assert_allclose(np.asarray(whole["kernel"], np.float32), start["kernel"], rtol=lost)
    if landing in ("exact", "kahan", "compensated8"):
        assert whole["kernel"].dtype == jnp.float32
    # With `nearest`, Optax's moments are in the parameters' bfloat16.
    least = 0.012 if whole["kernel"].dtype == jnp.bfloat16 else 1e-6
    octaves = {"float32": least, "bfloat16": 0.012, "int8": 0.5, "int4": 4.0}[storage]
    off = np.log2(np.asarray(back[0].nu["kernel"], np.float32) / state[0].nu["kernel"])
    assert np.all(np.abs(off) < octaves)
    assert int(back[0].count) == 5


def test_moments_in_half_precision_are_those_of_optax():
    with jax.numpy_dtype_promotion("standard"):
        theirs, params = optax.adamw(RATE, mu_dtype=jnp.bfloat16), {"kernel": jnp.ones(4)}
        _, state = theirs.update(params, theirs.init(params), params)
        opt = adamx.adamw(RATE)
        here, made = interop.from_optax(params, state, opt)
        _, back = interop.to_optax(here, made, opt, theirs)
    jax.tree.map(np.testing.assert_array_equal, back, state)
    assert form(back) == form(state)


def test_everything_that_does_not_fit_is_one_error():
    params = {"kernel": jnp.ones(4), "bias": jnp.ones(2)}
    state = optax.adam(RATE).init(params)
    with pytest.raises(ValueError, match="from_optax: 2 problems") as caught:
        interop.from_optax(params, state, adamx.amsgrad(RATE))
    assert "bias: the state keeps mu, nu of this leaf, `opt` keeps mu, nu, nu_max" in str(
        caught.value
    )
    other = {"kernel": jnp.ones(5), "biass": jnp.ones(2)}
    with pytest.raises(ValueError, match="from_optax: ") as caught:
        interop.from_optax(params, state, adamx.adam(RATE), other)
    assert "kernel: `params` has shape (4,), `like` (5,)" in str(caught.value)
    assert "bias is in `params` alone" in str(caught.value)
    with pytest.raises(ValueError, match="no moments of Optax's Adam family"):
        interop.from_optax(params, optax.sgd(RATE).init(params), adamx.adam(RATE))
    opt = adamx.lion(RATE)
    with pytest.raises(ValueError, match="`theirs` keeps mu, nu of this leaf, `opt` mu"):
        interop.to_optax(params, opt.init(params), opt, optax.adam(RATE))
    frozen = optax.masked(adamx.adam(RATE), {"kernel": True, "bias": False})
    with pytest.raises(ValueError, match="bias: `opt` keeps no moments of this leaf"):
        interop.from_optax(params, state, frozen)


def stepped(opt, size=0.01):
    with jax.numpy_dtype_promotion("standard"):
        params = {"kernel": jnp.ones(4)}
        _, state = opt.update({"kernel": jnp.full(4, size)}, opt.init(params), params)
    return params, state


def test_states_of_another_rule_are_refused():
    params, state = stepped(optax.adam(RATE))
    with pytest.raises(ValueError, match="is a ScaleByAdamState, `opt` is adabelief with a ScaleB"):
        interop.from_optax(params, state, adamx.adabelief(RATE))
    with pytest.raises(ValueError, match=r"nu is no decaying maximum .* as adamax has it"):
        interop.from_optax(params, state, adamx.adamax(RATE))
    interop.from_optax(params, state, adamx.lamb(RATE))  # which is Adam's rule
    params, state = stepped(optax.adamax(RATE))
    interop.from_optax(params, state, adamx.adamax(RATE))
    params, state = stepped(optax.amsgrad(RATE))
    with pytest.raises(ValueError, match="maximum is of corrected squares, `opt` has `max_of"):
        interop.from_optax(params, state, adamx.amsgrad(RATE, max_of="raw"))
    opt = adamx.amsgrad(RATE, max_of="raw")
    with pytest.raises(ValueError, match=r"to_optax: .*`max_of='raw'`"):
        interop.to_optax(params, opt.init(params), opt, optax.amsgrad(RATE))
    opt = adamx.adam(RATE)
    laprop = adamx.laprop(RATE)
    with pytest.raises(ValueError, match="Optax, which has no laprop: its mean is of divided"):
        interop.from_optax(params, optax.adam(RATE).init(params), laprop)
    with pytest.raises(ValueError, match="Optax, which has no laprop: its mean is of divided"):
        interop.to_optax(params, laprop.init(params), laprop, optax.adam(RATE))
    first, *rest = optax.contrib.ademamix(RATE).init(params)
    state = (first._replace(count=jnp.int32(9)), *rest)
    with pytest.raises(ValueError, match="the state counts 9 by count, 0 by count_m2 steps: here"):
        interop.from_optax(params, state, adamx.ademamix(RATE))
    theirs = optax.contrib.ademamix(RATE)
    with pytest.raises(ValueError, match="counts 9 steps, its `count_m2` 0: one number is"):
        interop.to_optax(params, state, adamx.ademamix(RATE), theirs)
    with pytest.raises(ValueError, match="`theirs` has a ScaleByBeliefState, `opt` is adam"):
        interop.to_optax(params, opt.init(params), opt, optax.adabelief(RATE))


def test_an_average_that_starts_there_counts_its_own_steps():
    opt = adamx.adam(optax.constant_schedule(RATE))
    params, state = stepped(opt)
    theirs = optax.chain(
        optax.scale_by_adam(), optax.ema(0.9), optax.scale_by_schedule(lambda _: -RATE)
    )
    _, made = interop.to_optax(params, state, opt, theirs)
    assert [int(part.count) for part in made] == [1, 0, 1]


def test_gradients_that_wait_are_not_dropped_on_the_way_back():
    many = optax.MultiSteps(adamx.adam(RATE), 3).gradient_transformation()
    params, state = stepped(many)
    with pytest.raises(ValueError, match="wait for their step, `theirs` has no place"):
        interop.to_optax(params, state, many, optax.adam(RATE))


def test_gradients_that_wait_need_a_place():
    with jax.numpy_dtype_promotion("standard"):
        params, opt = {"kernel": jnp.ones(4)}, optax.MultiSteps(optax.adam(RATE), 3)
        _, state = opt.update(params, opt.init(params), params)
    with pytest.raises(ValueError, match="gradients that wait for their step"):
        interop.from_optax(params, state, adamx.adam(RATE))
