# SPDX-License-Identifier: Apache-2.0
"""A reset sets moments to zero, restarts the counts that it should, and touches nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import adamx
from adamx import health
from tests import cases


def params(dtype=jnp.float32):
    return {"kernel": jnp.ones((2, 3), dtype), "bias": jnp.ones(3, dtype)}


def used(opt, like=None):
    """A state no entry of which is what `init` makes it."""
    like = params() if like is None else like
    return jax.tree.map(lambda x: x + jnp.ones([], x.dtype), opt.init(like))


def assert_same(found, want):
    assert jax.tree.structure(found) == jax.tree.structure(want)
    for (path, x), y in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(want), strict=True):
        assert (x.dtype, x.weak_type) == (y.dtype, y.weak_type), path
        np.testing.assert_array_equal(x, y, str(path))


@cases.every_pair
def test_with_no_count_kept_it_is_the_first_state(recipe, storage):
    opt = recipe(storage=storage)
    first = opt.init(params())
    start = first if recipe.name == "yogi" else None  # its squares start at 1e-6
    assert_same(adamx.reset(used(opt), "none", start), first)
    zeros = adamx.reset(used(opt), "schedule", start)
    assert_same(zeros, first)  # no schedule, no other count


@pytest.mark.parametrize("storage", cases.STORAGES)
def test_codes_of_zero_stand_for_zero(storage):
    opt, plain = adamx.adam(1e-3, storage=storage), adamx.adam(1e-3)
    moments = adamx.convert(adamx.reset(used(opt)), opt, plain)[0]
    assert not any(np.any(x) for x in jax.tree.leaves((moments.mu, moments.nu)))


def wrapped():
    """A chain of two schedules around a rule, under a mask, with remainders of weights."""
    half = optax.constant_schedule(0.5)
    inner = adamx.adamw(half, weight_decay=half, landing="exact")
    return optax.chain(
        adamx.clip_by_global_norm(1.0), optax.masked(inner, {"kernel": True, "bias": False})
    )


@pytest.mark.parametrize(
    "keep, counts", [("schedule", (0, 1, 1)), ("count", (1, 1, 1)), ("none", (0, 0, 0))]
)
def test_each_kind_of_count_has_its_choice(keep, counts):
    opt = wrapped()
    state = used(opt, params(jnp.bfloat16))
    found = adamx.reset(state, keep)
    rule, decay, rate, landing = found[1].inner_state
    assert (rule.count, decay.count, rate.count) == counts
    assert not np.any(rule.mu["kernel"])
    assert not np.any(rule.nu["kernel"])
    assert_same(landing, state[1].inner_state[-1])
    assert np.all(landing.remainder["kernel"] == 1)


@pytest.mark.parametrize("keep, rule, schedule", [("schedule", 0, 1), ("none", 0, 0)])
def test_injected_schedules_count_for_themselves(keep, rule, schedule):
    make = optax.inject_hyperparams(adamx.adam)
    found = adamx.reset(used(make(learning_rate=optax.constant_schedule(1.0))), keep)
    assert (found.inner_state[0].count, found.count) == (rule, schedule)
    assert found.hyperparams_states["learning_rate"].count == schedule
    assert not np.any(found.inner_state[0].nu["bias"])


def test_the_first_step_after_it_is_a_first_step():
    rate = optax.linear_schedule(1.0, 0.0, 10)
    opt, grads = adamx.adam(rate), cases.grads(params())
    state = opt.init(params())
    for _ in range(4):
        _, state = opt.update(cases.grads(params(), 7), state)
    updates, _ = opt.update(grads, adamx.reset(state))
    want = jax.tree.map(lambda g: -rate(4) * jnp.sign(g), grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), updates, want)
    late, _ = opt.update(grads, adamx.reset(jax.tree.map(lambda x: x + 10_000, state), "count"))
    np.testing.assert_allclose(late["bias"], 0, atol=1e-6)  # where the schedule has ended


def test_a_fold_forgets_the_gradients_that_are_in_its_moments():
    opt, g = adamx.fold_micro_batches(adamx.adam(0.1), every=3), {"a": jnp.array([-3.0, 0.5])}
    params, state = g, opt.init(g)
    for _ in range(4):
        params, state = adamx.step(opt, params, state, g)
    state, before = adamx.reset(state), params
    for _ in range(3):
        params, state = adamx.step(opt, params, state, g)
    np.testing.assert_allclose(before["a"] - params["a"], [-0.1, 0.1], rtol=1e-5)  # Adam's first


def test_with_the_count_kept_nothing_corrects_for_the_zeros():
    opt, g = adamx.adam(1.0), {"a": jnp.array([-3.0, 0.5])}
    state = jax.tree.map(lambda x: x + jnp.asarray(50_000, x.dtype), opt.init(g))
    updates, _ = opt.update(g, adamx.reset(state, "count"))
    np.testing.assert_allclose(updates["a"], -0.1 / 0.001**0.5 * np.sign(g["a"]), 1e-4)


@pytest.mark.parametrize("storage", ["float32", "int4"])
def test_adans_count_restarts_with_its_last_gradient(storage):
    (moments, *_) = adamx.reset(used(adamx.adan(1e-3, storage=storage)), "count")
    assert not any(np.any(x) for x in jax.tree.leaves(moments))


def test_shardings_stay():
    mesh = jax.make_mesh((8,), ("x",))
    there = NamedSharding(mesh, PartitionSpec("x"))
    p = jax.device_put(jnp.ones((8, 2), jnp.bfloat16), there)
    state = used(adamx.adamw(1e-3, storage="int8", landing="kahan"), p)
    found = adamx.reset(state)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
    assert found[0].nu.sharding.is_equivalent_to(there, 2)


LABELS = {"kernel": "a", "bias": "b"}


@pytest.mark.parametrize(
    "opt, kept",
    [
        (optax.sgd(0.1, momentum=0.9), ()),
        (optax.rmsprop(0.1), ()),
        (optax.adafactor(0.1, min_dim_size_to_factor=2, momentum=0.9), ()),
        (optax.contrib.muon(0.1), ("ns_coeffs",)),
        (optax.contrib.ademamix(0.1), ()),
        (optax.contrib.prodigy(0.1), ("params0", "estim_lr", "grad_sum", "numerator_weighted")),
        (optax.contrib.schedule_free_adamw(0.1), ("z", "weight_sum", "step_count", "max_lr", "b1")),
        (optax.MultiSteps(adamx.adam(0.1), 4), ("acc_grads", "mini_step", "gradient_step")),
        (
            optax.partition(
                {"a": optax.adam(0.1), "b": optax.lion(0.1)}, {"kernel": "a", "bias": "b"}
            ),
            (),
        ),
    ],
    ids=lambda x: None if isinstance(x, tuple) and not hasattr(x, "init") else "",
)
def test_optaxs_states_too_and_nothing_but_moments(opt, kept):
    with jax.numpy_dtype_promotion("standard"):  # of Optax's own
        state = used(opt)
    found = adamx.reset(state)
    for (path, x), old in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves(state), strict=True
    ):
        stays = any(getattr(part, "name", None) in kept for part in path)
        assert np.array_equal(x, old) if stays else not np.any(x), path


def test_snapshots_and_statistics_of_guards_stay():
    opt = health.rewind(health.observe(adamx.adam(0.1)), every=1)
    state = used(opt)
    found = adamx.reset(state)
    assert_same(found.kept, state.kept)
    moved = [
        jax.tree_util.keystr(path)
        for (path, x), y in zip(
            jax.tree.leaves_with_path(found), jax.tree.leaves(state), strict=True
        )
        if not np.array_equal(x, y, equal_nan=True)
    ]
    assert moved
    assert all(name.endswith(("count", "['kernel']", "['bias']")) for name in moved), moved


def test_what_cannot_be_reset_is_refused():
    state = adamx.adam(1e-3).init(params())
    with pytest.raises(ValueError, match="`keep` must be one of 'schedule', 'count', 'none', got"):
        adamx.reset(state, "all")
    with pytest.raises(ValueError, match="must hold moments of ours or Optax's, got EmptyState"):
        adamx.reset(optax.sgd(1e-3).init(params()))
    with pytest.raises(ValueError, match="`initial` must have the structure of `state`"):
        adamx.reset(state, initial=(state, state))
