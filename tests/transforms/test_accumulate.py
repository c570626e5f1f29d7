# SPDX-License-Identifier: Apache-2.0
"""Accumulation steps by the exact mean, does nothing in between, and forgets what is bad."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import adamx
from tests import cases


def run(opt, params, grads):
    """Parameters and state after each gradient."""
    step = jax.jit(lambda p, s, g: adamx.step(opt, p, s, g))
    state, found = opt.init(params), []
    for g in grads:
        params, state = step(params, state, g)
        found.append((params, state))
    assert step._cache_size() == 1
    return found


def mean(grads):
    """The mean in float64, rounded once."""
    return jax.tree.map(
        lambda *x: jnp.asarray(np.mean(np.asarray(x, np.float64), 0), jnp.float32), *grads
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_is_that_of_the_mean(dtype):
    params = cases.params(dtype)
    grads = [cases.grads(params, i) for i in range(6)]
    opt = adamx.adamw(1e-2, weight_decay=0.1, landing="exact" if dtype == "bfloat16" else "nearest")
    found, state = run(adamx.accumulate(opt, 3), params, grads)[-1]
    want, inner = run(opt, params, [mean(grads[:3]), mean(grads[3:])])[-1]
    found, want = adamx.master_params(state, found), adamx.master_params(inner, want)
    # float32: Adam divides a mean by its root, and both are off by some ulps.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-7), found, want)
    assert (state.gradient_step, state.mini_step) == (2, 0)


@pytest.mark.parametrize("landing", cases.LANDINGS)
def test_nothing_moves_between_steps(landing):
    params = {"a": jnp.array([1.0, -0.0, 0.0, 1e-37, -3e38], jnp.bfloat16)}
    opt = adamx.accumulate(adamx.adamw(1e-2, storage="int8", landing=landing), 3)
    grads = [{"a": jnp.ones(5, jnp.bfloat16)}] * 6
    found = run(opt, params, grads)
    before, first = (params, opt.init(params)), found[2]
    for start, waiting in ((before, found[:2]), (first, found[3:5])):
        for after, state in waiting:
            bits = [np.asarray(p["a"]).view(np.uint16) for p in (after, start[0])]
            np.testing.assert_array_equal(*bits)
            old = jax.tree.leaves(start[1].inner_opt_state)
            for x, y in zip(jax.tree.leaves(state.inner_opt_state), old, strict=True):
                np.testing.assert_array_equal(x, y)
    assert not np.array_equal(found[2][0]["a"], params["a"])


def test_the_optimizer_runs_once_per_step():
    calls = []

    def update(updates, state, params=None):
        jax.debug.callback(lambda: calls.append(1))
        return updates, state

    inner = optax.chain(optax.GradientTransformation(lambda p: (), update), adamx.adam(0.1))
    run(adamx.accumulate(inner, 4), jnp.ones(3), [jnp.ones(3)] * 9)
    jax.effects_barrier()
    assert len(calls) == 2


def test_a_nan_is_gone_with_its_step_unlike_optaxs():
    grads = [jnp.array([jnp.nan]), *[jnp.ones(1)] * 3]
    inner = adamx.health.skip_nonfinite(adamx.adam(0.1))
    params, _ = run(adamx.accumulate(inner, 2), jnp.ones(1), grads)[-1]
    np.testing.assert_allclose(params, 0.9, 1e-6)
    with jax.numpy_dtype_promotion("standard"):
        theirs = run(optax.MultiSteps(inner, 2), jnp.ones(1), grads)[-1][1].acc_grads
    if np.all(np.isfinite(theirs)):
        cases.skip_where_optax_is_right()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_finite_gradients_have_a_finite_mean(dtype):
    """Also where their difference is beyond float32."""
    opt, params = adamx.accumulate(optax.sgd(1e-37), 2, dtype), jnp.zeros(3)
    grads = [jnp.array([3e38, -3e38, 1e38]), jnp.array([-3e38, -3e38, -2e38])]
    found, _ = run(opt, params, grads)[-1]
    np.testing.assert_allclose(found, [0, 30, 5], atol=0.2)  # two digits of bfloat16


def test_a_bfloat16_buffer_does_not_stand_still():
    n, shape = 1024, (2048,)
    opt = adamx.accumulate(optax.identity(), n + 1, jnp.bfloat16)
    first = jnp.ones(shape)
    _, state = opt.update(first, opt.init(first))
    step = lambda state, _: (opt.update(jnp.zeros(shape), state)[1], None)  # noqa: E731
    state, _ = jax.jit(lambda s: jax.lax.scan(step, s, length=n - 1))(state)
    found = np.asarray(state.acc_grads, np.float64)
    assert state.acc_grads.dtype == jnp.bfloat16
    # To nearest it stops at 1/256: 4 in place of 1. Of 2,048 elements the mean is known to 1 %.
    np.testing.assert_allclose(found.mean() * n, 1, atol=0.05)


def test_the_number_may_follow_a_schedule():
    opt = adamx.accumulate(optax.sgd(1.0), lambda step: jnp.where(step < 1, 2, 3))
    params, grads = jnp.zeros(1), [jnp.array([x]) for x in (1.0, 3.0, 1.0, 2.0, 6.0)]
    found = [float(p[0]) for p, _ in run(opt, params, grads)]
    np.testing.assert_allclose(found, [0, -2, -2, -2, -5], 1e-6)


@pytest.mark.parametrize("tree", ["nested", "mixed dtypes", "zero-size", "empty", "masked"])
def test_any_tree_in_a_state_of_optaxs_class(tree):
    params = cases.TREES[tree]()
    opt = adamx.accumulate(adamx.adam(1e-2), 2)
    with jax.numpy_dtype_promotion("standard"):
        theirs = optax.MultiSteps(adamx.adam(1e-2), 2).init(params)
    state = opt.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(theirs)
    grads = jax.tree.map(jnp.ones_like, params)
    _, after = opt.update(grads, state, params)
    assert cases.form(after) == cases.form(state)


def test_the_states_of_optaxs_optimizers_keep_their_dtypes():
    params = jnp.ones(3, jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):
        opt = adamx.accumulate(optax.adam(1e-2), 2)
        _, state = opt.update(params, opt.init(params), params)
    assert cases.form(state) == cases.form(opt.init(params))


MAKERS = {
    "accumulate": lambda opt: adamx.accumulate(opt, 2),
    "in bfloat16": lambda opt: adamx.accumulate(opt, 2, jnp.bfloat16),
    "fold": lambda opt: adamx.fold_micro_batches(opt, 2),
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@every_maker
def test_it_lowers_for_every_platform(make):
    params = cases.params("bfloat16")
    opt = make(adamx.adamw(1e-2, storage="int8", landing="kahan"))
    platforms = ("cpu", "cuda", "rocm", "tpu")
    update = jax.export.export(jax.jit(opt.update), platforms=platforms)
    assert update(params, jax.eval_shape(opt.init, params), params).platforms == platforms


@every_maker
def test_members_of_a_vmap_and_derivatives_pass_through(make):
    def loss(rate):
        opt, params = make(adamx.adam(rate)), jnp.ones(3)
        state = opt.init(params)
        for g in (1.0, 2.0, 3.0, 4.0):
            params, state = adamx.step(opt, params, state, params * g)
        return params.sum()

    both = jax.jit(jax.vmap(jax.value_and_grad(loss)))
    values, slopes = both(jnp.array([0.099, 0.101]))
    # A secant against the mean of two tangents: the third derivative is of order 1.
    np.testing.assert_allclose((values[1] - values[0]) / 0.002, slopes.mean(), 1e-2)


@pytest.mark.parametrize("spec", [PartitionSpec(), PartitionSpec("x")], ids=["replica", "shard"])
def test_inside_shard_map(spec):
    opt = adamx.accumulate(adamx.adamw(0.1, storage="int8", landing="exact"), 2)
    params = {"a": jnp.ones((8, 4), jnp.bfloat16)}
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))

    def two(params, state):
        for g in (3.0, 5.0):
            grads = jax.tree.map(lambda p, g=g: p.astype(jnp.float32) * g, params)
            params, state = adamx.step(opt, params, state, grads)
        return params, state

    first = params, opt.init(params)
    specs = jax.tree.map(lambda x: spec if x.ndim else PartitionSpec(), first)
    found = jax.jit(jax.shard_map(two, mesh=mesh, in_specs=specs, out_specs=specs))(*first)
    want = jax.jit(two)(*first)
    np.testing.assert_array_equal(found[0]["a"], want[0]["a"])
    assert found[1].gradient_step == 1


@every_maker
def test_on_a_mesh_of_explicit_axes(make):
    opt, params = make(adamx.adamw(0.1, storage="int8")), {"a": jnp.ones((8, 4)), "b": jnp.ones(3)}
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    specs = {"a": PartitionSpec("x", "y"), "b": PartitionSpec()}
    placed = jax.tree.map(lambda p, s: jax.device_put(p, NamedSharding(mesh, s)), params, specs)

    def two(params):
        state = opt.init(params)
        for g in (3.0, 5.0):
            grads = jax.tree.map(lambda p, g=g: p * g, params)
            params, state = adamx.step(opt, params, state, grads)
        return params

    want = jax.jit(two)(params)
    with jax.set_mesh(mesh):
        found = jax.jit(two)(placed)
    jax.tree.map(np.testing.assert_array_equal, found, want)
    assert found["a"].sharding == placed["a"].sharding


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda opt: adamx.accumulate(opt, 0), "`every` must be a whole number of at least 1, got"),
        (lambda opt: adamx.accumulate(opt, 2.0), "`every` must be a whole number of at least 1"),
        (
            lambda opt: adamx.accumulate(opt, 2, jnp.float16),
            "`dtype` must be float32, float64 or bfloat16, got float16",
        ),
    ],
)
def test_a_wrong_argument_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call(adamx.adam(1e-3))


@pytest.mark.parametrize("wrap", [adamx.accumulate, adamx.fold_micro_batches])
def test_a_number_of_numpys_is_a_number_of_gradients(wrap):
    opt, g = wrap(adamx.adam(0.1), np.int64(256) // 128), jnp.ones(1)
    updates, state = opt.update(g, opt.init(g), g)
    assert updates == 0
    assert opt.update(g, state, g)[0] < 0


def test_a_wrong_gradient_is_refused_by_name():
    opt = adamx.accumulate(adamx.adam(1e-3), 2)
    state = opt.init({"a": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"a: gradient has shape \(4,\), the state's `acc_grads`"):
        opt.update({"a": jnp.ones(4)}, state)
    with pytest.raises(ValueError, match="accumulate: a: the state's `acc_grads` has this leaf"):
        opt.update({"b": jnp.ones(3)}, state)


def test_a_run_begins_to_accumulate_and_is_told_how():
    inner, params = adamx.adam(0.1), {"a": jnp.ones(3)}
    params, state = adamx.step(inner, params, inner.init(params), params)
    opt = adamx.accumulate(inner, 2)
    with pytest.raises(
        ValueError, match=r"the state is a tuple, expected MultiStepsState: with the state of `opt`"
    ):
        adamx.step(opt, params, state, params)
    state = opt.init(params)._replace(inner_opt_state=state)
    for _ in range(2):
        params, state = adamx.step(opt, params, state, params)
    assert state.inner_opt_state[0].count == 2
