# SPDX-License-Identifier: Apache-2.0
"""Contracts 3 and 4: dtypes of states and updates."""

import contextlib
import functools
from collections.abc import Iterator

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import adamx
from tests import cases
from tests.cases import every_recipe, form, pairs


@contextlib.contextmanager
def wide_enough(dtype: str) -> Iterator[None]:
    with jax.enable_x64(dtype == "float64"):
        yield


@pairs(*cases.DTYPES)
def test_dtypes_of_state_and_updates_never_change_and_nothing_compiles_twice(
    recipe, dtype, storage
):
    with wide_enough(dtype):
        opt = recipe(storage=storage)
        params = cases.params(dtype)
        if storage == "int4" and dtype == "complex64" and recipe.packs:
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
    opt, params = recipe(), cases.params()["dense"]["kernel"]
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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_rule_by_itself_casts_as_its_link_does(dtype):
    params = cases.params(dtype)
    for alone, link in (
        (adamx.scale_by(adamx.rules.adam()), adamx.scale_by_adam()),
        (adamx.scale_by(adamx.rules.belief()), adamx.scale_by_belief()),
    ):
        ours, theirs = (t.update(params, t.init(params), params)[0] for t in (alone, link))
        assert form(ours) == form(theirs) == form(params)
        chex.assert_trees_all_equal(ours, theirs)
