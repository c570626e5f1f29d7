# SPDX-License-Identifier: Apache-2.0
"""Optax's wrappers over ours and over Optax's own: the same state trees, the same trajectories.

Both run in float64, where Optax's bias correction costs it nothing that is seen. Optax's own
tests, in `test_theirs.py`, take more recipes through MultiSteps, mechanize and inject_hyperparams.
"""

import inspect
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

from .swap import SHARED

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
        optax.clip_by_global_norm(0.5),
        make(RATE),
        optax.scale_by_schedule(lambda count: 1 / (1 + count)),
    ),
    "freeze": lambda make: optax.transforms.selective_transform(make(RATE), freeze_mask=is_matrix),
    "reduce_on_plateau": lambda make: optax.chain(make(RATE), contrib.reduce_on_plateau()),
    "ema of updates": lambda make: optax.chain(make(RATE), optax.ema(0.9)),
}

RECIPES = {name: SHARED[name] for name in cases.RECIPES if name in SHARED}

# The usual chain, and the longest, which needs norms of parameters.
KINDS = ("adamw", "lamb")

every_recipe = pytest.mark.parametrize(("theirs", "ours"), RECIPES.values(), ids=RECIPES)
every_kind = pytest.mark.parametrize(
    ("theirs", "ours"), [RECIPES[kind] for kind in KINDS], ids=KINDS
)


def dtypes_of(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.dtype, tree)


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


def walks(wrap: Callable[[Factory], Any], ours: Factory, theirs: Factory, *problem: Any) -> Any:
    """The steps of `wrap` over ours, beside those of `wrap` over Optax's."""
    return list(zip(walk(wrap(ours), *problem), walk(wrap(theirs), *problem), strict=True))


# Where a wrapper could come between LAMB and the norms of its parameters; the rest is slow.
BESIDE_NORMS = ("masked", "flatten", "inject_hyperparams")


@pytest.mark.optimized
@pytest.mark.parametrize(
    "wrap, theirs, ours",
    [
        pytest.param(
            wrap, *RECIPES[kind], id=f"{kind}-{name}", marks=() if fast else pytest.mark.slow
        )
        for kind in KINDS
        for name, wrap in WRAPPERS.items()
        for fast in [kind == "adamw" or name in BESIDE_NORMS]
    ],
)
def test_a_wrapper_does_over_ours_what_it_does_over_optax(wrap, theirs, ours) -> None:
    for mine, other in walks(wrap, ours, theirs, *problem()):
        assert_same(mine, other)


@every_kind
def test_apply_if_finite_skips_the_same_steps(theirs, ours) -> None:
    params, gradients = problem()
    gradients[3] = jax.tree.map(lambda g: g * jnp.nan, gradients[3])
    steps = walks(WRAPPERS["apply_if_finite"], ours, theirs, params, gradients)
    for mine, other in steps:
        assert_same(mine, other)
    (before, _), _ = steps[3]
    (after, state), _ = steps[4]
    assert_same(after, before)
    assert int(state.total_notfinite) == 1


@every_kind
def test_lookahead_syncs_with_the_same_slow_parameters(theirs, ours) -> None:
    params, gradients = problem()

    def wrap(make: Factory) -> Any:
        return optax.lookahead(make(RATE), sync_period=2, slow_step_size=0.5)

    for mine, other in walks(
        wrap, ours, theirs, optax.LookaheadParams.init_synced(params), gradients
    ):
        assert_same(mine, other)


@every_kind
def test_schedule_free_evaluates_at_the_same_parameters(theirs, ours) -> None:
    last = walks(WRAPPERS["schedule_free"], ours, theirs, *problem())[-1]
    assert_same(*(contrib.schedule_free_eval_params(state, params) for params, state in last))


@every_kind
def test_an_injected_hyperparameter_can_be_read_and_changed(theirs, ours) -> None:
    params, gradients = problem()

    def step(make: Factory) -> Any:
        opt = optax.inject_hyperparams(make)(RATE)
        state = opt.init(params)
        assert float(optax.tree.get(state, "learning_rate")) == RATE
        state = optax.tree.set(state, learning_rate=jnp.asarray(2 * RATE))
        return opt.update(gradients[0], state, params)

    assert_same(step(ours), step(theirs))


@every_recipe
def test_nothing_more_is_injected_than_in_optax(theirs, ours) -> None:
    params, _ = problem()
    static = {"clip_value_fn"} & inspect.signature(theirs).parameters.keys()
    mine, other = (
        optax.inject_hyperparams(make, static_args=static)(RATE).init(params)
        for make in (ours, theirs)
    )
    assert mine.hyperparams.keys() == other.hyperparams.keys()
    assert_same(mine, other)


@every_kind
@pytest.mark.parametrize("gradient", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("parameter", ["float32", "float16", "bfloat16"])
def test_multi_steps_keeps_the_dtypes_of_updates_and_parameters(
    theirs, ours, gradient, parameter
) -> None:
    params, grads = cases.params(parameter), cases.grads(cases.params(gradient))
    opt = ours(RATE)
    steps = optax.MultiSteps(opt, 4)

    def dtypes(opt: Any) -> Any:
        updates, _ = jax.eval_shape(opt.update, grads, opt.init(params), params)
        applied = jax.eval_shape(optax.apply_updates, params, updates)
        assert dtypes_of(applied) == dtypes_of(params)
        return dtypes_of(updates)

    assert dtypes(steps) == dtypes(opt)


@every_recipe
def test_tree_get_and_set_find_what_they_find_in_optax(theirs, ours) -> None:
    params, _ = problem()
    mine, other = (make(optax.constant_schedule(RATE)).init(params) for make in (ours, theirs))
    for path, leaf in jax.tree.leaves_with_path(other):
        assert (path, leaf.shape) in [(p, x.shape) for p, x in jax.tree.leaves_with_path(mine)]
    assert len(optax.tree.get_all_with_path(mine, "count")) == len(
        optax.tree.get_all_with_path(other, "count")
    )
    mean = next(name for name in ("mu", "m", "m1") if optax.tree.get(other, name) is not None)
    ones = optax.tree.ones_like(params)
    assert_same(optax.tree.get(optax.tree.set(mine, **{mean: ones}), mean), ones)


@every_recipe
def test_map_params_gives_every_moment_the_spec_of_its_parameter(theirs, ours) -> None:
    params, _ = problem()
    kernel = PartitionSpec("x", "y")
    specs = {"dense": {"kernel": kernel, "bias": PartitionSpec("y")}, "gain": PartitionSpec()}

    def place(opt: Any) -> Any:
        return optax.tree.map_params(
            opt, lambda _, spec: spec, opt.init(params), specs, transform_non_params=lambda _: None
        )

    assert place(ours(RATE)) == place(theirs(RATE))
    assert kernel in jax.tree.leaves(place(ours(RATE)))
