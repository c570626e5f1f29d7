# SPDX-License-Identifier: Apache-2.0
"""One optimizer's state as another's: between storages, and from Optax and back."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests import cases


def advanced(opt, steps=3):
    params = cases.params()
    state = opt.init(params)
    for seed in range(steps):
        _, state = opt.update(cases.grads(params, seed), state, params)
    return params, state


@pytest.mark.parametrize(
    "name, storage",
    [
        pytest.param(name, storage, marks=() if fast else pytest.mark.slow)
        for name in ("adamw", "adamax", "lion", "adan")
        for storage in cases.STORAGES
        for fast in [name == "adamw" or storage == "int8"]
    ],
)
def test_a_state_goes_on_in_another_storage(name, storage):
    recipe = cases.RECIPES[name]
    before, after = recipe(), recipe(storage=storage)
    params, state = advanced(before)
    new = adamx.convert(state, before, after)
    assert jax.tree.structure(new) == jax.tree.structure(after.init(params))
    grads = cases.grads(params, 9)
    want, _ = before.update(grads, state, params)
    got, _ = jax.jit(after.update)(grads, new, params)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        # A root of int4 may be twice what it stands for; in Lion a sign may turn.
        np.testing.assert_allclose(a, b, atol=0.1 if storage == "int4" else 0.021)
    back = adamx.convert(new, after, before)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    chex.assert_trees_all_equal_dtypes(back, state)
    if storage == "float32":
        chex.assert_trees_all_equal(new, state)


@pytest.mark.parametrize("storage", cases.STORAGES)
def test_leaves_of_one_shape_are_converted_by_one_program(storage, caplog):
    """Operation by operation, each shape took some 70 programs, and a small model 20 seconds."""
    before, after = adamx.adamw(1e-3), adamx.adamw(1e-3, storage=storage)
    params = {f"leaf{i}": jnp.ones((3, 13, i % 2 + 1)) for i in range(4)}
    state = before.init(params)
    with jax.log_compiles():
        new = adamx.convert(state, before, after)
        adamx.convert(new, after, before)
    compiled = [r for r in caplog.records if "compilation of jit(call)" in r.getMessage()]
    assert len(compiled) <= 2 * 2 * 2  # two shapes, to and fro, decoded and encoded
    others = [r for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
    assert len(others) <= len(compiled) + 12


def test_optaxs_own_state_goes_on_in_two_bytes_and_comes_back():
    theirs, ours = optax.adamw(1e-2), adamx.adamw(1e-2, storage="int8")
    params = cases.params()
    state = theirs.init(params)
    with jax.numpy_dtype_promotion("standard"):
        _, state = theirs.update(cases.grads(params), state, params)
    new = adamx.convert(state, theirs, ours)
    assert {x.dtype.name for x in jax.tree.leaves(new[0].nu)} == {"uint8"}
    assert int(new[0].count) == 1
    back = adamx.convert(new, ours, theirs)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    chex.assert_trees_all_equal_dtypes(back, state)
    for a, b in zip(jax.tree.leaves(back[0].nu), jax.tree.leaves(state[0].nu), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.4)  # a level of the square is 27% wide on average
    assert adamx.convert(state, theirs, optax.adamw(1e-2)) is not None


def test_leaves_may_rest_differently_on_either_side():
    table = {"*/kernel": "int4", "gain": "float32", "*": "int8"}
    before, after = adamx.adam(1e-2, storage="int8"), adamx.adam(1e-2, storage=table)
    params, state = advanced(before)
    new = adamx.convert(state, before, after)
    assert jax.tree.structure(new) == jax.tree.structure(after.init(params))
    assert new[0].arrays["packed"]["dense"]["kernel"].dtype == jnp.uint8
    assert new[0].arrays["mu"]["gain"].dtype == jnp.float32
    after.update(cases.grads(params), new, params)
    back = adamx.convert(new, after, before)
    assert jax.tree.structure(back) == jax.tree.structure(state)


def test_wrappers_and_masks_are_no_hindrance():
    params = {"a": jnp.ones(3), "b": jnp.ones((2, 2))}
    mask = {"a": True, "b": False}

    def wrapped(storage):
        inner = optax.masked(adamx.adam(1e-2, storage=storage), mask)
        return optax.MultiSteps(optax.chain(adamx.clip(1.0), inner), 2).gradient_transformation()

    before, after = wrapped("float32"), wrapped("int4")
    with jax.numpy_dtype_promotion("standard"):  # Optax's MultiSteps asks for it
        _, state = before.update(params, before.init(params), params)
        new = adamx.convert(state, before, after, params)
        assert jax.tree.structure(new) == jax.tree.structure(after.init(params))
        after.update(params, new, params)


@pytest.mark.parametrize("landing", ["kahan", "exact", "compensated8"])
def test_remainders_tell_which_parameters_are_in_half_precision(landing):
    """The state of a bfloat16 run with a landing goes on in two bytes, without its parameters."""
    params = {"kernel": jnp.ones((2, 3), jnp.bfloat16), "gain": jnp.ones(())}
    before, after = (adamx.adamw(1e-2, storage=s, landing=landing) for s in ("float32", "int8"))
    _, state = before.update(params, before.init(params), params)
    found = adamx.convert(state, before, after)
    chex.assert_trees_all_equal(found, adamx.convert(state, before, after, params))
    assert found[0].nu["kernel"].dtype == jnp.uint8


def test_a_state_of_groups_needs_no_parameters():
    params = {"bias": jnp.ones(3, jnp.bfloat16), "kernel": jnp.ones((2, 3)), "gain": jnp.ones(())}

    def opt(storage):
        table = {"*": adamx.adam(1e-2, storage=storage, landing="kahan")}
        return adamx.groups({"kernel": adamx.adam(1e-2, storage=storage)} | table)

    _, state = opt("float32").update(params, opt("float32").init(params), params)
    found = adamx.convert(state, opt("float32"), opt("int4"))
    chex.assert_trees_all_equal(found, adamx.convert(state, opt("float32"), opt("int4"), params))


def test_a_state_that_does_not_tell_the_parameters_asks_for_them():
    params = {"kernel": jnp.ones((2, 3)), "gain": jnp.ones(())}
    mask = {"kernel": False, "gain": True}
    before, after = (
        optax.chain(optax.masked(adamx.adam(1e-2, storage=storage), mask), optax.trace(0.9))
        for storage in ("float32", "int8")
    )
    with pytest.raises(ValueError, match="do not tell the parameters: give `params`"):
        adamx.convert(before.init(params), before, after)


def test_what_cannot_be_converted_is_named():
    _, state = advanced(adamx.adam(1e-2))
    clipped = optax.chain(adamx.clip(1.0), adamx.scale_by_adam())
    with pytest.raises(ValueError, match="stored: EmptyState, ScaleByAdamState instead of"):
        adamx.convert(state, adamx.adam(1e-2), clipped)
    with pytest.raises(ValueError, match=r"is not a state of `opt_from`.*LandingState"):
        adamx.convert(state, adamx.adam(1e-2, landing="kahan"), adamx.adam(1e-2))
    with pytest.raises(
        TypeError, match="dense/bias: the state's `mu` is float32, storage 'int8' has int8"
    ):
        adamx.convert(state, adamx.adam(1e-2, storage="int8"), adamx.adam(1e-2))


def test_a_state_in_another_format_is_an_error_that_names_both():
    params, state = advanced(adamx.adam(1e-2))
    grads = cases.grads(params)
    with pytest.raises(TypeError, match=r"storage 'int8' has int8.*stored as 'float32'.*convert"):
        adamx.adam(1e-2, storage="int8").update(grads, state, params)
    with pytest.raises(ValueError, match="stored as 'float32', the recipe's storage is 'int4'"):
        adamx.adam(1e-2, storage="int4").update(grads, state, params)
    _, packed = advanced(adamx.adam(1e-2, storage="int4"))
    with pytest.raises(
        ValueError, match="stored as packed bytes, the recipe's storage is 'float32'"
    ):
        adamx.adam(1e-2).update(grads, packed, params)


def test_what_was_traced_before_does_not_hide_the_storage():
    before, after = (adamx.adamw(1e-2, storage=s) for s in ("float32", "int8"))
    params = {"kernel": jnp.ones((2, 3))}
    state = before.init(params)
    for opt in (before, after):
        jax.eval_shape(
            opt.init, jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
        )
    assert adamx.convert(state, before, after, params)[0].nu["kernel"].dtype == jnp.uint8


@pytest.mark.parametrize("mu_dtype", [None, "float32"])
@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_a_half_precision_run_of_optax_goes_on(storage, mu_dtype):
    """Optax rests moments in the dtype of the parameters, ours rest in float32 unless asked."""
    params = {"kernel": jnp.linspace(-1, 1, 32, dtype=jnp.bfloat16).reshape(8, 4)}
    grads = {"kernel": jnp.full((8, 4), 0.5, jnp.bfloat16)}
    before = optax.adamw(1e-3, mu_dtype=mu_dtype)
    after = adamx.adamw(1e-3, storage=storage)
    state = before.init(params)
    with jax.numpy_dtype_promotion("standard"):  # of Optax's own
        _, state = before.update(grads, state, params)
    found = adamx.convert(state, before, after)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32) if x.ndim else x, state)
    want = adamx.convert(wide, optax.adamw(1e-3), after)
    chex.assert_trees_all_equal(found, want)
    after.update(grads, found, params)
    if storage == "float32":
        np.testing.assert_array_equal(found[0].nu["kernel"], state[0].nu["kernel"])
        with pytest.raises(TypeError, match=r"the state's `(mu|nu)` is bfloat16"):
            after.update(grads, state, params)


@pytest.mark.parametrize("landing", ["stochastic", "compensated8", "exact"])
def test_a_landing_starts_in_the_middle_of_a_run(landing):
    params = {"kernel": jnp.ones((8, 4), jnp.bfloat16), "gain": jnp.ones(4)}
    before = optax.chain(optax.clip(1.0), optax.adamw(1e-3, weight_decay=0.1))
    with jax.numpy_dtype_promotion("standard"):  # of Optax's own
        _, state = before.update(params, before.init(params), params)
    ours = adamx.adamw(1e-3, weight_decay=0.1, storage="int8", landing=landing)
    after = optax.chain(optax.clip(1.0), ours)
    new = adamx.convert(state, before, after, params)
    blank = after.init(params)
    chex.assert_trees_all_equal_structs(new, blank)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, blank)
    chex.assert_trees_all_equal(new[1][-1], blank[1][-1])
    assert int(new[1][0].count) == 1
    adamx.step(after, params, new, params)
    with pytest.raises(ValueError, match=r"`opt_to` has a landing.*give the parameters"):
        adamx.convert(state, before, after)


def test_a_landing_starts_behind_a_chain_of_optaxs():
    params = {"kernel": jnp.ones((8, 4), jnp.bfloat16)}
    for links in ([optax.adamw(1e-3)], [optax.clip(1.0), optax.adamw(1e-3)]):
        before = links[0] if len(links) == 1 else optax.chain(*links)
        after = optax.chain(*links, adamx.landing.kahan())
        new = adamx.convert(before.init(params), before, after, params)
        chex.assert_trees_all_equal(new, after.init(params))


def test_a_conversion_takes_a_traced_seed():
    before, params = adamx.adam(0.1), jnp.linspace(0.1, 1.0, 50)
    _, state = before.update(params, before.init(params))

    @jax.vmap
    def converted(seed):
        after = adamx.adam(0.1, storage=adamx.storage.int8(seed=seed))
        return adamx.convert(state, before, after)[0].nu

    one, two = converted(jnp.arange(2))
    assert (one != two).any()


def test_a_landing_that_starts_in_a_store_has_to_be_told_its_parameters():
    params = {"kernel": jnp.ones((8, 4), jnp.bfloat16)}
    before = optax.adamw(1e-3, mu_dtype="float32")
    landed = optax.chain(before, adamx.landing.kahan())
    after, state = adamx.store(landed, "int8"), before.init(params)
    new = adamx.convert(state, before, after, params)
    assert new.inner[1].remainder["kernel"].dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="`opt_to` has a landing"):
        adamx.convert(state, before, after)


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_what_codes_cannot_say_is_not_made_up(storage):
    """A mean that is not finite stays so; a square beyond a step's own is the largest, no NaN."""
    there, here = adamx.scale_by_adam(storage=storage), adamx.scale_by_adam()
    mu = jnp.array([np.nan, np.inf, -np.inf, 1e19, 0.0, 1.0])
    nu = jnp.array([1.0, 1.0, 1.0, 3e38, 3.4e38, 1.0])
    state = here.init(mu)._replace(mu=mu, nu=nu)
    back = adamx.convert(adamx.convert(state, here, there), there, here)
    assert np.isnan(back.mu).tolist() == [True, True, True, False, False, False]
    assert np.isnan(back.nu).tolist() == [True, True, True, False, False, False]
    assert back.mu[4] == 0


@pytest.mark.parametrize("name", ["came", "adam_mini"])
def test_parameters_that_no_moments_tell_are_asked_for(name):
    opt = getattr(adamx, name)(1e-3)
    with pytest.raises(ValueError, match="no moments in `state` tell the shapes of the parameters"):
        adamx.convert(opt.init({"w": jnp.ones((2, 3))}), opt, opt)
