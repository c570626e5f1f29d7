# SPDX-License-Identifier: Apache-2.0
"""Name by name: Optax's signature is the beginning of ours, and its arguments give its state."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from adamx.optimizers.adopt import fourth_root
from tests import cases

from .swap import SHARED

POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
KEYWORD = inspect.Parameter.KEYWORD_ONLY

every_name = pytest.mark.parametrize(("theirs", "ours"), SHARED.values(), ids=SHARED)


def parameters(function: Callable) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def same_default(a: Any, b: Any) -> bool:
    """Equal and of one type, so that 0 is not False; functions agree on a few values."""
    if callable(a) and callable(b) and not isinstance(a, type):
        return all(float(a(x)) == float(b(x)) for x in (0.0, 1.0, 2.0, 81.0))
    return a == b and type(a) is type(b)


def test_the_whole_family_is_shared() -> None:
    found = [recipe for recipe in cases.RECIPES.values() if recipe.in_optax]
    recipes = {name for recipe in found for name in (recipe.name, recipe.link)}
    links = {"scale_by_trust_ratio", "scale_by_learning_rate", "add_decayed_weights"}
    assert recipes | links <= SHARED.keys()


@every_name
def test_positional_parameters_are_those_of_optax_in_their_order(theirs, ours) -> None:
    def positional(function: Callable) -> list[str]:
        return [n for n, p in parameters(function).items() if p.kind is not KEYWORD]

    assert positional(ours) == positional(theirs)
    assert {p.kind for p in parameters(ours).values()} <= {POSITIONAL, KEYWORD}


@every_name
def test_every_parameter_of_optax_has_its_kind_and_default(theirs, ours) -> None:
    for name, parameter in parameters(theirs).items():
        mine = parameters(ours)[name]
        assert mine.kind is parameter.kind, name
        # ADOPT's None stands for this function: `inject_hyperparams` takes functions for schedules.
        default = fourth_root if name == "clip_value_fn" and mine.default is None else mine.default
        assert same_default(default, parameter.default), (name, mine.default)


@every_name
def test_parameters_of_our_own_are_keywords_with_a_default(theirs, ours) -> None:
    for name in parameters(ours).keys() - parameters(theirs).keys():
        assert parameters(ours)[name].kind is KEYWORD, name
        assert parameters(ours)[name].default is not inspect.Parameter.empty, name


@every_name
def test_rates_are_annotated_as_in_optax_which_asks_whether_a_schedule_may_come(
    theirs, ours
) -> None:
    rate = parameters(theirs).get("learning_rate")
    if rate is not None and rate.annotation == optax.ScalarOrSchedule:
        assert parameters(ours)["learning_rate"].annotation == optax.ScalarOrSchedule


# Values for each parameter that Optax has: what its functions accept beyond the default.
DECAY_MASK = {"dense": {"kernel": True, "bias": False}, "gain": False, "frozen": None}
NEEDED = {
    "learning_rate": 0.1,
    "max_delta": 0.5,
    "max_norm": 0.5,
    "threshold": 0.5,
    "clipping": 0.5,
    "base_optimizer": optax.sgd(0.1),
}
VALUES = {
    "learning_rate": (optax.linear_schedule(0.1, 0.0, 10), jnp.float32(0.1)),
    "b1": (0.5,),
    "b2": (0.9,),
    "b3": (0.9,),
    "alpha": (2.0, optax.linear_schedule(0.0, 5.0, 10)),
    "eps": (1e-4,),
    "eps_root": (1e-4,),
    "mu_dtype": ("bfloat16", jnp.float32),
    "weight_decay": (optax.linear_schedule(0.1, 0.0, 10), 0.1),
    "mask": (DECAY_MASK, lambda params: jax.tree.map(lambda p: p.ndim > 1, params)),
    "nesterov": (True, False),
    "bias_correction_mu": (False,),
    "bias_correction_nu": (False,),
    "threshold": (4.0,),
    "use_clipping": (False,),
    "clip_value_fn": (lambda count: 1.0 + count,),
    "initial_accumulator_value": (1e-3,),
    "mode": ("smooth", "refined"),
    "smooth_beta": (2.0,),
    "flip_sign": (False,),
    "min_norm": (0.1,),
    "trust_coefficient": (0.5,),
    "max_delta": (0.25,),
    "max_norm": (0.25,),
    "clipping": (0.25,),
    "axis": ((),),
    "min_dim_size_to_factor": (3,),
    "decay_rate": (0.5,),
    "decay_offset": (-2,),
    "step_offset": (-2,),
    "multiply_by_parameter_scale": (False,),
    "clipping_threshold": (None, 2.0),
    "momentum": (0.9,),
    "dtype_momentum": ("bfloat16", jnp.float32),
    "weight_decay_rate": (optax.linear_schedule(0.1, 0.0, 10), 0.1),
    "weight_decay_mask": (lambda params: jax.tree.map(lambda p: p.ndim > 1, params),),
    "factored": (False, True),
    "epsilon": (1e-6,),
    "decay_rate_fn": (lambda step, rate: 0.9 + 0.0 * rate,),
    "base_optimizer": (optax.sgd(0.1),),
    "betas": ((0.5, 0.9),),
    "beta3": (0.9,),
    "estim_lr0": (1e-3,),
    "estim_lr_coef": (2.0,),
    "safeguard_warmup": (True,),
    "warmup_steps": (4, None),
    "weight_lr_power": (1.0,),
    "state_dtype": ("bfloat16", jnp.float32),
}


def _calls() -> Iterator[Any]:
    """Each function with its defaults, then with each value alone, then with all of the last."""
    for name, (theirs, ours) in SHARED.items():
        accepted = parameters(theirs)
        if "state" in accepted:  # a function of a state makes none
            continue
        base = {k: v for k, v in NEEDED.items() if k in accepted and _is_needed(accepted[k])}
        singles = [{**base, k: v} for k in accepted for v in VALUES[k]]
        if name == "prodigy":  # Optax's decays by a number only
            singles = [x for x in singles if not callable(x.get("weight_decay"))]
        for i, kwargs in enumerate([base, *singles, {k: VALUES[k][-1] for k in accepted}]):
            yield pytest.param(theirs, ours, kwargs, id=f"{name} {i}")


def _is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty


def form(tree: Any) -> Any:
    """Structure with its classes, shapes and dtypes."""
    return jax.tree.structure(tree), [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize(("theirs", "ours", "kwargs"), list(_calls()))
def test_arguments_of_optax_give_the_state_of_optax(theirs, ours, kwargs) -> None:
    params = cases.params()
    grads = cases.grads(params)
    expected = theirs(**kwargs)
    found = ours(**kwargs)
    assert isinstance(found, optax.GradientTransformationExtraArgs)
    state = expected.init(params)
    assert form(found.init(params)) == form(state)

    # A state of Optax's, as from a checkpoint, goes on in ours and keeps its form, which Optax's
    # AdEMAMix with a `mu_dtype` does not.
    with jax.numpy_dtype_promotion("standard"):
        wanted, _ = jax.eval_shape(expected.update, grads, state, params)
    updates, after = jax.eval_shape(found.update, grads, state, params)
    assert (form(updates), form(after)) == (form(wanted), form(state))
