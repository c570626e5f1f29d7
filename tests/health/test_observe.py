# SPDX-License-Identifier: Apache-2.0
"""Figures are those of NumPy in float64, watching changes no step, guards let nothing bad by."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx
from adamx import health, parallel
from adamx.health.figures import NAMES
from tests import cases
from tests.parallel.test_data_parallel import batch, loss_fn, model, on_one_device, trained
from tests.products import WAYS, rest_slow

B1, B2, EPS, RATE = 0.9, 0.999, 1e-8, 1e-2


def stream(params, steps, scale=1.0):
    rng = np.random.default_rng(0)
    return [
        jax.tree.map(lambda p: jnp.asarray(scale * rng.normal(size=p.shape), p.dtype), params)
        for _ in range(steps)
    ]


def observed(opt, params, grads, **settings):
    watched = health.observe(opt, **settings)
    state = watched.init(params)
    update = jax.jit(watched.update)
    for g in grads:
        before = params
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
    return state, before, updates


def recomputed(params, grads, updates, names, eps=EPS):
    """Every figure in float64, from the stream alone."""
    flat = {k: [np.asarray(x, np.float64) for x in v] for k, v in flatten(grads).items()}
    g, u, p, m, v = [], [], [], [], []
    t = len(grads)
    for name in names:
        mu = nu = 0.0
        for x in flat[name]:
            mu, nu = B1 * mu + (1 - B1) * x, B2 * nu + (1 - B2) * x * x
        m.append(np.ravel(mu / (1 - B1**t)))
        v.append(np.ravel(nu / (1 - B2**t)))
        g.append(np.ravel(flat[name][-1]))
        u.append(np.ravel(np.asarray(flatten([updates])[name][0], np.float64)))
        p.append(np.ravel(np.asarray(flatten([params])[name][0], np.float64)))
    g, u, p, m, v = map(np.concatenate, (g, u, p, m, v))
    norm, n = np.linalg.norm, len(g)
    share = (1 - B1) * (1 + B1**t) / ((1 + B1) * (1 - B1**t))
    ratio = m @ m / v.sum()
    rates = np.quantile(np.abs(u) / np.abs(m), [0.1, 0.5, 0.9])
    p32, u32 = p.astype(np.float32), u.astype(np.float32)
    return {
        "grad_norm": norm(g), "grad_rms": norm(g) / n**0.5,
        "update_norm": norm(u), "update_rms": norm(u) / n**0.5,
        "param_norm": norm(p), "param_rms": norm(p) / n**0.5,
        "update_ratio": norm(u) / norm(p),
        "cosine": g @ m / norm(g) / norm(m),
        "noise_scale": (1 - ratio) / (ratio - share) if ratio > share else np.inf,
        "rate_p10": rates[0], "rate_p50": rates[1], "rate_p90": rates[2],
        "under_epsilon": np.mean((np.sqrt(v) < eps) & (np.abs(m) > 1e-6 * np.sqrt(v))),
        "idle": np.mean(np.abs(m) <= 1e-6 * np.sqrt(v)),
        "lost": np.mean((p32 + u32 == p32)[u32 != 0]),
        "at_floor": 0.0, "at_ceiling": 0.0,
    }  # fmt: skip


def flatten(trees):
    out = {}
    for tree in trees:
        for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
            out.setdefault(jax.tree_util.keystr(path, simple=True, separator="/"), []).append(x)
    return out


def test_every_figure_is_that_of_float64():
    params = model()
    grads = stream(params, 5)
    opt = adamx.adam(RATE, B1, B2, EPS)
    state, before, updates = observed(opt, params, grads, groups=["*/kernel"], per_leaf=True)
    found = health.read(state)
    names = list(flatten([params]))
    sets = {"": names, "/*/kernel": [n for n in names if n.endswith("kernel")]}
    sets |= {f"/{n}": [n] for n in names}
    for behind, chosen in sets.items():
        want = recomputed(before, grads, updates, chosen)
        assert set(want) == set(NAMES)
        for name in NAMES:
            # float32 sums; a quotient of differences of nearly equal numbers loses more.
            tolerance = 2e-3 if name == "noise_scale" else 1e-5
            np.testing.assert_allclose(
                found[name + behind], want[name], tolerance, 1e-6, err_msg=name + behind
            )
    assert len(found) == len(NAMES) * len(sets) + 2


@pytest.mark.parametrize("recipe", [optax.adam, optax.sgd, adamx.lion])
def test_a_figure_of_unknown_moments_is_not_a_number(recipe):
    params = {"a": jnp.ones(8)}
    with jax.numpy_dtype_promotion("standard"):  # of Optax's
        state, _, _ = observed(recipe(1e-3), params, [params] * 2)
    found = health.read(state)
    assert np.isnan(found["noise_scale"]), found["noise_scale"]
    assert np.isnan(found["under_epsilon"])


def test_tiny_gradients_are_under_epsilon_and_small_steps_are_lost():
    params = {"a": jnp.full((8, 8), 100.0), "b": jnp.ones(64)}
    grads = [{"a": jnp.full((8, 8), 1e-10), "b": jnp.ones(64)}] * 3
    state, _, _ = observed(adamx.adam(1e-7), params, grads, per_leaf=True)
    found = health.read(state)
    assert found["under_epsilon/a"] == 1
    assert found["under_epsilon/b"] == 0
    assert found["under_epsilon"] == 0.5
    assert found["lost/a"] == 1
    assert found["lost/b"] == 0
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    with jax.numpy_dtype_promotion("standard"):  # of `optax.apply_updates`
        for landing, lost in (("nearest", 1.0), ("stochastic", 0.0)):
            state, _, _ = observed(adamx.adam(1e-4, landing=landing), half, [half] * 2)
            assert health.read(state)["lost"] == lost


def test_epsilon_is_judged_where_it_is_used():
    params = {"a": jnp.ones(64)}
    grads = stream(params, 5, scale=1e-5)
    for settings, share in (
        ({"eps": 1e-3, "eps_mode": "outside"}, 1),
        ({"eps": 1e-3, "eps_mode": "atan2"}, 0),
        ({"eps_root": 1e-6}, 1),
        ({"eps_root": 1e-16}, 0),
    ):
        state, _, _ = observed(adamx.adam(1e-3, **settings), params, grads)
        assert health.read(state)["under_epsilon"] == share, settings


@rest_slow("storage", [(s,) for s in cases.STORAGES], [("float32",), ("int4",)])
def test_rows_that_get_no_gradient_are_idle_after_a_while(storage):
    params = {"embed": jnp.ones((10, 8)), "kernel": jnp.ones((8, 8))}
    dead = {"embed": jnp.ones((10, 8)).at[3].set(0), "kernel": jnp.ones((8, 8))}
    opt = health.observe(adamx.adam(1e-3, storage=storage), per_leaf=True)
    state, update = opt.init(params), jax.jit(opt.update)
    for i in range(220):
        _, state = update(params if i < 20 else dead, state, params)
        if i == 25:
            assert health.read(state)["idle/embed"] < 0.1 or storage == "int4"
    found = health.read(state)
    assert found["idle/embed"] == pytest.approx(0.1)
    assert found["idle/kernel"] == found["under_epsilon/embed"] == 0


def test_a_mean_that_a_short_code_rounds_to_zero_is_not_idle():
    params = {"k": jnp.ones(256)}
    opt = health.observe(adamx.adam(1e-3, storage="int4"))
    state, update = opt.init(params), jax.jit(opt.update)
    for g in stream(params, 60):
        _, state = update(g, state, params)
    assert health.read(state)["idle"] == 0


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_moments_at_the_end_of_their_format_are_counted(storage):
    params = {"low": jnp.ones(64), "high": jnp.ones(64), "fine": jnp.ones(64)}
    grads = {"low": jnp.full(64, 1e-12), "high": jnp.full(64, 1e12), "fine": jnp.ones(64)}
    opt = adamx.adam(1e-3, storage=storage)
    found = health.read(observed(opt, params, [grads] * 3, per_leaf=True)[0])
    # Of a square and a mean in one byte the least root beside a mean of zero reads as nothing.
    assert found["at_floor/low"] > 0.9 or storage == "int4"
    assert found["at_ceiling/high"] == 1
    assert found["at_floor/fine"] == found["at_ceiling/fine"] == 0
    assert found["at_ceiling"] == pytest.approx(1 / 3)


SOME_RULES = ("lion", "adopt", "adan")


# An observer sees moments, and so rules, and how they are stored.
@rest_slow(
    "recipe, storage",
    cases.TELLING,
    [*((rule, "float32") for rule in SOME_RULES), *(("adam", s) for s in cases.STORAGES)],
)
def test_whoever_watches_changes_no_step(recipe, storage):
    params = {"kernel": jnp.full((8, 4), 0.5)}
    opt = cases.RECIPES[recipe](1e-2, storage=storage)
    watched = health.observe(health.skip_nonfinite(opt), every=2)
    plain, other = opt.init(params), watched.init(params)
    update, watched_update = jax.jit(opt.update), jax.jit(watched.update)
    structure = jax.tree.map(lambda x: (x.shape, x.dtype), other)
    one, two = params, params
    for g in stream(params, 3):
        updates, plain = update(g, plain, one)
        one = optax.apply_updates(one, updates)
        updates, other = watched_update(g, other, two)
        two = optax.apply_updates(two, updates)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        # Alone and within another program XLA may contract a product and a sum or not.
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), other) == structure
    assert health.read(other)["grad_norm"] > 0


def test_figures_are_taken_when_they_are_due():
    params, seen = {"k": jnp.ones(4)}, []
    opt = health.observe(adamx.adam(1e-3), every=3)
    state = opt.init(params)
    assert np.isnan(health.read(state)["grad_norm"])
    for i in range(1, 8):
        _, state = opt.update({"k": jnp.full(4, float(i))}, state, params)
        seen.append(health.read(state)["grad_norm"])
    assert seen == [2, 2, 2, 8, 8, 8, 14]


def test_observed_steps_scan():
    params = model()
    opt = health.observe(adamx.adamw(1e-2, storage="int8"), every=2, groups=["*/bias"])
    grads = jax.tree.map(lambda *x: jnp.stack(x), *stream(params, 6))

    def step(carry, g):
        params, state = carry
        updates, state = opt.update(g, state, params)
        return (optax.apply_updates(params, updates), state), state.figures["grad_norm"]

    (_, state), norms = jax.lax.scan(step, (params, opt.init(params)), grads)
    assert norms[0] == norms[1] != norms[2]
    assert health.read(state)["update_norm/*/bias"] > 0


def test_a_growing_norm_drifts_and_noise_does_not_remember():
    params, rng = {"k": jnp.ones(4)}, np.random.default_rng(0)
    opt = health.observe(adamx.adam(1e-3))

    def after(sizes):
        state, update = opt.init(params), jax.jit(opt.update)
        for size in sizes:
            _, state = update({"k": jnp.full(4, float(size))}, state, params)
        return health.read(state)

    noise = after(np.exp(0.3 * rng.normal(size=300)))
    assert abs(noise["grad_autocorrelation"]) < 0.3
    assert abs(noise["grad_drift"]) < 0.3
    growing = after(1.03 ** np.arange(200))
    assert growing["grad_drift"] > 1
    assert growing["grad_autocorrelation"] > 0.8


WATCHED = health.observe(
    health.skip_nonfinite(optax.chain(adamx.clip_by_global_norm(0.5), adamx.adam(1e-2)))
)


@functools.cache
def watched_on_one_device():
    return health.read(on_one_device(WATCHED, loss_fn, model(), batch(), 3)[1])


@rest_slow("how, zero", WAYS, [("shard_map", True)])
def test_figures_of_many_devices_are_those_of_one(how, zero):
    params, data, want = model(), batch(), watched_on_one_device()
    train = parallel.data_parallel(loss_fn, WATCHED, params, how=how, zero=zero)
    found = health.read(trained(train, params, data, 3)[0].state)
    assert set(found) == set(want)
    for name in want:
        # Samples are taken at other places where arrays are cut.
        tolerance = 0.3 if name.startswith("rate") else 1e-3
        np.testing.assert_allclose(found[name], want[name], tolerance, 1e-4, err_msg=name)


def test_figures_on_a_mesh_of_explicit_axes():
    params = {"kernel": jnp.ones((24, 128)), "long": jnp.ones(2012), "bias": jnp.ones(3)}
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(0), p.shape), params)
    mesh = jax.make_mesh((4, 2), ("x", "y"), (AxisType.Explicit,) * 2)
    specs = {"kernel": P("x", "y"), "long": P("x"), "bias": P()}
    placed = jax.tree.map(lambda s: NamedSharding(mesh, s), specs)
    opt = health.observe(adamx.adam(1e-2))

    @jax.jit
    def figures(params, grads):
        return opt.update(grads, opt.init(params), params)[1].figures

    want = figures(params, grads)
    with jax.set_mesh(mesh):
        found = figures(jax.device_put(params, placed), jax.device_put(grads, placed))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), found, want)


def test_optimizers_of_optax_are_observed_too():
    params = model()
    with jax.numpy_dtype_promotion("standard"):
        found = health.read(observed(optax.adam(1e-2), params, stream(params, 2))[0])
    assert found["update_norm"] > 0
    assert np.isnan(found["cosine"])  # its moments are its own


def test_mistakes_of_observing_are_named():
    with pytest.raises(ValueError, match="`every` must be a whole number of at least 1, got 0"):
        health.observe(adamx.adam(1e-3), every=0)
    with pytest.raises(ValueError, match=r"`every` must be a whole number of at least 1, got 2.5"):
        health.observe(adamx.adam(1e-3), every=2.5)
    for show in (health.page, health.plot):
        with pytest.raises(ValueError, match="`history` is empty"):
            show([])
    with pytest.raises(
        ValueError, match=r"`groups`: no leaf matches 'bias'; the nearest are kernel"
    ):
        health.observe(adamx.adam(1e-3), groups=["bias"]).init({"kernel": jnp.ones(2)})
    opt = health.observe(adamx.adam(1e-3))
    state = opt.init({"k": jnp.ones(2)})
    with pytest.raises(ValueError, match="observe needs the parameters"):
        opt.update({"k": jnp.ones(2)}, state)


# Guards


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("storage", cases.STORAGES)
def test_what_is_not_finite_is_skipped_counted_and_named(storage, value):
    params = {"a": jnp.ones(3), "b": {"kernel": jnp.ones((2, 2))}}
    opt = health.skip_nonfinite(adamx.adamw(1e-2, storage=storage), max_consecutive=2)
    good = jax.tree.map(jnp.ones_like, params)
    bad = {**good, "b": {"kernel": jnp.ones((2, 2)).at[1, 0].set(value)}}
    params, state = adamx.step(opt, params, opt.init(params), good)
    assert health.first_bad(state, params) is None
    was = params, state.inner
    for skipped in (1, 2, 3):
        health.check(state, params)
        params, state = adamx.step(opt, params, state, bad)
        for now, before in zip(
            jax.tree.leaves((params, state.inner)), jax.tree.leaves(was), strict=True
        ):
            np.testing.assert_array_equal(now, before)
        assert health.read(state) == {"skipped": skipped, "skipped_in_a_row": skipped}
        assert health.first_bad(state, params) == "b/kernel"
    with pytest.raises(health.TooManySkippedError, match="b/kernel is not finite: 3 steps in"):
        health.check(state, params)
    params, state = adamx.step(opt, params, state, good)
    health.check(state, params)
    assert health.read(state) == {"skipped": 3, "skipped_in_a_row": 0}
    assert not np.array_equal(params["a"], was[0]["a"])


def test_a_state_that_is_not_finite_is_named():
    """As where a link divides by what it remembers."""

    def update(grads, state, params=None):
        return grads, state / 0.0

    link = optax.GradientTransformation(lambda params: jnp.ones([]), update)
    opt, params = health.skip_nonfinite(link), {"k": jnp.ones(2)}
    _, state = opt.update(params, opt.init(params), params)
    assert health.first_bad(state, params) == "the optimizer's state"
    assert state.inner == 1


def test_optax_applies_the_nan_where_we_raise():
    params = {"k": jnp.ones(2)}
    bad = {"k": jnp.array([1.0, np.nan])}
    ours = health.skip_nonfinite(adamx.adam(1e-2), max_consecutive=3)
    theirs = optax.apply_if_finite(optax.adam(1e-2), max_consecutive_errors=3)

    def after(opt):
        p, state = params, opt.init(params)
        for _ in range(6):
            updates, state = opt.update(bad, state, p)
            p = optax.apply_updates(p, updates)
        return p["k"], state

    with jax.numpy_dtype_promotion("standard"):
        assert np.isnan(after(theirs)[0]).any()
    kept, state = after(ours)
    np.testing.assert_array_equal(kept, params["k"])
    with pytest.raises(health.TooManySkippedError):
        health.check(state)


# Logs


def test_a_log_is_lines_of_json_and_survives_a_crash(tmp_path):
    path = tmp_path / "run.jsonl"
    with health.JsonLines(path) as log:
        log.write(1, {"loss": jnp.float32(0.5)})
    with health.JsonLines(path) as log:
        log.write(2, {"loss": np.inf})
    path.write_text(path.read_text() + '{"step": 3, "lo')
    rows = health.history(path)
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 0.5), (2, np.inf)]
    assert json.loads(path.read_text().splitlines()[0])["time"] > 1.7e9


def test_what_is_not_finite_is_in_the_log_in_strict_json_and_comes_back(tmp_path):
    def never(constant):
        raise AssertionError(constant)

    path = tmp_path / "run.jsonl"
    with health.JsonLines(path) as log:
        log.write(1, {"update_norm": np.nan, "grad_norm": np.inf, "cosine": -np.inf})
    text = path.read_text()
    json.loads(text, parse_constant=never)
    (row,) = health.history(path)
    assert np.isnan(row["update_norm"])
    assert (row["grad_norm"], row["cosine"]) == (np.inf, -np.inf)
    path.write_text('{"step": 1, "loss": null, "validation loss": null}\n')  # an older log
    (row,) = health.history(path)
    assert np.isnan(row["loss"])
    assert row["validation loss"] is None


def test_a_run_stops_by_plateau_target_and_divergence():
    falling = [1 / (i + 1) for i in range(20)]
    assert not health.plateau(falling, 5)
    assert health.plateau([*falling, *[falling[-1]] * 5], 5)
    assert health.plateau(falling, 5, least=0.1)
    assert not health.plateau([1.0], 5)
    assert health.reached(falling, 0.05)
    assert not health.reached(falling, 0.04)
    assert not health.diverged(falling)
    assert health.diverged([*falling, np.nan])
    assert health.diverged([*falling, *[1.0] * 5])
    assert not health.diverged([*falling, *[1.0] * 4])
    assert not health.diverged([])
    with pytest.raises(ValueError, match="`patience` must be a whole number of at least 1, got 0"):
        health.plateau(falling, 0)
