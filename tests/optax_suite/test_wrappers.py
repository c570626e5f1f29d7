# SPDX-License-Identifier: Apache-2.0
"""Optax's wrappers over ours and over Optax's own: the same state trees, the same trajectories.

Both run in float64, where Optax's bias correction costs it nothing that is seen.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from optax import contrib

from tests import cases

Factory = Callable[..., optax.GradientTransformationExtraArgs]

RATE = 0.01
STEPS = 7

# 1e-9 of a step: a thousand times what two orders of the same float64 operations differ by.
BOUND = 1e-9


@pytest.fixture(autouse=True)
def _double_precision_and_the_promotion_that_wrappers_assume() -> Iterator[None]:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


def problem() -> tuple[Any, list[Any]]:
    """Parameters and gradients, the same for every pair."""
    params = {k: v for k, v in cases.params("float64").items() if v is not None}
    return params, [cases.grads(params, seed) for seed in range(STEPS)]


def labels(params: Any) -> Any:
    return jax.tree.map(lambda p: "matrix" if p.ndim > 1 else "rest", params)


def is_matrix(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)


WRAPPERS: dict[str, Callable[[Factory], Any]] = {
    "inject_hyperparams": lambda make: optax.inject_hyperparams(make)(RATE),
    "inject_hyperparams, a schedule": lambda make: optax.inject_hyperparams(make)(
        learning_rate=optax.linear_schedule(RATE, 0.0, STEPS)
    ),
    "MultiSteps": lambda make: optax.MultiSteps(make(RATE), 3).gradient_transformation(),
    "masked": lambda make: optax.masked(make(RATE), is_matrix),
    "partition": lambda make: optax.partition(
        {"matrix": make(RATE), "rest": optax.sgd(RATE)}, labels
    ),
    "schedule_free": lambda make: contrib.schedule_free(make(RATE), RATE, b1=0.9),
    "mechanize": lambda make: contrib.mechanize(make(RATE)),
    "apply_if_finite": lambda make: optax.apply_if_finite(make(RATE), 2),
    "flatten": lambda make: optax.flatten(make(RATE)),
    "chain with clipping": lambda make: optax.chain(
        optax.clip_by_global_norm(0.5), make(RATE), optax.scale_by_schedule(lambda count: 1 / (1 + count))
    ),
    "freeze": lambda make: optax.transforms.selective_transform(
        make(RATE), freeze_mask=is_matrix
    ),
    "reduce_on_plateau": lambda make: optax.chain(make(RATE), contrib.reduce_on_plateau()),
    "ema of updates": lambda make: optax.chain(make(RATE), optax.ema(0.9)),
}

every_recipe = pytest.mark.parametrize("recipe", cases.RECIPES.values(), ids=cases.RECIPES)


def walk(opt: Any, params: Any, gradients: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Parameters and state, at first and after each step."""
    opt = optax.with_extra_args_support(opt)

    @jax.jit
    def step(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, state = opt.update(grads, state, params, value=jnp.float64(1.0))
        return optax.apply_updates(params, updates), state

    state = opt.init(params)
    yield params, state
    for grads in gradients:
        params, state = step(grads, state, params)
        yield params, state


def assert_same(ours: Any, theirs: Any) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
        np.testing.assert_allclose(mine, other, rtol=BOUND, atol=BOUND * RATE)


@every_recipe
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapper_does_over_ours_what_it_does_over_optax(wrap, recipe) -> None:
    params, gradients = problem()
    ours = walk(wrap(recipe), params, gradients)
    theirs = walk(wrap(recipe.of_optax), params, gradients)
    for mine, other in zip(ours, theirs, strict=True):
        assert_same(mine, other)


@every_recipe
def test_apply_if_finite_skips_the_same_steps(recipe) -> None:
    params, gradients = problem()
    gradients[3] = jax.tree.map(lambda g: g * jnp.nan, gradients[3])
    wrap = WRAPPERS["apply_if_finite"]
    ours = list(walk(wrap(recipe), params, gradients))
    for mine, other in zip(ours, walk(wrap(recipe.of_optax), params, gradients), strict=True):
        assert_same(mine, other)
    assert_same(ours[4][0], ours[3][0])
    assert int(ours[4][1].total_notfinite) == 1


@every_recipe
def test_lookahead_syncs_with_the_same_slow_parameters(recipe) -> None:
    params, gradients = problem()
    params = optax.LookaheadParams.init_synced(params)
    gradients = [optax.LookaheadParams(g, g).fast for g in gradients]

    def wrap(make: Factory) -> Any:
        return optax.lookahead(make(RATE), sync_period=2, slow_step_size=0.5)

    theirs = walk(wrap(recipe.of_optax), params, gradients)
    for mine, other in zip(walk(wrap(recipe), params, gradients), theirs, strict=True):
        assert_same(mine, other)


@every_recipe
def test_schedule_free_evaluates_at_the_same_parameters(recipe) -> None:
    params, gradients = problem()
    (*_, ours), (*_, theirs) = (
        walk(WRAPPERS["schedule_free"](make), params, gradients)
        for make in (recipe, recipe.of_optax)
    )
    assert_same(*(contrib.schedule_free_eval_params(state, p) for p, state in (ours, theirs)))


@every_recipe
def test_injected_hyperparameters_are_those_of_optax_and_one_can_be_changed(recipe) -> None:
    params, gradients = problem()
    after = []
    for make in (recipe, recipe.of_optax):
        opt = WRAPPERS["inject_hyperparams"](make)
        state = opt.init(params)
        shared = dict(state.hyperparams)
        state.hyperparams["learning_rate"] = jnp.asarray(2 * RATE)
        updates, state = opt.update(gradients[0], state, params)
        after.append((updates, state.inner_state, shared))
    ours, theirs = after
    assert_same(ours[:2], theirs[:2])
    assert_same({k: ours[2][k] for k in theirs[2]}, theirs[2])


@every_recipe
def test_tree_get_and_set_reach_the_same_values(recipe) -> None:
    params, _ = problem()
    for make in (recipe, recipe.of_optax):
        state = make(optax.constant_schedule(RATE)).init(params)
        moment = "m" if recipe.name == "adan" else "mu"
        ones = optax.tree.ones_like(params)
        state = optax.tree.set(state, **{moment: ones})
        assert_same(optax.tree.get(state, moment), ones)
        path = optax.tree.get_all_with_path(state, moment)
        assert len(path) == 1
    assert_paths_match(recipe)


def assert_paths_match(recipe: cases.Recipe) -> None:
    params, _ = problem()
    schedule = optax.constant_schedule(RATE)
    paths = [
        jax.tree_util.tree_leaves_with_path(make(schedule).init(params))
        for make in (recipe, recipe.of_optax)
    ]
    ours, theirs = ([path for path, _ in found] for found in paths)
    assert ours == theirs
    state = recipe(schedule).init(params)
    assert len(optax.tree.get_all_with_path(state, "count")) == len(
        optax.tree.get_all_with_path(recipe.of_optax(schedule).init(params), "count")
    )


@every_recipe
def test_map_params_places_every_moment_like_its_parameter(recipe) -> None:
    params, _ = problem()
    specs = {"dense": {"kernel": PartitionSpec("x", "y"), "bias": PartitionSpec("y")}, "gain": PartitionSpec()}
    ours, theirs = (
        optax.tree.map_params(
            opt,
            lambda _, spec: spec,
            opt.init(params),
            specs,
            transform_non_params=lambda _: PartitionSpec(),
        )
        for opt in (recipe(RATE), recipe.of_optax(RATE))
    )
    assert ours == theirs
    assert jax.tree.leaves(ours).count(PartitionSpec("x", "y")) >= 1
