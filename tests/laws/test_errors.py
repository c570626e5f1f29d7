# SPDX-License-Identifier: Apache-2.0
"""Contract 11: an error names the argument or the leaf, the rule and the value."""

import functools
import re
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests import cases

every_recipe = pytest.mark.parametrize("recipe", cases.RECIPES.values(), ids=cases.RECIPES)

OUT_OF_RANGE = [
    ({"b1": 1.0}, "`b1` must be in [0, 1), got 1.0"),
    ({"b1": -0.1}, "`b1` must be in [0, 1), got -0.1"),
    ({"b2": 1.5}, "`b2` must be in [0, 1), got 1.5"),
    ({"b2": np.float64(1.0)}, "`b2` must be in [0, 1), got 1.0"),
    ({"b2": float("nan")}, "`b2` must be in [0, 1), got nan"),
    ({"learning_rate": float("nan")}, "`learning_rate` must be finite, got nan"),
    ({"learning_rate": float("inf")}, "`learning_rate` must be finite, got inf"),
    ({"weight_decay": -1e-2}, "`weight_decay` must be in [0, inf), got -0.01"),
    ({"weight_decay": float("inf")}, "`weight_decay` must be in [0, inf), got inf"),
]


@every_recipe
@pytest.mark.parametrize("bad, message", OUT_OF_RANGE)
def test_a_hyperparameter_out_of_range_is_refused_where_the_recipe_is_built(recipe, bad, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        recipe(**bad)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: adamx.adam(1e-3, eps=-1e-8), "`eps` must be in [0, inf), got -1e-08"),
        (lambda: adamx.adam(1e-3, eps_root=-1.0), "`eps_root` must be in [0, inf), got -1.0"),
        (lambda: adamx.adan(1e-3, b3=1.0), "`b3` must be in [0, 1), got 1.0"),
        (lambda: adamx.adan(1e-3, difference_weight=-1.0), "`difference_weight` must be in [0,"),
        (lambda: adamx.radam(1e-3, threshold=float("nan")), "`threshold` must be finite, got nan"),
        (lambda: adamx.lion(1e-3, smooth_beta=-1.0), "`smooth_beta` must be in [0, inf), got -1"),
        (lambda: adamx.nadam(1e-3, momentum_decay=-1.0), "`momentum_decay` must be in [0, inf)"),
        (lambda: adamx.adam(1e-3, momentum_decay=4e-3), "`momentum_decay` needs `nesterov=True`"),
        (
            lambda: adamx.adam(1e-3, eps_mode="in"),
            "`eps_mode` must be one of 'outside', 'hat', 'at",
        ),
        (
            lambda: adamx.radam(1e-3, eps_mode="atan2"),
            "`eps_mode` must be one of 'outside', 'hat', ",
        ),
        (
            lambda: adamx.amsgrad(1e-3, max_of="all"),
            "`max_of` must be one of 'corrected', 'raw', g",
        ),
        (
            lambda: adamx.lion(1e-3, mode="soft"),
            "`mode` must be one of 'hard', 'smooth', 'refined'",
        ),
        (
            lambda: adamx.scale_by_yogi(initial_accumulator_value=-1.0),
            "`initial_accumulator_value` ",
        ),
        (
            lambda: adamx.adam(1e-3, mu_dtype="int8"),
            "`mu_dtype` must be a floating dtype of at lea",
        ),
        (
            lambda: adamx.adam(1e-3, nu_dtype="int8"),
            "`nu_dtype` must be a floating dtype of at lea",
        ),
        (
            lambda: adamx.adam(1e-3, mu_dtype="float8_e4m3fn"),
            "`mu_dtype` must be a floating dtype ",
        ),
        (
            lambda: adamx.adam(1e-3, nu_dtype="float16"),
            "`nu_dtype` must not be float16: squares be",
        ),
        (
            lambda: adamx.adam(1e-3, storage="int7"),
            "`storage` must be one of 'float32', 'bfloat16'",
        ),
        (lambda: adamx.prodigy(betas=0.9), "`betas` must be two numbers, got 0.9"),
        (lambda: adamx.adam(1e-3, storage=3), "`storage` must be one of 'float32', 'bfloat16'"),
        (
            lambda: adamx.adam(1e-3, storage="bfloat16", mu_dtype="bfloat16"),
            "give either `storage`",
        ),
        (lambda: adamx.adam(1e-3, mask="*"), "`mask` says which leaves decay: give `weight_decay`"),
        (
            lambda: adamx.adam(np.ones(3)),
            "`learning_rate` must be a scalar, got an array of shape ",
        ),
        (
            lambda: adamx.adamw(lambda t: 0.1, weight_decay=adamx.decay.corrected(0.1)),
            "this decay needs the `peak` of the learning rate, a number other than 0, wherever the",
        ),
        (
            lambda: adamx.adamw(jnp.float32(0.1), weight_decay=adamx.decay.corrected(0.1)),
            "this decay needs the `peak` of the learning rate, a number other than 0, wherever the",
        ),
        (
            lambda: adamx.adamw(0.0, weight_decay=adamx.decay.scheduled(0.1)),
            "this decay needs the `peak` of the learning rate, a number other than 0, wherever the",
        ),
        (
            lambda: adamx.add_decayed_weights(adamx.decay.scheduled(0.1)),
            "this decay follows the learning rate: give it to a recipe's `weight_decay`",
        ),
    ],
)
def test_a_bad_argument_is_named(build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


@pytest.mark.parametrize("bad", ["0.9", True, None.__class__, [0.9]])
def test_what_is_no_number_is_refused(bad):
    if callable(bad):
        bad = object()
    with pytest.raises(TypeError, match="`b1` must be a number, an array or a schedule, got "):
        adamx.adam(1e-3, b1=bad)


def test_a_number_in_the_place_of_a_function_is_refused():
    with pytest.raises(TypeError, match="`clip_value_fn` must be a function of the step, got"):
        adamx.adopt(1e-3, clip_value_fn=1.0)
    with pytest.raises(TypeError, match="`estim_lr0` must be a number or an array, got a schedule"):
        adamx.prodigy(estim_lr0=lambda count: 1e-6)


def test_an_override_out_of_range_is_refused():
    opt, params = adamx.adam(1e-3), jnp.ones(2)
    with pytest.raises(ValueError, match=re.escape("`b1` must be in [0, 1), got 2.0")):
        opt.update(params, opt.init(params), params, b1=np.float32(2.0))


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "b1"])
@pytest.mark.parametrize("bad, got", [(jnp.ones(1) / 2, r"shape \(1,\)"), (None, "a NoneType")])
def test_a_schedule_that_returns_no_number_is_named(name, bad, got):
    opt, params = adamx.adamw(**{"learning_rate": 0.1, name: lambda count: bad}), jnp.ones(3)
    with pytest.raises(ValueError, match=f"`{name}`: a schedule must return a scalar, got .*{got}"):
        opt.update(params, opt.init(params), params)


@pytest.mark.parametrize("bad", [jnp.array(True), jnp.array(1j), np.array(1j)])
def test_an_array_that_is_no_real_number_is_refused(bad):
    with pytest.raises(TypeError, match="`learning_rate` must be a real number, got"):
        adamx.adam(bad).update(jnp.ones(1), adamx.adam(0.1).init(jnp.ones(1)))


def test_a_numpy_scalar_out_of_range_is_refused():
    with pytest.raises(ValueError, match=re.escape("`b2` must be in [0, 1), got 1.5")):
        adamx.adam(0.1, b2=np.array(1.5))


def test_a_schedule_as_an_override_is_refused():
    opt, params = adamx.adam(0.1), jnp.ones(1)
    with pytest.raises(TypeError, match="`learning_rate` must be a number or an array, got a sche"):
        opt.update(params, opt.init(params), learning_rate=lambda count: 0.1)


def tree():
    return {"params": {"dense": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}}}


@every_recipe
def test_integer_parameters_are_named(recipe):
    params = tree()
    params["params"]["dense"]["steps"] = jnp.zeros(2, jnp.int32)
    message = f"params/dense/steps: parameter is int32, {recipe.name} needs floating point"
    with pytest.raises(TypeError, match=re.escape(message)):
        recipe().init(params)


def test_a_parameter_that_is_no_array_is_named():
    with pytest.raises(TypeError, match="fn: parameter is str, adam needs floating point"):
        adamx.adam(1e-3).init({"fn": "relu"})


@every_recipe
def test_a_gradient_of_another_shape_is_named(recipe):
    opt, params = recipe(), tree()
    state = opt.init(params)
    grads = tree()
    grads["params"]["dense"]["kernel"] = jnp.ones((4, 3))
    message = "params/dense/kernel: gradient has shape (4, 3), state has (3, 4)"
    with pytest.raises(ValueError, match=re.escape(message)):
        opt.update(grads, state, params)


@every_recipe
def test_an_integer_gradient_is_named(recipe):
    opt, params = recipe(), tree()
    grads = tree()
    grads["params"]["dense"]["bias"] = jnp.ones(4, jnp.int32)
    message = f"params/dense/bias: gradient is int32, {recipe.name} needs floating point"
    with pytest.raises(TypeError, match=re.escape(message)):
        opt.update(grads, opt.init(params), params)


@every_recipe
def test_a_complex_gradient_of_a_real_parameter_is_named(recipe):
    opt, params = recipe(), tree()
    grads = tree()
    grads["params"]["dense"]["bias"] = jnp.ones(4, jnp.complex64)
    with pytest.raises(TypeError, match=r"params/dense/bias: gradient is complex64, the state's"):
        opt.update(grads, opt.init(params), params)


@every_recipe
@pytest.mark.parametrize("how", ["missing", "additional", "none"])
def test_a_leaf_that_only_one_tree_has_is_named(recipe, how):
    opt, params = recipe(), tree()
    state, grads = opt.init(params), tree()
    dense = grads["params"]["dense"]
    if how == "missing":
        del dense["bias"]
        want = "params/dense/bias: the state's `\\w+` has this leaf, the gradient does not"
    elif how == "none":
        dense["bias"] = None
        want = "params/dense/bias: the state's `\\w+` has this leaf, the gradient does not"
    else:
        dense["gain"] = jnp.ones(())
        want = "params/dense/gain: the gradient has this leaf, the state's `\\w+` does not"
    with pytest.raises(ValueError, match=f"{recipe.name}: {want}"):
        opt.update(grads, state, None)


@pytest.mark.parametrize("name", ["adamw", "nadamw", "adamaxw", "lion", "lamb", "adan"])
def test_missing_parameters_are_asked_for(name):
    opt, params = cases.RECIPES[name](weight_decay=0.1), tree()
    with pytest.raises(ValueError, match=r"weight decay needs the parameters: call `update\(g, s"):
        opt.update(params, opt.init(params))


def test_lamb_asks_for_its_parameters():
    opt, params = adamx.lamb(1e-3, weight_decay=None), tree()
    with pytest.raises(ValueError, match="the trust ratio needs the parameters: call `update"):
        opt.update(params, opt.init(params))


def test_a_state_of_another_recipe_is_named():
    params = tree()
    message = "adam: the state is a ScaleByLionState, expected ScaleByAdamState: it was made by"
    with pytest.raises(ValueError, match=message):
        adamx.adam(1e-3).update(params, adamx.lion(1e-3, weight_decay=None).init(params), params)
    message = "adamw: the state should be a tuple of 3 parts, as `init` makes it; got tuple of 2"
    with pytest.raises(ValueError, match=message):
        adamx.adamw(1e-3).update(params, adamx.adam(1e-3).init(params), params)
    with pytest.raises(ValueError, match="adam: the state should be a tuple of 2 parts"):
        adamx.adam(1e-3).update(params, {"count": 0}, params)


def test_a_state_of_another_storage_is_named():
    params = tree()
    small = adamx.adam(1e-3, storage="bfloat16").init(params)
    message = (
        "params/dense/bias: the state's `mu` is bfloat16, storage 'float32' has float32 (adam)"
    )
    with pytest.raises(TypeError, match=re.escape(message)):
        adamx.adam(1e-3).update(params, small, params)
    large = adamx.adam(1e-3).init(params)
    message = "the state's `mu` is float32, storage 'bfloat16' has bfloat16 (adam)"
    with pytest.raises(TypeError, match=re.escape(message)):
        adamx.adam(1e-3, storage="bfloat16").update(params, large, params)


def test_optax_state_of_a_half_precision_model_is_named_instead_of_rounded_further():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree())
    with pytest.raises(TypeError, match="the state's `mu` is bfloat16, storage 'float32' has"):
        adamx.adam(1e-3).update(params, optax.adam(1e-3).init(params), params)


def test_a_real_mean_of_a_complex_parameter_is_refused():
    opt, params = adamx.adam(1e-3, mu_dtype="bfloat16"), {"w": jnp.ones(2, jnp.complex64)}
    message = "w: gradient is complex64, the state's `mu` is real (bfloat16)"
    with pytest.raises(TypeError, match=re.escape(message)):
        opt.update(params, opt.init(params), params)


def test_atan2_refuses_complex_parameters():
    opt, params = adamx.adam(1e-3, eps_mode="atan2"), {"w": jnp.ones(2, jnp.complex64)}
    with pytest.raises(ValueError, match="`eps_mode='atan2'` has no complex form"):
        opt.update(params, opt.init(params), params)


def test_a_pattern_that_matches_nothing_is_named():
    opt = adamx.adamw(1e-3, mask="*/kernels")
    message = "`mask`: no leaf matches '*/kernels'; the nearest are params/dense/kernel"
    with pytest.raises(ValueError, match=re.escape(message)):
        opt.init(tree())


@every_recipe
def test_a_loss_in_the_place_of_gradients_is_named(recipe):
    opt, params = recipe(), tree()
    with pytest.raises(ValueError, match=r"the gradient is one array of shape \(\).* not the loss"):
        opt.update(jnp.float32(1.0), opt.init(params), params)
    with pytest.raises(ValueError, match=r"adamx.step: the gradient is one array .* not the loss"):
        adamx.step(opt, params, opt.init(params), jnp.float32(1.0))


@pytest.mark.parametrize("landing", ["nearest", "stochastic", "exact"])
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_a_parameter_that_is_missing_is_named(name, landing):
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree())
    opt, fewer = cases.RECIPES[name](weight_decay=0.1, landing=landing), tree()
    del fewer["params"]["dense"]["bias"]
    fewer = jax.tree.map(lambda x: x.astype(jnp.bfloat16), fewer)
    for call in (
        lambda: opt.update(params, opt.init(params), fewer),
        lambda: adamx.step(opt, fewer, opt.init(params), params),
        lambda: adamx.step(optax.sgd(0.1), fewer, optax.sgd(0.1).init(params), params),
    ):
        with pytest.raises(ValueError, match=r"params/dense/bias: the (gradient|state) has"):
            call()


def test_a_schedule_that_meets_the_state_of_a_constant_rate_says_so():
    params = tree()
    scheduled = adamx.adamw(optax.constant_schedule(0.1))
    with pytest.raises(ValueError, match="the learning rate is a schedule, its state a EmptyState"):
        scheduled.update(params, adamx.adamw(0.1).init(params), params)


@pytest.mark.parametrize("landing", ["stochastic", "kahan", "exact", "compensated8"])
def test_parameters_that_were_widened_by_their_addition_are_noticed(landing):
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    opt = adamx.adam(0.1, landing=landing)
    updates, state = opt.update(params, opt.init(params), params)
    with jax.numpy_dtype_promotion("standard"):
        wide = eqx.apply_updates(params, updates)
    assert wide["w"].dtype == jnp.float32
    noticed = functools.partial(pytest.raises, (ValueError, TypeError))
    if landing == "stochastic":  # without a remainder, nothing says that the parameter was narrower
        noticed = functools.partial(pytest.warns, UserWarning)
    with noticed(match="`equinox.apply_updates` and `p \\+ u` do not"):
        opt.update(params, state, wide)
    last = getattr(adamx.landing, landing)()
    with noticed(match="`equinox.apply_updates` and `p \\+ u` do not"):
        last.update(updates, last.init(params), wide)


def test_siblings_whose_paths_read_alike_are_told_apart_by_a_landing():
    params = {"a/b": jnp.ones(2, jnp.bfloat16), "a": {"b": 2 * jnp.ones(2, jnp.bfloat16)}}
    opt = adamx.adam(1e-4, landing="exact")
    params, state = adamx.step(opt, params, opt.init(params), params)
    weights = adamx.master_params(state, params)
    np.testing.assert_allclose(weights["a/b"], 1 - 1e-4, rtol=1e-6)
    np.testing.assert_allclose(weights["a"]["b"], 2 - 1e-4, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("kwargs", [{}, {"storage": "int8"}, {"landing": "exact"}])
def test_8_bit_parameters_step_as_in_optax(dtype, kwargs):
    params = {"w": jnp.asarray([1.0, -2.0], dtype)}
    opt, theirs = adamx.adam(0.5, **kwargs), optax.adam(0.5)
    with jax.numpy_dtype_promotion("standard"):
        want = optax.apply_updates(params, theirs.update(params, theirs.init(params), params)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the landing does nothing
        got, _ = adamx.step(opt, params, opt.init(params), params)
    assert got["w"].dtype == dtype
    np.testing.assert_array_equal(got["w"].astype(jnp.float32), want["w"].astype(jnp.float32))
