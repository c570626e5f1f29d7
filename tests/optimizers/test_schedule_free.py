# SPDX-License-Identifier: Apache-2.0
"""Schedule-free AdamW against its paper's three sequences, and what half precision does to them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from optax import contrib

import adamx
from tests import cases


def oracle(y, grads, rate, *, b1=0.9, b2=0.999, eps=1e-8, decay=0.0, power=2.0):
    """Defazio et al. (2405.15682), Algorithm 1 with AdamW's step: all y, and the last x and z."""
    x = z = y = np.asarray(y, np.float64)
    nu, total, most, path = np.zeros_like(y), 0.0, 0.0, []
    for t, g in enumerate(np.asarray(grads, np.float64), start=1):
        gamma = rate(t - 1) if callable(rate) else rate
        nu = b2 * nu + (1 - b2) * g * g
        z = z - gamma * (g / (np.sqrt(nu / (1 - b2**t)) + eps) + decay * y)
        most = max(most, gamma)
        total += most**power
        c = most**power / total if total else 0.0
        x = (1 - c) * x + c * z
        y = b1 * x + (1 - b1) * z
        path.append(y)
    return np.stack(path), x, z


def trained(opt, params, grads, **extra):
    """All parameters, the last state, and its average, in one program."""

    def step(carry, g):
        params, state = carry
        updates, state = opt.update(g, state, params, **extra)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    with jax.numpy_dtype_promotion("standard"):
        (params, state), path = lax.scan(step, (params, opt.init(params)), grads)
    return path, state, adamx.schedule_free_eval_params(state, params)


def problem(steps=40, dtype=np.float64):
    rng = np.random.default_rng(3)
    return rng.normal(size=(3, 2)).astype(dtype), rng.normal(size=(steps, 3, 2)).astype(dtype)


KNOBS = {"b1": 0.8, "b2": 0.9, "eps": 1e-3}


@pytest.mark.parametrize("warmup", [None, 7])
def test_a_float64_trajectory_is_the_papers(warmup):
    start, grads = problem()
    rate = 0.05 if warmup is None else lambda t: 0.05 * min(t / warmup, 1)
    with jax.enable_x64(True):
        opt = adamx.schedule_free_adamw(0.05, warmup, weight_decay=0.1, **KNOBS)
        path, state, x = trained(opt, jnp.asarray(start), jnp.asarray(grads))
    want, want_x, want_z = oracle(start, grads, rate, decay=0.1, **KNOBS)
    # The rate of a warm-up is float32.
    np.testing.assert_allclose(path, want, rtol=1e-12 if warmup is None else 1e-6)
    np.testing.assert_allclose(state.z, want_z, rtol=1e-12 if warmup is None else 1e-6)
    np.testing.assert_allclose(x, want_x, rtol=1e-12 if warmup is None else 1e-6)


def test_a_float32_trajectory_is_the_papers():
    """Each step rounds y and z once, to 6e-8 of numbers of size 2: 40 steps add up to 5e-6."""
    start, grads = problem(dtype=np.float32)
    path, _, x = trained(adamx.schedule_free_adamw(0.05), jnp.asarray(start), jnp.asarray(grads))
    want, want_x, _ = oracle(start, grads, 0.05)
    np.testing.assert_allclose(path, want, atol=5e-6)
    np.testing.assert_allclose(x, want_x, atol=5e-6)


def test_any_optimizer_is_averaged():
    """With plain gradient descent, x after equal steps is the mean of all z."""
    start, grads = problem(10)
    with jax.enable_x64(True):
        opt = adamx.schedule_free(optax.sgd(0.1), 0.1, b1=0.7)
        path, _, x = trained(opt, jnp.asarray(start), jnp.asarray(grads))
    z = start - 0.1 * np.cumsum(grads, 0)
    np.testing.assert_allclose(x, z.mean(0), rtol=1e-12)
    np.testing.assert_allclose(path[-1], 0.7 * z.mean(0) + 0.3 * z[-1], rtol=1e-12)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (adamx.schedule_free_adamw, contrib.schedule_free_adamw),
        (
            lambda **kw: adamx.schedule_free(optax.sgd(0.1), 0.1, **kw),
            lambda **kw: contrib.schedule_free(optax.sgd(0.1), 0.1, **kw),
        ),
    ],
)
def test_a_constant_rate_gives_optaxs_steps_and_optaxs_state(ours, theirs):
    start, grads = problem(dtype=np.float32)
    params, grads = {"w": jnp.asarray(start)}, {"w": jnp.asarray(grads)}
    path, state, x = trained(ours(), params, grads)
    expected, their_state, _ = trained(theirs(), params, grads)
    np.testing.assert_allclose(path["w"], expected["w"], atol=2e-5)
    last = jax.tree.map(lambda p: p[-1], expected)
    their_x = contrib.schedule_free_eval_params(their_state, last)
    np.testing.assert_allclose(x["w"], their_x["w"], atol=2e-5)
    assert jax.tree.structure(state) == jax.tree.structure(their_state)
    assert [a.dtype for a in jax.tree.leaves(state)] == [
        a.dtype for a in jax.tree.leaves(their_state)
    ]


def test_optax_weighs_a_step_by_the_rate_of_the_next():
    """In a warm-up z_2 comes from the second rate, and has its weight in the paper."""
    start, grads = problem(2)
    ramp = lambda t: 0.1 * (t + 1.0)  # noqa: E731
    with jax.enable_x64(True):
        params, grads_ = jnp.asarray(start), jnp.asarray(grads)
        _, _, x = trained(adamx.schedule_free(optax.sgd(ramp), ramp), params, grads_)
        theirs = contrib.schedule_free(optax.sgd(ramp), ramp)
        path, state, _ = trained(theirs, params, grads_)
        their_x = contrib.schedule_free_eval_params(state, path[-1])
    first = start - 0.1 * grads[0]
    second = first - 0.2 * grads[1]
    np.testing.assert_allclose(x, 0.2 * first + 0.8 * second, rtol=1e-12)  # 0.1^2 : 0.2^2
    if np.allclose(their_x, x, rtol=1e-6):
        cases.skip_where_optax_is_right()
    np.testing.assert_allclose(their_x, (4 * first + 9 * second) / 13, rtol=1e-6)


@functools.cache
def scalars_after(library, dtype, rate, steps=600):
    """The state after many steps of equal rates on one parameter."""
    params, grads = jnp.ones(1, dtype), jnp.ones((steps, 1), dtype)
    return trained(library.schedule_free_adamw(rate), params, grads)


def test_the_sum_of_weights_never_stalls_in_bfloat16():
    rate, weight = 0.0625, 0.0625**2  # exact in bfloat16
    _, state, _ = scalars_after(adamx, "bfloat16", rate)
    assert state.weight_sum.dtype == jnp.float32
    np.testing.assert_allclose(state.weight_sum, 600 * weight, rtol=1e-6)
    _, theirs, _ = scalars_after(contrib, "bfloat16", rate)
    if theirs.weight_sum.dtype != jnp.bfloat16:
        cases.skip_where_optax_is_right()
    assert float(theirs.weight_sum) == 256 * weight  # where 256 + 1 is 256


def test_the_average_starts_in_float16():
    """The square of 1e-4 is 0 in float16: Optax's average stays where training began."""
    _, state, _ = scalars_after(adamx, "float16", 1e-4)
    np.testing.assert_allclose(state.weight_sum, 600e-8, rtol=1e-5)
    _, theirs, _ = scalars_after(contrib, "float16", 1e-4)
    if theirs.max_lr.dtype != jnp.float16:
        cases.skip_where_optax_is_right()
    assert float(theirs.weight_sum) == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_with_a_landing_half_precision_goes_where_float32_goes(dtype):
    """An exact landing keeps y to the last bit of float32, and x is computed from that."""
    start, grads = problem(dtype=dtype if dtype == "float16" else np.float32)
    start, grads = jnp.asarray(start, dtype), jnp.asarray(grads, dtype)
    opt = adamx.schedule_free_adamw(1e-3, landing="exact")
    _, state, x = trained(opt, start, grads)
    wide = jnp.float32
    _, plain, want = trained(
        adamx.schedule_free_adamw(1e-3), start.astype(wide), grads.astype(wide)
    )
    np.testing.assert_allclose(state[0].z, plain.z, rtol=1e-6)
    assert x.dtype == dtype
    half = float(jnp.finfo(dtype).eps) / 2
    np.testing.assert_allclose(x.astype(wide), want, rtol=1.01 * half)
    assert [a.dtype for a in jax.tree.leaves(state[0])][-1] == wide


def test_z_in_bfloat16_moves_by_what_it_should_on_average():
    """Steps of 1e-4 are a fortieth of a unit of bfloat16 at 1. The mean over 4,000 elements of a
    sum of 100 errors of at most a unit each is off by 6 sigma = 6 * 10 * 0.008 / 2 / 63 at most."""
    start, grads = jnp.ones(4000), jnp.ones((100, 4000))
    opt = adamx.schedule_free_adamw(1e-4, state_dtype="bfloat16")
    _, state, _ = trained(opt, start, grads)
    assert state.z.dtype == jnp.bfloat16
    assert abs(float(state.z.astype(jnp.float32).mean()) - 0.99) < 6 * 10 * 0.008 / 2 / 63


@pytest.mark.parametrize("storage", cases.STORAGES)
def test_the_mean_square_rests_in_any_storage(storage):
    start, grads = problem(dtype=np.float32)
    opt = adamx.schedule_free_adamw(0.01, storage=storage)
    path, state, _ = trained(opt, jnp.asarray(start), jnp.asarray(grads))
    want, _, _ = oracle(start, grads, 0.01)
    # A code of a square is off by 9% at most, its root by 5%, of the 0.4 gone at most.
    np.testing.assert_allclose(path, want, atol=1e-5 if storage == "float32" else 0.02)
    nu = state.base_optimizer_state[0].nu
    assert nu.dtype.itemsize == {"float32": 4, "bfloat16": 2}.get(storage, 1)


def test_every_hyperparameter_may_be_traced_or_a_schedule_without_a_recompile():
    start, grads = problem(6)
    with jax.enable_x64(True):
        params, grads_ = jnp.asarray(start), jnp.asarray(grads)
        traces = []

        @jax.jit
        def run(rate, b1, power):
            traces.append(1)
            opt = adamx.schedule_free_adamw(rate, b1=b1, weight_lr_power=power)
            return trained(opt, params, grads_)

        for rate, b1, power in ((0.1, 0.9, 2.0), (0.05, 0.7, 1.0)):
            path, _, x = run(*map(jnp.float64, (rate, b1, power)))
            want, want_x, _ = oracle(start, grads, rate, b1=b1, power=power)
            np.testing.assert_allclose(path, want, rtol=1e-12)
            np.testing.assert_allclose(x, want_x, rtol=1e-12)
        assert len(traces) == 1
        constant = adamx.schedule_free_adamw(lambda t: 0.05, b1=lambda t: 0.7)
        path, _, x = trained(constant, params, grads_)
        want, want_x, _ = oracle(start, grads, 0.05, b1=0.7)
        np.testing.assert_allclose(path, want, rtol=1e-6)
        opt = adamx.schedule_free_adamw()
        path, _, x = trained(opt, params, grads_, learning_rate=0.05, b1=0.9)
        np.testing.assert_allclose(x, oracle(start, grads, 0.05)[1], rtol=1e-12)


def test_another_b1_keeps_the_average():
    """The average does not depend on b1, where gradients do not."""
    start, grads = problem(10)
    with jax.enable_x64(True):
        opt = adamx.schedule_free_adamw(0.1, b1=lambda t: 0.5 + 0.04 * t)
        _, _, x = trained(opt, jnp.asarray(start), jnp.asarray(grads))
    np.testing.assert_allclose(x, oracle(start, grads, 0.1)[1], rtol=1e-12)


@pytest.mark.parametrize("how", ["jit", "shard_map", "pmap"])
def test_on_eight_devices_it_makes_the_steps_of_one(how):
    with jax.enable_x64(True):
        opt = adamx.schedule_free_adamw(0.05, weight_decay=0.1)
        params = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)))}
        data = jnp.asarray(np.random.default_rng(1).normal(size=(8, 16)))

        def loss(params, batch):
            return jnp.mean(jnp.tanh(batch @ params["kernel"]) ** 2)

        train = adamx.parallel.data_parallel(loss, opt, params, how=how, zero=True)
        run = train.init(params)
        want, state = params, opt.init(params)
        for _ in range(3):
            run, _ = train.step(run, data)
            want, state = adamx.step(opt, want, state, jax.grad(loss)(want, data))
        got = train.collect(run)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12),
            (got.params, got.state),
            (want, state),
        )


@pytest.mark.parametrize("tree", ["nested", "none", "zero-size", "mixed dtypes", "python scalars"])
def test_every_tree_goes_through(tree):
    params = cases.TREES[tree]()
    opt = adamx.schedule_free_adamw(0.1)
    grads = jax.tree.map(jnp.ones_like, params)
    state = opt.init(params)
    stepped, after = adamx.step(opt, params, state, grads)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    x = adamx.schedule_free_eval_params(after, stepped)
    assert jax.tree.structure(x) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(np.asarray(a, complex), np.asarray(b, complex) - 0.1, atol=4e-3)


def test_derivatives_are_finite_at_zero():
    def end(rate, power):
        opt = adamx.schedule_free_adamw(rate, weight_lr_power=power)
        params = jnp.zeros(2)
        updates, state = opt.update(jnp.zeros(2), opt.init(params), params)
        return jnp.sum(updates) + jnp.sum(adamx.schedule_free_eval_params(state, updates))

    found = jax.grad(end, argnums=(0, 1))(jnp.float32(0.0), jnp.float32(2.0))
    assert np.isfinite(found).all()


def test_errors_name_the_argument_and_the_rule():
    with pytest.raises(ValueError, match=r"`b1` must be in \(0, 1\) for an average, got 0"):
        adamx.schedule_free_adamw(b1=0.0)
    with pytest.raises(ValueError, match="`state_dtype` must be a floating or complex dtype"):
        adamx.schedule_free_adamw(state_dtype="int8")
    opt, params = adamx.schedule_free_adamw(), {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match="schedule_free_adamw needs the parameters"):
        opt.update(params, opt.init(params))
    with pytest.raises(ValueError, match="schedule_free_adamw: the state is a tuple"):
        opt.update(params, adamx.adamw(0.1).init(params), params)
    with pytest.raises(ValueError, match="w: gradient has shape"):
        opt.update({"w": jnp.ones(3)}, opt.init(params), params)
    with pytest.raises(TypeError, match="w: parameter is int32, schedule_free_adamw needs"):
        opt.init({"w": jnp.ones(2, jnp.int32)})
    with pytest.raises(ValueError, match="one ScheduleFreeState in it, it has 0"):
        adamx.schedule_free_eval_params(adamx.adamw(0.1).init(params), params)


def test_a_schedule_warms_up_too():
    falling = optax.linear_schedule(1.0, 0.0, 8)
    grads, params = jnp.ones(3), jnp.ones(3)
    opt = adamx.schedule_free_adamw(falling, warmup_steps=4)
    by_hand = adamx.schedule_free_adamw(lambda t: falling(t) * jnp.minimum(t / 4, 1))
    states = [o.init(params) for o in (opt, by_hand)]
    for _ in range(6):
        found = [o.update(grads, s, params) for o, s in zip((opt, by_hand), states, strict=True)]
        np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-6)
        states = [state for _, state in found]


def test_a_complex_z_of_real_parameters_moves_them_alike():
    grads, params = jnp.array([1.0, -2.0]), jnp.array([0.5, 0.25])
    plain, other = (adamx.schedule_free_adamw(0.1, state_dtype=d) for d in (None, "complex64"))
    one, two = plain.init(params), other.init(params)
    assert two.z.dtype == jnp.complex64
    for _ in range(3):
        (u, one), (v, two) = plain.update(grads, one, params), other.update(grads, two, params)
        assert v.dtype == jnp.float32
        np.testing.assert_allclose(v, u, rtol=1e-6)
    ends = [adamx.schedule_free_eval_params(s, params) for s in (one, two)]
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-6)
