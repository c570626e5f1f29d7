# SPDX-License-Identifier: Apache-2.0
"""Guards let nothing bad by, forget nothing good, and say whose fault it was."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx import health, parallel
from adamx.core.norms import global_norm
from adamx.core.snapshots import Snapshot
from adamx.health.states import RewindState
from tests import cases
from tests.parallel.test_data_parallel import batch, loss_fn, model
from tests.products import rest_slow, ways_in_turn


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


def norms_with_tails(steps, seed=0):
    rng = np.random.default_rng(seed)
    return np.exp(0.3 * rng.normal(size=steps)) * np.where(rng.random(steps) < 0.05, 30, 1)


# Adaptive clips


def zclip_in_float64(norms, z_max=2.5, decay=0.97, warmup=25):
    """ZClip as its paper has it, on a list of norms."""
    seen, passed, mean, var = [], [], None, None
    for norm in norms:
        if mean is None:
            seen.append(norm)
            passed.append(norm)
            if len(seen) == warmup:
                mean, var = np.mean(seen), np.var(seen)
            continue
        z = (norm - mean) / var**0.5
        norm = mean + z_max * var**0.5 / (z / z_max) if z > z_max else norm
        passed.append(norm)
        mean = decay * mean + (1 - decay) * norm
        var = decay * var + (1 - decay) * (norm - mean) ** 2
    return passed


def passed_by(link, norms):
    def step(state, norm):
        grads = {"a": 0.6 * norm, "b": jnp.full((2, 2), 0.4) * norm}
        clipped, state = link.update(grads, state)
        return state, global_norm(clipped)

    return jax.lax.scan(step, link.init(None), jnp.asarray(norms, jnp.float32))[1]


def test_clip_by_zscore_is_that_of_the_paper():
    norms = norms_with_tails(400)
    found = passed_by(adamx.clip_by_zscore(), norms)
    want = zclip_in_float64(norms)
    assert np.mean(np.asarray(want) < norms) > 0.03
    np.testing.assert_allclose(found, want, 2e-4)  # a deviation of float32 norms, 400 steps on


def test_clip_by_percentile_is_that_of_the_norms_before():
    norms = norms_with_tails(120)
    found = passed_by(adamx.clip_by_percentile(90.0, history=50), norms)
    kept = [norms[max(0, i - 49) : i + 1] for i in range(len(norms))]
    want = [min(norm, np.percentile(k, 90)) for norm, k in zip(norms, kept, strict=True)]
    np.testing.assert_allclose(found, want, 1e-5)


@pytest.mark.parametrize("link", [adamx.clip_by_zscore(warmup=3), adamx.clip_by_percentile(50.0)])
def test_an_adaptive_clip_survives_any_gradient(link):
    state, params = link.init(None), jnp.zeros(2)
    for size in (1.0, 1e-30, 2.0, 1e30, np.inf, np.nan, 0.0, 1.5):
        clipped, state = link.update(jnp.full(2, size, jnp.float32), state, params)
        for x in jax.tree.leaves(state):
            assert not np.isinf(x).any()
    assert np.isfinite(clipped).all()
    large, _ = link.update(jnp.full(2, 1e20), state)
    assert np.isfinite(large).all()
    half, _ = link.update(jnp.full(2, 6e4, jnp.float16), state)
    assert half.dtype == jnp.float16


@pytest.mark.parametrize("link", [adamx.clip_by_zscore(warmup=2), adamx.clip_by_percentile(50.0)])
def test_an_adaptive_clip_has_a_derivative_from_the_first_step_on(link):
    def total(sizes):
        state, found = link.init(None), 0.0
        for size in sizes:
            clipped, state = link.update(size, state)
            found += clipped
        return found

    sizes = jnp.array([1.0, 1.0, 0.0, 3.0, 9.0])
    assert np.isfinite(jax.jit(jax.grad(total))(sizes)).all()


COUNTED = optax.chain(health.counted(adamx.clip_by_percentile(50.0)), adamx.adam(1e-2))
BATCHES = [jax.tree.map(lambda x, times=times: times * x, batch()) for times in (1, 3, 1, 3)]


def stepped(opt, batches):
    """Parameters and state after these batches, on one device."""
    params, state = model(), opt.init(model())
    step = jax.jit(lambda p, s, b: adamx.step(opt, p, s, jax.grad(loss_fn)(p, b)))
    for now in batches:
        params, state = step(params, state, now)
    return params, state


@functools.cache
def counted_on_one_device():
    return stepped(COUNTED, BATCHES)


@ways_in_turn
def test_an_adaptive_clip_is_the_same_on_many_devices(how, zero):
    train = parallel.data_parallel(loss_fn, COUNTED, model(), how=how, zero=zero)
    run = train.init(model())
    for now in BATCHES:
        run, _ = train.step(run, now)
    run, (params, state) = train.collect(run), counted_on_one_device()
    assert health.read(run.state) == health.read(state)
    assert health.read(state)["clipped"] > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), run.params, params)


def test_mistakes_of_adaptive_clips_are_named():
    with pytest.raises(ValueError, match="`z_max` must be > 0, got 0"):
        adamx.clip_by_zscore(0)
    with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\), got 1"):
        adamx.clip_by_zscore(decay=1)
    with pytest.raises(ValueError, match="`warmup` must be a whole number of at least 1, got 0"):
        adamx.clip_by_zscore(warmup=0)
    with pytest.raises(
        TypeError, match="`z_max` must be a number, an array or a schedule, got '2'"
    ):
        adamx.clip_by_zscore("2")
    with pytest.raises(TypeError, match="`percentile` must be a number or an array, got a sched"):
        adamx.clip_by_percentile(lambda step: 50)
    with pytest.raises(ValueError, match=r"`percentile` must be in \[0, 100\], got 101"):
        adamx.clip_by_percentile(101)
    with pytest.raises(ValueError, match="`history` must be a whole number of at least 1, got 0"):
        adamx.clip_by_percentile(history=0)
    with pytest.raises(TypeError, match="gradient is int32, clipping needs floating point"):
        adamx.clip_by_zscore().update(jnp.ones(2, jnp.int32), adamx.clip_by_zscore().init(None))
    with pytest.raises(ValueError, match="clip_by_zscore: the state is a EmptyState, expected ZSc"):
        adamx.clip_by_zscore().update(jnp.ones(2), optax.EmptyState())
    with pytest.raises(ValueError, match="clip_by_percentile: the state is a ZScoreState, expect"):
        adamx.clip_by_percentile().update(jnp.ones(2), adamx.clip_by_zscore().init(None))


@pytest.mark.parametrize(
    "link", [optax.clip_by_global_norm(1.0), adamx.clip(1.0), adamx.adaptive_grad_clip(1.0)]
)
def test_clips_are_counted_where_they_act_and_change_nothing_more(link):
    counted, params = health.counted(link), {"k": jnp.full((2, 2), 1.0), "b": jnp.ones(2)}
    state = counted.init(params)
    for i, size in enumerate((0.1, 9.0, 0.2, 9.0, 9.0), 1):
        grads = jax.tree.map(lambda p, size=size: size * p, params)
        with jax.numpy_dtype_promotion("standard"):
            clipped, state = counted.update(grads, state, params)
            same(clipped, link.update(grads, link.init(params), params)[0])
        acted = [0, 1, 1, 2, 3][i - 1]
        assert health.read(state)["clipped"] == acted
        assert health.read(state)["clip_rate"] == pytest.approx(acted / i)


# Spikes


def grads_of(params, rng, **times):
    return {
        k: jnp.asarray(rng.normal(size=p.shape) * times.get(k, 1.0), jnp.float32)
        for k, p in params.items()
    }


PARAMS = {"kernel": jnp.ones((16, 16)), "bias": jnp.full(16, 1e-3, jnp.float32)}


def test_a_spike_in_a_small_leaf_is_skipped_and_named():
    rng, opt = np.random.default_rng(0), health.skip_spikes(adamx.adam(1e-2))
    params, state = PARAMS, opt.init(PARAMS)
    for _ in range(60):
        params, state = adamx.step(opt, params, state, grads_of(params, rng, bias=1e-3))
    assert health.read(state) == {"spikes": 0, "spikes_in_a_row": 0}
    was = params, state.inner
    params, state = adamx.step(opt, params, state, grads_of(params, rng, bias=1e3))
    same((params, state.inner), was)
    assert health.read(state) == {"spikes": 1, "spikes_in_a_row": 1}
    assert health.first_bad(state, params) == "bias"
    params, state = adamx.step(opt, params, state, grads_of(params, rng, bias=1e-3))
    assert health.read(state) == {"spikes": 1, "spikes_in_a_row": 0}


def test_gradients_that_stay_larger_are_let_pass_in_time():
    rng, opt = np.random.default_rng(0), health.skip_spikes(adamx.adam(1e-2))
    params, state = PARAMS, opt.init(PARAMS)
    update = jax.jit(opt.update)
    for i in range(150):
        _, state = update(grads_of(params, rng, bias=1.0 if i < 60 else 1e6), state, params)
    read = health.read(state)
    assert 5 < read["spikes"] < 60
    assert read["spikes_in_a_row"] == 0


def test_usual_noise_is_no_spike():
    rng, opt = np.random.default_rng(0), health.skip_spikes(adamx.adam(1e-2))
    params, state, update = PARAMS, opt.init(PARAMS), jax.jit(opt.update)
    for i in range(1000):  # falling tenfold, with norms that vary by a half
        times = {k: np.exp(0.5 * rng.normal() - i / 430) for k in params}
        _, state = update(grads_of(params, rng, **times), state, params)
    assert health.read(state)["spikes"] == 0


def test_a_run_of_spikes_only_is_no_run():
    opt, params = health.skip_spikes(adamx.adam(1e-2), warmup=5, max_consecutive=2), PARAMS
    state = opt.init(params)
    for i in range(8):
        grads = jax.tree.map(lambda p, i=i: p * (1.0 if i < 5 else 1e12), params)
        _, state = opt.update(grads, state, params)
    with pytest.raises(health.TooManySkippedError, match="bias has spikes: 3 steps in a row"):
        health.check(state, params)
    for bad in ({"z_max": 0}, {"warmup": 0}, {"max_consecutive": -1}):
        with pytest.raises(ValueError, match=f"`{next(iter(bad))}` must be"):
            health.skip_spikes(adamx.adam(1e-2), **bad)


# Loss scaling


def tiny(params, x):
    """A loss whose float16 gradients are below the least float16."""
    hidden = jnp.tanh(x.astype(jnp.float16) @ params["kernel"] + params["bias"])
    return jnp.mean(jnp.square(hidden.astype(jnp.float32))) * 1e-6


def scaled_gradient(params, state, x):
    return jax.grad(lambda p: health.scaled(tiny(p, x), state))(params)


def test_scaled_gradients_train_float16_where_plain_ones_vanish():
    rng = np.random.default_rng(0)
    params = {
        "kernel": jnp.asarray(0.3 * rng.normal(size=(8, 8)), jnp.float16),
        "bias": jnp.zeros(8, jnp.float16),
    }
    x = jnp.asarray(rng.normal(size=(32, 8)), jnp.float32)
    assert not any(np.any(g) for g in jax.tree.leaves(jax.grad(tiny)(params, x)))
    opt = health.scale_loss(adamx.adam(1e-2, eps=1e-12))
    state, p = opt.init(params), params
    for _ in range(30):
        p, state = adamx.step(opt, p, state, scaled_gradient(p, state, x))
    assert tiny(p, x) < 0.5 * tiny(params, x)
    assert health.read(state) == {"loss_scale": 2.0**15, "overflows": 0}


def test_the_scale_halves_where_gradients_overflow_and_doubles_after_a_while():
    opt, params = (
        health.scale_loss(adamx.adam(1e-2), 2.0**10, growth_interval=3),
        {"k": jnp.ones(2)},
    )
    state = opt.init(params)
    scales = []
    for good in (1, 0, 0, 1, 1, 1, 1, 1, 0, 1):
        was = params, state.inner
        grads = {"k": jnp.array([1.0, 1.0 if good else np.inf]) * state.scale}
        params, state = adamx.step(opt, params, state, grads)
        if not good:
            same((params, state.inner), was)
        scales.append(float(np.log2(state.scale)))
    assert scales == [10, 9, 8, 8, 8, 9, 9, 9, 8, 8]
    assert health.read(state) == {"loss_scale": 2.0**8, "overflows": 3}
    assert health.first_bad(state, params) == "k"


def test_scaling_changes_no_step():
    """A power of two costs float32 no digit."""
    params = model()
    plain, opt = adamx.adamw(1e-2), health.scale_loss(adamx.adamw(1e-2), 2.0**7)
    one, two, a, b = params, params, plain.init(params), opt.init(params)
    for _ in range(5):
        one, a = adamx.step(plain, one, a, jax.grad(loss_fn)(one, batch()))
        grads = jax.grad(lambda p, b=b: health.scaled(loss_fn(p, batch()), b))(two)
        two, b = adamx.step(opt, two, b, grads)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-5, 1e-7), one, two)


@ways_in_turn
def test_data_parallel_scales_the_loss_by_itself(how, zero):
    params, data = model(), batch()
    plain = adamx.adamw(1e-2)
    opt = health.scale_loss(adamx.adamw(1e-2), 2.0**7, growth_interval=2)
    train = parallel.data_parallel(loss_fn, opt, params, how=how, zero=zero)
    run, one, a = train.init(params), params, plain.init(params)
    value_and_grad = jax.jit(jax.value_and_grad(loss_fn))
    for _ in range(5):
        run, outcome = train.step(run, data)
        loss, grads = value_and_grad(one, data)
        one, a = adamx.step(plain, one, a, grads)
        np.testing.assert_allclose(outcome.loss, loss, 1e-5)
    assert health.read(run.state) == {"loss_scale": 2.0**9, "overflows": 0}
    found = train.collect(run).params
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-3, 1e-5), found, one)


def test_mistakes_of_scaling_are_named():
    for bad in (3.0, 0.0, 2.0**50):
        with pytest.raises(ValueError, match="`initial` must be a power of two"):
            health.scale_loss(adamx.adam(1e-3), bad)
    with pytest.raises(ValueError, match="`growth_interval` must be a whole number of at least 1"):
        health.scale_loss(adamx.adam(1e-3), growth_interval=0)
    inside = health.scale_loss(adamx.adam(1e-3))
    for guard in (health.skip_nonfinite, health.skip_spikes):
        with pytest.raises(ValueError, match=r"Wrap it the other way round, `scale_loss\("):
            guard(inside).init({"k": jnp.ones(2)})
        with pytest.raises(ValueError, match=r"Wrap it the other way round, `rewind\("):
            guard(health.rewind(adamx.adam(1e-3))).init({"k": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"scale_loss around rewind: rewind forgets"):
        health.scale_loss(health.rewind(adamx.adam(1e-3))).init({"k": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"observe around scale_loss: scale_loss multiplies grad"):
        health.observe(inside).init({"k": jnp.ones(2)})
    opt, params = health.scale_loss(adamx.adam(1e-3), 2.0**-23), {"k": jnp.ones(2)}
    state = opt.init(params)
    health.check(state, params)
    _, state = opt.update({"k": jnp.array([1.0, np.nan])}, state, params)
    with pytest.raises(health.TooManySkippedError, match="k is not finite, though the loss is"):
        health.check(state, params)


# Going back


def walked(opt, losses, params=None, grads=None):
    """A run whose losses are given; what it was before each step."""
    params = params or {"k": jnp.ones(4), "h": jnp.ones(3, jnp.bfloat16)}
    state, path = opt.init(params), []
    step = jax.jit(lambda g, s, p, v: adamx.step(opt, p, s, g, value=v))
    for i, loss in enumerate(losses):
        path.append((params, state))
        g = jax.tree.map(lambda p, i=i: jnp.full_like(p, np.cos(i)), params)
        params, state = step(g, state, params, jnp.float32(loss))
    return params, state, path


@rest_slow(
    "memory, landing",
    [(memory, x) for memory in ("device", "pinned_host") for x in (None, "exact", "kahan")],
    [("device", "kahan"), ("pinned_host", None), ("pinned_host", "exact")],
)
def test_a_run_goes_back_bit_for_bit(memory, landing):
    inner = adamx.adamw(1e-2, landing=landing) if landing else optax.adamw(1e-2)
    opt = health.rewind(inner, every=10, patience=3, slow_steps=4, memory=memory)
    losses = [1 + 0.1 * np.sin(i) for i in range(47)] + [50.0, np.nan, 60.0]
    with jax.numpy_dtype_promotion("standard"):
        params, state, path = walked(opt, losses)
    taken = max(i for i in range(47) if int(path[i + 1][1].age) == 1)
    assert taken > 25
    same((params, state.inner), (path[taken][0], path[taken][1].inner))
    assert health.read(state) == {"rewinds": 1}
    assert int(state.slow) == 4
    kinds = {x.sharding.memory_kind for x in jax.tree.leaves(state.kept.params)}
    assert kinds == {memory}
    assert {x.sharding.memory_kind for x in jax.tree.leaves(params)} == {"device"}


@pytest.mark.filterwarnings("ignore:landing 'exact' does nothing")
@pytest.mark.parametrize("landing", [None, "exact"])
def test_steps_are_shorter_after_going_back(landing):
    inner = adamx.adam(1e-2, landing=landing or "nearest")
    opt = health.rewind(inner, every=5, patience=1, slow_steps=3, step_scale=0.25)
    losses = [1.0] * 30 + [50.0] + [1.0] * 6
    _, _, path = walked(opt, losses, {"k": jnp.ones(4)})
    moved = [float(abs(path[i + 1][0]["k"] - path[i][0]["k"])[0]) for i in range(len(path) - 1)]
    assert int(path[31][1].slow) == 3
    slow = [int(s.slow) for _, s in path[31:]]
    assert slow == [3, 2, 1, 0, 0, 0]
    plain = inner.init(path[31][0])
    plain = jax.tree.map(lambda _, x: x, plain, path[31][1].inner)
    p = path[31][0]
    for i in range(31, 36):
        g = jax.tree.map(lambda q, i=i: jnp.full_like(q, np.cos(i)), p)
        now, plain = adamx.step(inner, path[i][0], plain, g)
        full = float(abs(now["k"] - path[i][0]["k"])[0])
        share = 0.25 if i < 34 else 1.0
        assert moved[i] == pytest.approx(share * full, rel=1e-3)


def test_parameters_that_are_lost_come_back():
    """A flipped bit makes a NaN, which no update takes away."""
    opt = health.rewind(adamx.adam(1e-2), every=5, patience=2)
    params = {"k": jnp.ones(4)}
    state = opt.init(params)
    for _ in range(30):
        params, state = adamx.step(opt, params, state, {"k": jnp.ones(4)}, value=1.0)
    params = {"k": params["k"].at[2].set(np.nan)}
    for _ in range(2):
        grads = {"k": jnp.full(4, np.nan)}
        params, state = adamx.step(opt, params, state, grads, value=np.nan)
    assert np.isfinite(params["k"]).all()
    same(params, state.kept.params)


def test_without_our_step_parameters_come_back_within_rounding():
    opt = health.rewind(adamx.adam(1e-2), every=5, patience=1)
    params = {"k": jnp.array([1.0, -2e-3, 3e4])}
    state = opt.init(params)
    for loss in [1.0] * 30 + [100.0]:
        updates, state = opt.update({"k": jnp.ones(3)}, state, params, value=loss)
        params = optax.apply_updates(params, updates)
    assert bool(state.kept.due)
    np.testing.assert_allclose(params["k"], state.kept.params["k"], 1e-7, 1e-9)


def test_a_run_that_cannot_be_helped_says_so():
    opt = health.rewind(adamx.adam(1e-2), every=5, patience=2, max_tries=2, slow_steps=1)
    params, state, path = walked(opt, [1.0] * 30 + [1e3] * 4 + [1e3] * 2, {"k": jnp.ones(4)})
    assert health.read(state)["rewinds"] == 2
    health.check(path[-1][1], params)
    with pytest.raises(
        health.TooManySkippedError, match=r"2 losses in a row are far above .* 2 times"
    ):
        health.check(state, params)
    # What lasts is usual in time.
    _, state, _ = walked(opt, [1.0] * 30 + [2.0] * 100, {"k": jnp.ones(4)})
    health.check(state)


def test_a_run_goes_back_where_guards_only_skip():
    """Lost parameters may leave the loss as it is: a tanh of infinity is one."""
    opt = health.rewind(
        health.scale_loss(health.skip_nonfinite(adamx.adam(1e-2))), every=5, max_skipped=7
    )
    params = {"k": jnp.ones(4)}
    state = opt.init(params)
    for i in range(40):
        g = {"k": jnp.full(4, np.nan if i >= 30 else 1.0)}
        params, state = adamx.step(opt, params, state, g, value=1.0)
        assert health.read(state)["rewinds"] == (i >= 36)


def test_a_usual_loss_never_goes_back():
    rng = np.random.default_rng(0)
    losses = 2 + 4 * np.exp(-np.arange(1500) / 200) + 0.15 * rng.normal(size=1500)
    opt = health.rewind(adamx.adam(1e-3), every=100)
    _, state, path = walked(opt, losses, {"k": jnp.ones(4)})
    assert health.read(state)["rewinds"] == 0
    assert max(int(s.age) for _, s in path) < 150


@ways_in_turn
def test_a_run_goes_back_on_many_devices(how, zero):
    params, data = model(), batch()
    opt = health.rewind(adamx.adamw(1e-2), every=5, patience=2)
    train = parallel.data_parallel(loss_fn, opt, params, how=how, zero=zero)
    run = train.init(params)
    bad = jax.tree.map(lambda x: 1e3 * x if jnp.issubdtype(x.dtype, jnp.inexact) else x, data)
    for _ in range(25):
        run, _ = train.step(run, data)
    for _ in range(2):
        run, outcome = train.step(run, bad)
    state = train.collect(run).state
    assert health.read(state)["rewinds"] == 1, outcome.loss
    assert isinstance(state.kept, Snapshot)
    same(train.collect(run).params, state.kept.params)


def test_snapshots_rest_on_the_host_in_jit():
    params, data = model(), batch()
    opt = health.rewind(adamx.adamw(1e-2), every=2, memory="pinned_host")
    train = parallel.data_parallel(loss_fn, opt, params, how="jit", zero=True)
    run = train.init(params)
    for _ in range(6):
        run, _ = train.step(run, data)
    assert {x.sharding.memory_kind for x in jax.tree.leaves(run.state.kept.params)} == {
        "pinned_host"
    }
    assert {x.sharding.memory_kind for x in jax.tree.leaves(run.state.inner)} == {"device"}


def test_going_back_scans():
    opt, params = health.rewind(adamx.adam(1e-2), every=5, patience=1), {"k": jnp.ones(4)}

    def step(carry, loss):
        params, state = carry
        params, state = adamx.step(opt, params, state, {"k": params["k"]}, value=loss)
        return (params, state), state.total

    losses = jnp.array([1.0] * 30 + [99.0] + [1.0] * 5)
    (_, state), totals = jax.lax.scan(step, (params, opt.init(params)), losses)
    assert [int(totals[i]) for i in (29, 30, -1)] == [0, 1, 1]
    assert health.read(state)["rewinds"] == 1


def test_mistakes_of_going_back_are_named():
    adam = adamx.adam(1e-3)
    for bad in ({"every": 0}, {"patience": 0}, {"slow_steps": 0}, {"max_tries": 0}):
        with pytest.raises(
            ValueError, match=f"`{next(iter(bad))}` must be a whole number of at least 1, got 0"
        ):
            health.rewind(adam, **bad)
    with pytest.raises(ValueError, match=r"`step_scale` must be in \(0, 1\], got 2"):
        health.rewind(adam, step_scale=2)
    with pytest.raises(ValueError, match="`z_max` must be > 0"):
        health.rewind(adam, z_max=0)
    with pytest.raises(ValueError, match="`memory` must be one of 'device', 'pinned_host'"):
        health.rewind(adam, memory="disk")
    opt, params = health.rewind(adam), {"k": jnp.ones(2)}
    with pytest.raises(ValueError, match="rewind needs the loss: call"):
        opt.update(params, opt.init(params), params)
    with pytest.raises(ValueError, match="rewind needs the parameters: call"):
        opt.update(params, opt.init(params), value=1.0)


@rest_slow("storage", [(s,) for s in cases.STORAGES], [("int8",)])
def test_all_guards_go_together(storage):
    rng = np.random.default_rng(0)
    params = PARAMS
    inner = optax.chain(
        health.counted(adamx.clip_by_global_norm(10.0)), adamx.adamw(1e-2, storage=storage)
    )
    opt = health.observe(health.skip_spikes(health.skip_nonfinite(inner)))
    opt = health.rewind(health.scale_loss(opt))
    state = opt.init(params)
    step = jax.jit(lambda g, s, p: adamx.step(opt, p, s, g, value=jnp.float32(1.0)))
    for _ in range(3):
        params, state = step(grads_of(params, rng), state, params)
    assert not np.array_equal(params["kernel"], PARAMS["kernel"])
    read = health.read(state)
    assert read["skipped"] == read["spikes"] == read["overflows"] == read["rewinds"] == 0
    names = "loss_scale overflows rewinds spikes skipped clipped clip_rate grad_norm"
    assert set(names.split()) <= set(read)


WRAPPERS = {
    "observe": health.observe,
    "observe per leaf": lambda opt: health.observe(opt, per_leaf=True),
    "skip_nonfinite": health.skip_nonfinite,
    "skip_spikes": health.skip_spikes,
    "scale_loss": health.scale_loss,
    "rewind": health.rewind,
    "counted": lambda opt: optax.chain(health.counted(adamx.clip(1.0)), opt),
    "clip_by_zscore": lambda opt: optax.chain(adamx.clip_by_zscore(), opt),
    "clip_by_percentile": lambda opt: optax.chain(adamx.clip_by_percentile(), opt),
}


QUICK = [w for w in WRAPPERS if w != "observe per leaf"]


@rest_slow("wrap", [(w,) for w in WRAPPERS], [(w,) for w in QUICK])
def test_states_can_be_donated_and_keep_their_form(wrap):
    opt, params = WRAPPERS[wrap](adamx.adamw(1e-2)), jax.tree.map(jnp.array, PARAMS)
    state = opt.init(params)
    buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((state, params))]
    assert len(set(buffers)) == len(buffers)
    form = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state)
    traces = []

    def step(g, s, p):
        traces.append(wrap)
        return adamx.step(opt, p, s, g, value=jnp.float32(1.0))[::-1]

    step = jax.jit(step, donate_argnums=(1, 2))
    assert not any(x.committed for x in jax.tree.leaves((params, state)))
    for _ in range(3):
        grads = jax.tree.map(jnp.ones_like, PARAMS)
        state, params = step(grads, state, params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state) == form
    assert len(traces) == 1
    assert not any(x.committed for x in jax.tree.leaves((params, state)))  # or it compiles twice


INSIDE = [*(w for w in WRAPPERS if w not in ("scale_loss", "rewind")), "reduce_on_plateau"]


@pytest.mark.parametrize("guard", [health.skip_nonfinite, health.skip_spikes])
@rest_slow("wrap", [(w,) for w in INSIDE], [(w,) for w in INSIDE if "leaf" not in w])
def test_what_is_finite_is_never_skipped_whatever_the_state_begins_with(wrap, guard):
    """Figures that nobody knows yet are NaN, a best loss begins at infinity."""
    plateau = optax.contrib.reduce_on_plateau()
    wrappers = WRAPPERS | {"reduce_on_plateau": lambda opt: optax.chain(opt, plateau)}
    opt, params = guard(wrappers[wrap](adamx.adam(1e-2))), PARAMS
    state, update = opt.init(params), jax.jit(opt.update)
    for i in range(3):
        grads = jax.tree.map(lambda p, i=i: jnp.full_like(p, 1.0 + i), params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = update(grads, state, params, value=1.0)
        assert all(np.any(u) for u in jax.tree.leaves(updates))
    assert int(state.total) == 0


CAUTIOUS = {
    "zscore": lambda: adamx.clip_by_zscore(warmup=1),
    "percentile": lambda: adamx.clip_by_percentile(history=3),
    "counted": lambda: health.counted(adamx.clip_by_percentile(history=3)),
    "spikes": lambda: health.skip_spikes(adamx.adam(0.1), warmup=2),
    "nonfinite": lambda: health.skip_nonfinite(adamx.adam(0.1)),
    "scale": lambda: health.scale_loss(adamx.adam(0.1)),
    "rewind": lambda: health.rewind(adamx.adam(0.1)),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("link", CAUTIOUS.values(), ids=CAUTIOUS)
def test_no_clip_and_no_guard_makes_a_nan_or_an_infinity_of_its_own(link, compiled):
    opt, params = link(), {"a": jnp.ones(3), "b": jnp.zeros(2)}
    with jax.debug_nans(True), jax.debug_infs(True):
        state = opt.init(params)
        update = jax.jit(opt.update) if compiled else opt.update
        for size in (1.0, 0.0, 2.0, 1e6):
            grads = jax.tree.map(lambda p, size=size: size * p, params)
            extra = {"value": jnp.float32(1.0)} if isinstance(state, RewindState) else {}
            updates, state = update(grads, state, params, **extra)
            chex.assert_tree_all_finite((updates, state))
