# SPDX-License-Identifier: Apache-2.0
"""Cautious steps, against NumPy, in every place where directions come from."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

import adamx
from tests import cases


def masked(u, g):
    """Liang et al. (2411.16085), as in the authors' code: one leaf."""
    agrees = (u * g > 0).astype(float)
    return u * agrees / max(agrees.mean(), 1e-3)


def rows(steps=6, shape=(8, 5)):
    return np.random.default_rng(0).normal(size=(steps, *shape))


def ran(opt, grads, params):
    def step(state, g):
        updates, state = opt.update(g, state, params)
        return state, updates

    return jax.lax.scan(step, opt.init(params), grads)[1]


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def test_the_direction_is_masked_before_it_decays():
    grads, params = jnp.asarray(rows()), jnp.ones((8, 5), jnp.float64)
    plain = np.asarray(ran(adamx.scale_by_adam(), grads, params))
    want = np.stack([masked(u, g) for u, g in zip(plain, rows(), strict=True)])
    assert 0.1 < np.mean(want == 0) < 0.6
    got = ran(adamx.cautious(adamx.adamw(1.0, weight_decay=0.5)), grads, params)
    np.testing.assert_allclose(got, -want - 0.5, rtol=1e-12)


@pytest.mark.parametrize("name", ["lion", "lamb", "stable_adamw", "ademamix"])
def test_no_step_of_any_rule_goes_against_its_gradient(name):
    grads, params = jnp.asarray(rows()), jnp.ones((8, 5), jnp.float64)
    got = ran(adamx.cautious(getattr(adamx, name)(1.0, weight_decay=0.0)), grads, params)
    assert np.all((np.asarray(got) == 0) | (np.sign(got) == -np.sign(grads)))
    assert np.any(np.asarray(got) == 0)


def test_the_gradient_is_the_one_that_the_rule_sees():
    grads, params = jnp.asarray(rows()), jnp.ones((8, 5), jnp.float64)
    adam = adamx.cautious(adamx.scale_by_adam(b1=0.95, b2=0.99))
    want = ran(optax.chain(adamx.reduce_variance(), adam), grads, params)
    got = ran(adamx.cautious(adamx.mars(0.5)), grads, params)
    np.testing.assert_allclose(got, -0.5 * want, rtol=1e-12)


def test_a_direction_of_ours_and_an_optimizer_of_others_are_masked_alike():
    grads, params = jnp.asarray(rows()), jnp.ones((8, 5), jnp.float64)
    want = ran(adamx.cautious(adamx.scale_by_adam()), grads, params)
    with jax.numpy_dtype_promotion("standard"):
        up = ran(adamx.cautious(optax.scale_by_adam(), updates="uphill"), grads, params)
        down = ran(adamx.cautious(optax.adam(0.5), updates="downhill"), grads, params)
        chained = optax.chain(optax.clip(1e9), adamx.adam(0.5))
        ours = ran(adamx.cautious(chained, updates="downhill"), grads, params)
    np.testing.assert_allclose(up, want, rtol=1e-6)
    np.testing.assert_allclose(down, -0.5 * want, rtol=1e-6)
    np.testing.assert_allclose(ours, -0.5 * want, rtol=1e-12)


def test_where_updates_point_has_to_be_said_of_others_alone():
    with pytest.raises(
        ValueError, match=r"cautious: `opt` has no rule of ours, .*: `updates` must"
    ):
        adamx.cautious(optax.adam(0.1))
    with pytest.raises(ValueError, match="got 'up'"):
        adamx.cautious(optax.adam(0.1), updates="up")
    with pytest.raises(ValueError, match="grams: `updates` of a recipe of ours are known, got"):
        adamx.grams(adamx.adam(0.1), updates="uphill")


def test_steps_behind_a_landing_are_not_changed():
    """Its remainder is of its own step, and the parameter would be that of another."""
    params = jnp.ones(3, jnp.bfloat16)
    for inner in (adamx.adamw(0.1, landing="exact"), adamx.adamw(0.1, landing="kahan")):
        chained = optax.chain(adamx.clip_by_global_norm(1.0), inner)
        with pytest.raises(ValueError, match="cautious: `opt` ends in a landing, which keeps"):
            adamx.cautious(chained, updates="downhill").init(params)
        optax.chain(adamx.clip_by_global_norm(1.0), adamx.cautious(inner)).init(params)


@pytest.mark.parametrize("storage", cases.STORAGES)
def test_the_state_is_the_recipes_own(storage):
    params = cases.params()
    plain = adamx.adamw(0.1, storage=storage)
    opt = adamx.cautious(adamx.grams(plain))
    state = opt.init(params)
    chex.assert_trees_all_equal(state, plain.init(params))
    other = adamx.adamw(0.1)
    assert jax.tree.structure(adamx.convert(state, opt, other)) == jax.tree.structure(
        other.init(params)
    )
    assert adamx.cautious(adamx.adamw(0.1)) == adamx.cautious(adamx.adamw(0.1))


def test_shards_are_scaled_by_the_share_of_the_whole_leaf():
    grads, params = jnp.asarray(rows()), jnp.ones((8, 5), jnp.float64)
    want = ran(adamx.cautious(adamx.adamw(0.1)), grads, params)
    opt = adamx.cautious(adamx.adamw(0.1), axis_name="x")
    mesh = Mesh(np.array(jax.devices()), "x")
    cut, along = PartitionSpec("x"), PartitionSpec(None, "x")
    split = jax.shard_map(
        lambda g, p: ran(opt, g, p), mesh=mesh, in_specs=(along, cut), out_specs=along
    )
    np.testing.assert_allclose(jax.jit(split)(grads, params), want, rtol=1e-12)


@pytest.mark.parametrize("modifier", [adamx.cautious, adamx.grams])
def test_hostile_numbers_and_half_precision(modifier):
    opt = modifier(adamx.adam(0.1))
    g = jnp.array([1.0, 0.0, -1e-30, 1e20, 1e-40], jnp.float32)
    updates, state = opt.update(g, opt.init(g), g)
    assert np.isfinite(updates).all()
    assert updates[1] == 0
    bad, _ = opt.update(g.at[0].set(jnp.nan).at[2].set(jnp.inf), state, g)
    np.testing.assert_array_equal(np.isnan(bad), [True, False, True, False, False])
    params = {"w": jnp.ones(3, jnp.bfloat16), "c": jnp.full(2, 1 + 1j, jnp.complex64), "n": None}
    updates, _ = opt.update(params, opt.init(params), params)
    assert (updates["w"].dtype, updates["c"].dtype) == ("bfloat16", "complex64")
    np.testing.assert_allclose(updates["c"], -0.1 * (1 + 1j) / np.sqrt(2), rtol=1e-6)


def test_a_quadratic_is_solved_under_jit_with_a_landing_and_int8():
    opt = adamx.cautious(adamx.adamw(0.05, storage="int8", landing="exact"))
    params = jnp.asarray(rows(1)[0], jnp.bfloat16)
    step, state = jax.jit(lambda p, s: adamx.step(opt, p, s, p)), opt.init(params)
    for _ in range(60):
        params, state = step(params, state)
    assert float(jnp.abs(params).max()) < 0.1
