# SPDX-License-Identifier: Apache-2.0
"""`adamx.step`, and updates that compile themselves."""

import functools
import gc
import weakref

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests import cases


@pytest.mark.parametrize("make", [adamx.adamw, optax.adamw, optax.sgd])
def test_step_is_update_and_apply(make):
    opt, params = make(0.1), cases.params()
    grads, state = cases.grads(params), make(0.1).init(params)
    with jax.numpy_dtype_promotion("standard"):
        updates, want_state = opt.update(grads, state, params)
        got, got_state = adamx.step(opt, params, state, grads)
    chex.assert_trees_all_close(got, optax.apply_updates(params, updates), rtol=1e-6)
    chex.assert_trees_all_close(got_state, want_state, rtol=1e-6)


def test_an_eager_loop_compiles_once(caplog):
    opt, params = adamx.adamw(0.1), cases.params()
    state = opt.init(params)
    with jax.log_compiles():
        for _ in range(4):
            _, state = opt.update(cases.grads(params), state, params)
    compiled = [r for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
    assert len(compiled) == 1


def test_an_eager_loop_of_steps_compiles_once(caplog):
    opt, params = adamx.adamw(0.1), cases.params()
    state = opt.init(params)
    with jax.log_compiles():
        for _ in range(4):
            params, state = adamx.step(opt, params, state, params)
    compiled = [r for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
    assert len(compiled) == 1


@pytest.mark.parametrize("make", [adamx.scale_by_adam, lambda: adamx.adamw(0.1)])
def test_under_a_trace_an_update_is_no_call_of_a_compiled_function(make):
    """A call would be one equation that makes all of the results."""
    opt, params = make(), cases.params()
    jaxpr = jax.make_jaxpr(opt.update)(params, opt.init(params), params).jaxpr
    largest = max(len(equation.outvars) for equation in jaxpr.eqns)
    assert largest < len(jaxpr.outvars) - 1  # the count is an equation of its own in any case


def test_under_a_trace_a_step_has_the_equations_of_update_and_apply():
    opt, params = adamx.adamw(0.1), cases.params()

    def spelled_out(params, state, grads):
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    with adamx.kernels.using(False):
        step, want = (
            jax.make_jaxpr(f)(params, opt.init(params), params)
            for f in (lambda *args: adamx.step(opt, *args), spelled_out)
        )
    assert str(step) == str(want)


def test_unknown_extra_arguments_are_ignored_whatever_they_are():
    opt, params = adamx.adamw(0.1), cases.params()
    state = opt.init(params)
    unknown = {"value_fn": print, "value": jnp.ones(()), "grad": "text"}
    got, want = opt.update(params, state, params, **unknown), opt.update(params, state, params)
    chex.assert_trees_all_equal(got, want)
    assert got[0] is not None


@pytest.mark.parametrize("as_object", [True, False])
def test_optaxs_multi_steps_passes_extra_arguments_on(as_object):
    opt = optax.MultiSteps(adamx.adam(0.1), 2)
    opt = opt if as_object else opt.gradient_transformation()
    params = {"w": jnp.ones(2)}
    state, more = opt.init(params), {"learning_rate": 0.5, "unknown": 1.0}
    with jax.numpy_dtype_promotion("standard"):  # of MultiSteps
        for _ in range(2):
            params, state = adamx.step(opt, params, state, params, **more)
    np.testing.assert_allclose(params["w"], 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    "wrap, b2",
    [
        (lambda opt: opt, 1 - 1e-7),
        (lambda opt: optax.chain(adamx.clip(1e9), opt), 0.9999),
        (lambda opt: adamx.accumulate(opt, 1), 1 - 1e-7),
        (lambda opt: adamx.groups({"w": opt}), {"w": 1 - 1e-7}),
    ],
    ids=["recipe", "chain", "accumulate", "one group"],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_rate_of_one_call_keeps_its_digits(wrap, b2, compiled):
    """1 - b2 of a float32 is off by 19% at b2 = 1 - 1e-7."""
    opt, params = wrap(adamx.adam(0.1)), {"w": jnp.zeros(1)}
    state = opt.init(params)
    state = optax.tree.set(state, count=jnp.int32(10**6), mu=params, nu={"w": jnp.ones(1)})
    rate = b2["w"] if isinstance(b2, dict) else b2
    grads = {"w": jnp.full(1, 2 / np.sqrt(1 - rate), jnp.float32)}
    step = adamx.jit_step(opt) if compiled else functools.partial(adamx.step, opt)
    got, _ = step(*jax.tree.map(jnp.copy, (params, state)), grads, b2=b2)
    g, t = float(grads["w"][0]), 10**6 + 1
    nu = (rate + (1 - rate) * g * g) / -np.expm1(t * np.log1p(rate - 1))
    np.testing.assert_allclose(got["w"], -0.1 * 0.1 * g / (np.sqrt(nu) + 1e-8), rtol=1e-6)
    with pytest.raises(ValueError, match=r"`b2` must be in \[0, 1\), got 1.5"):
        step(params, state, grads, b2=1.5)


def test_a_jitted_step_can_be_looked_at():
    opt, x = adamx.adam(0.1), jnp.ones(3)
    step, args = adamx.jit_step(opt), (x, opt.init(x), x)
    assert step.eval_shape(*args)[0].shape == (3,)
    assert "adamx" in step.lower(*args).as_text(debug_info=True)
    assert len(step.trace(*args).jaxpr.jaxpr.invars) == 5


def test_step_hands_on_extra_arguments_even_functions():
    seen = []

    def update(updates, state, params=None, *, value_fn):
        seen.append(value_fn)
        return updates, state

    opt = optax.GradientTransformationExtraArgs(lambda p: optax.EmptyState(), update)
    adamx.step(opt, jnp.ones(2), optax.EmptyState(), jnp.ones(2), value_fn=len)
    assert seen == [len]


def test_a_whole_equinox_model_may_stand_for_the_parameters():
    """Its activation functions are no arrays; Optax's Adam never looks at them, nor does ours."""
    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    arrays = eqx.filter(model, eqx.is_inexact_array)
    opt = adamx.adam(0.1)
    updates, _ = opt.update(arrays, opt.init(arrays), model)
    assert jax.tree.structure(updates) == jax.tree.structure(arrays)


@pytest.mark.parametrize("kwargs", [{}, {"storage": "int8", "mask": "*bias", "weight_decay": 0.1}])
def test_a_step_of_a_whole_equinox_model_keeps_its_functions(kwargs):
    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    grads = eqx.filter_grad(lambda model: jnp.sum(model(jnp.ones(2))))(model)
    opt = adamx.adam(0.1, **kwargs)
    state = opt.init(eqx.filter(model, eqx.is_inexact_array))
    for _ in range(2):
        moved, state = adamx.step(opt, model, state, grads)
    assert moved.activation is model.activation
    assert not np.allclose(moved.layers[0].weight, model.layers[0].weight)
    with pytest.raises(TypeError, match=r"activation: parameter is .* `equinox.filter\(model, "):
        opt.init(model)


def test_a_mask_that_can_be_called_is_a_tree_all_the_same():
    """As in Optax, which calls what has functions for leaves."""
    model = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    of_rank_two = jax.tree.map(lambda p: p.ndim == 2, model)
    opts = [adamx.adamw(0.1, mask=mask) for mask in (of_rank_two, "*weight")]
    grads = jax.tree.map(jnp.ones_like, model)
    found, want = (adamx.step(opt, model, opt.init(model), grads) for opt in opts)
    chex.assert_trees_all_equal(found, want)
    assert str(adamx.describe(opts[0], model)) == str(adamx.describe(opts[1], model))


def test_eager_steps_keep_no_optimizer_alive():
    """Nor the arrays that its schedules and closures hold."""
    held, params = [], jnp.ones(3)

    def built(table):
        def schedule(count):
            return table[count]

        return [
            adamx.adam(schedule),
            optax.chain(optax.trace(0.9), optax.scale_by_schedule(schedule)),
            optax.chain(adamx.clip_by_global_norm(1.0), adamx.adam(schedule)),
        ]

    for kind in range(3):
        for _ in range(3):
            table = jnp.ones(100)
            held.append(weakref.ref(table))
            opt = built(table)[kind]
            del table
            adamx.step(opt, params, opt.init(params), params)
    del opt
    gc.collect()
    assert [ref() is None for ref in held] == [True] * 9


def test_donation_works():
    opt, params = adamx.adamw(0.1), cases.params()
    state = opt.init(params)
    step = jax.jit(lambda p, s: adamx.step(opt, p, s, p), donate_argnums=(0, 1))
    for _ in range(3):
        params, state = step(params, state)
    assert np.isfinite(params["gain"])


@pytest.mark.parametrize("make", [adamx.adamw, adamx.scale_by_adam, adamx.clip_by_global_norm])
def test_inject_hyperparams_compiles_nothing_after_its_first_eager_step(make, caplog):
    kwargs = {"max_norm": 1.0} if make is adamx.clip_by_global_norm else {}
    kwargs |= {"learning_rate": 0.1} if make is adamx.adamw else {}
    opt, params = optax.inject_hyperparams(make)(**kwargs), cases.params()
    state = opt.init(params)
    for _ in range(2):
        _, state = opt.update(params, state, params)
    with jax.log_compiles():
        _, state = opt.update(params, state, params)
    assert not [r for r in caplog.records if "Finished XLA compilation" in r.getMessage()]


def test_a_recipe_built_twice_compiles_once(caplog):
    params = cases.params()
    adamx.adamw(0.25).update(params, adamx.adamw(0.25).init(params), params)
    with jax.log_compiles():
        adamx.adamw(0.25).update(params, adamx.adamw(0.25).init(params), params)
    assert not [r for r in caplog.records if "Finished XLA compilation" in r.getMessage()]


def test_numbers_and_flags_that_are_equal_but_not_the_same_are_told_apart():
    adamx.adam(0.1, b1=0.0)
    with pytest.raises(TypeError, match="`b1` must be a number"):
        adamx.adam(0.1, b1=False)


def test_an_override_of_none_is_no_override():
    params = jnp.array([1.0, 2.0])
    for rate in (1e-3, jnp.array(1e-3)):
        opt = adamx.adam(rate)
        updates, _ = opt.update(params, opt.init(params), params, learning_rate=None, b1=None)
        np.testing.assert_allclose(updates, [-1e-3, -1e-3], rtol=1e-5)


def test_a_recipe_built_again_sees_what_its_schedule_reads_now():
    rate = {"now": 0.1}

    def schedule(count):
        return rate["now"]

    params, moved = jnp.ones(1), []
    for rate["now"] in (0.1, 0.0):
        opt = adamx.adam(schedule)
        moved.append(float(opt.update(params, opt.init(params), params)[0][0]))
    np.testing.assert_allclose(moved, [-0.1, 0.0], rtol=1e-5)


@pytest.mark.parametrize("rate", [1 - 1e-7, 0.99999])
def test_a_python_number_as_an_override_keeps_its_digits_through_jit(rate):
    link, g = adamx.scale_by_adam(), jnp.ones(1)
    _, state = link.update(g, link.init(g), b2=rate)
    np.testing.assert_allclose(state.nu, [1 - rate], rtol=1e-6)
    _, state = jax.jit(lambda g: link.update(g, link.init(g), b2=rate))(g)
    np.testing.assert_allclose(state.nu, [1 - rate], rtol=1e-6)


def test_injected_masks_and_decays_share_what_they_compiled(caplog):
    params = cases.params()
    mask = jax.tree.map(lambda p: True, params)
    for kwargs in ({"mask": mask}, {"weight_decay": adamx.decay.cautious(0.1)}):
        opt = optax.inject_hyperparams(adamx.adamw)(0.1, **kwargs)
        state = opt.init(params)
        for _ in range(2):
            _, state = opt.update(params, state, params)
        caplog.clear()
        with jax.log_compiles():
            _, state = opt.update(params, state, params)
        assert not [r for r in caplog.records if "Finished XLA compilation" in r.getMessage()]


def test_adopt_can_be_injected():
    opt, params = optax.inject_hyperparams(adamx.adopt)(learning_rate=0.1), jnp.ones(2)
    state, plain = opt.init(params), adamx.adopt(0.1)
    want_state = plain.init(params)
    for _ in range(2):
        updates, state = opt.update(params, state, params)
        want, want_state = plain.update(params, want_state, params)
    np.testing.assert_allclose(updates, want, rtol=1e-5)
    assert np.all(want != 0)


def test_overrides_reach_one_link_only():
    opt = optax.chain(adamx.clip_by_block_rms(1.0), adamx.scale_by_radam())
    g = jnp.array([3.0, -3.0])
    updates, _ = opt.update(g, opt.init(g), g, threshold=4.0)
    np.testing.assert_allclose(updates, [1.0, -1.0], rtol=1e-6)


def test_leaves_without_a_gradient_are_passed_over():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    grads = {"a": jnp.ones(2), "b": None}
    for opt in (adamx.adamw(0.1), adamx.lamb(0.1, weight_decay=0.1)):
        updates, _ = opt.update(grads, opt.init(grads), params)
        assert updates["b"] is None


@pytest.mark.parametrize("storage", [None, "bfloat16"])
def test_a_donated_step_needs_no_temporary_leaf(storage):
    """Parameters and state come back in the order in which they were donated: no copy is made."""
    opt, shape = adamx.adamw(0.1, storage=storage), jax.ShapeDtypeStruct((512, 512), jnp.float32)
    state = jax.eval_shape(opt.init, shape)
    step = jax.jit(lambda p, s, g: adamx.step(opt, p, s, g), donate_argnums=(0, 1))
    memory = step.lower(shape, state, shape).compile().memory_analysis()
    leaf = 512 * 512 * 4
    if storage is None:
        assert memory.temp_size_in_bytes < leaf / 100
    # In bfloat16 the kernel of the parameter reads the old moments, of which XLA:CPU keeps a copy.
    assert memory.temp_size_in_bytes < 1.01 * leaf
    assert memory.alias_size_in_bytes >= (3 if storage is None else 2) * leaf


def test_no_two_optimizers_share_a_step_that_differ():
    """A method's, a wrapper's and a plain update's attributes may be those of another function."""
    params = {"w": jnp.ones((3, 4))}

    def moved(opt, grads=params, **extra):
        with jax.numpy_dtype_promotion("standard"):  # Optax's counts need it
            return adamx.step(opt, params, opt.init(params), grads, **extra)[0]["w"]

    for rate in (0.1, 1.0):
        many = optax.MultiSteps(optax.sgd(rate), 1)
        for opt in (many, many.gradient_transformation()):
            np.testing.assert_allclose(moved(opt), 1 - rate, rtol=1e-6)
    clip = optax.clip_by_global_norm(1.0)
    each = optax.GradientTransformation(jax.vmap(clip.init), jax.vmap(clip.update))
    rows = {"w": jnp.full((3, 4), 10.0)}
    np.testing.assert_allclose(moved(clip, rows), 1 + 12**-0.5, rtol=1e-6)
    np.testing.assert_allclose(moved(each, rows), 1.5, rtol=1e-6)

    def update(grads, state, params=None, *, gain=0.0):
        return jax.tree.map(lambda g: gain * g, grads), state

    plain = optax.GradientTransformation(optax.identity().init, update)
    np.testing.assert_allclose(moved(plain, gain=2.0), 1.0)
    taking = optax.GradientTransformationExtraArgs(optax.identity().init, update)
    np.testing.assert_allclose(moved(taking, gain=2.0), 3.0)


def test_a_recipe_with_an_init_of_ones_own_steps():
    opt, params = adamx.adam(0.1), jnp.ones(2)
    opt = opt._replace(init=jax.jit(opt.init))
    np.testing.assert_allclose(adamx.step(opt, params, opt.init(params), params)[0], 0.9, rtol=1e-6)


def test_an_update_that_nothing_can_refer_to_weakly_compiles_once():
    class Slotted:
        __slots__ = ("traces",)

        def __call__(self, grads, state, params=None):
            self.traces += 1
            return jax.tree.map(jnp.negative, grads), state

    update, params = Slotted(), jnp.ones(2)
    update.traces = 0
    opt = optax.GradientTransformation(optax.identity().init, update)
    for _ in range(3):
        params, _ = adamx.step(opt, params, opt.init(params), params)
    assert update.traces == 1


def test_a_step_leaves_no_mark_on_an_optimizer():
    update = functools.partial(optax.identity().update)
    opt = optax.GradientTransformation(optax.identity().init, update)
    adamx.step(opt, jnp.ones(2), opt.init(jnp.ones(2)), jnp.ones(2))
    assert not vars(update)
