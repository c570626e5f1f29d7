# SPDX-License-Identifier: Apache-2.0
"""Training on eight devices makes the steps of one, by every way, with and without ZeRO."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx
from adamx import parallel
from adamx.parallel import spec
from tests import cases
from tests.products import HOWS, IN_TURN, WAYS, rest_slow, ways, ways_in_turn


def mesh(*sizes, names=("data", "model"), kind="Auto"):
    kinds = (getattr(AxisType, kind),) * len(sizes)
    return jax.make_mesh(sizes, names[: len(sizes)], kinds)


def model(dtype=jnp.float32):
    """A scalar, a vector that divides by nothing, and matrices: one padded in 64, two not."""
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "kernel": jax.random.normal(keys[0], (12, 64)) / 4,
        "deep": {"kernel": jax.random.normal(keys[1], (64, 10)) / 8, "bias": jnp.zeros(10)},
        "odd": jax.random.normal(keys[2], (3, 5)),
        "scale": jnp.ones(()),
    }
    return jax.tree.map(lambda p: p.astype(dtype), params)


def loss_fn(params, batch):
    hidden = jnp.tanh(batch["x"] @ params["kernel"])
    out = hidden @ params["deep"]["kernel"] + params["deep"]["bias"]
    penalty = jnp.sum(params["odd"] ** 2) * jnp.asarray(0.01, params["odd"].dtype)
    return jnp.mean((out * params["scale"] - batch["y"]) ** 2) + penalty


def batch(size=48, dtype=np.float32):
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(size, 12)).astype(dtype),
        "y": rng.normal(size=(size, 10)).astype(dtype),
    }


def on_one_device(opt, loss, params, data, steps):
    @jax.jit
    def step(params, state):
        return adamx.step(opt, params, state, jax.grad(loss)(params, data))

    state = opt.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def trained(train, params, data, steps, **init):
    run = train.init(params, **init)
    for _ in range(steps):
        run, outcome = train.step(run, data)
    return run, outcome


def close(got, want, tolerance):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, a), b in zip(
        jax.tree_util.tree_flatten_with_path(got)[0], jax.tree.leaves(want), strict=True
    ):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), tolerance, tolerance, err_msg=path
        )


def same(got, want):
    for (path, a), b in zip(
        jax.tree_util.tree_flatten_with_path(got)[0], jax.tree.leaves(want), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=str(path))


# The clip bites at every step, so that a norm of shards alone would show.
CLIPPED = optax.chain(adamx.clip_by_global_norm(0.1), adamx.adamw(1e-2, weight_decay=0.1))


@functools.cache
def four_clipped_steps():
    """What training begins with in float64; parameters and state after three steps, and four."""
    params, data = model(jnp.float64), batch(dtype=np.float64)
    assert optax.tree.norm(jax.grad(loss_fn)(params, data)) > 0.2
    before, state = on_one_device(CLIPPED, loss_fn, params, data, 3)
    grads = jax.grad(loss_fn)(before, data)
    return params, data, before, adamx.step(CLIPPED, before, state, grads)


@rest_slow(
    "how, zero, kind",
    [(*way, kind) for way in WAYS for kind in ("Auto", "Explicit")],
    [*((*way, "Auto") for way in IN_TURN), ("jit", True, "Explicit")],
)
def test_every_way_makes_the_steps_of_one_device(how, zero, kind):
    opt = CLIPPED
    with jax.enable_x64(True):
        params, data, before, want = four_clipped_steps()
        train = parallel.data_parallel(loss_fn, opt, params, mesh(8, kind=kind), how=how, zero=zero)
        run, outcome = trained(train, params, data, 4)
        got = train.collect(run)
        close((got.params, got.state), want, 1e-12)
        np.testing.assert_allclose(outcome.loss, loss_fn(before, data), 1e-12)


def test_axes_of_a_mesh_may_differ_in_kind():
    kinds = AxisType.Auto, AxisType.Explicit
    mixed = jax.make_mesh((4, 2), ("data", "model"), kinds)
    params, specs = {"kernel": jnp.ones((16, 8))}, {"kernel": P(None, "model")}
    train = parallel.data_parallel(
        lambda params, x: jnp.mean((x @ params["kernel"]) ** 2),
        optax.sgd(0.1, 0.9),
        params,
        mixed,
        zero=True,
        param_specs=specs,
    )
    run, _ = train.step(train.init(params), np.ones((8, 16), np.float32))
    np.testing.assert_allclose(run.params["kernel"], 1 - 0.1 * 2 * 16 / 8, 1e-6)
    assert run.state[0].trace["kernel"].sharding.spec == P("data", "model")


@ways
def test_gradients_are_means(how, zero):
    """Which Adam would not show: it takes the same steps with gradients eight times too large."""
    with jax.enable_x64(True):
        params, data = model(jnp.float64), batch(dtype=np.float64)
        train = parallel.data_parallel(loss_fn, optax.sgd(0.1), params, how=how, zero=zero)
        run, _ = trained(train, params, data, 1)
        grads = jax.grad(loss_fn)(params, data)
        want = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        close(train.collect(run).params, want, 1e-12)


@pytest.mark.parametrize("how", ["shard_map", "pmap"])
def test_zero_reduces_and_scatters_and_gathers(how):
    params, data = model(), batch()
    train = parallel.data_parallel(loss_fn, adamx.adam(1e-3), params, how=how, zero=True)
    run = train.init(params)
    text = jax.jit(lambda run: train.step(run, data)).lower(run).as_text()
    assert text.count("reduce_scatter") >= 4  # of every array but the scalar
    assert text.count("all_gather") >= 4


OPTIMIZERS = {
    "lamb": adamx.lamb(1e-2),
    "leaf norm": optax.chain(adamx.clip_by_leaf_norm(0.05), adamx.adam(1e-2)),
    "block rms": optax.chain(adamx.clip_by_block_rms(1e-3), adamx.adam(1e-2)),
    "agc": optax.chain(adamx.adaptive_grad_clip(0.01), adamx.adam(1e-2)),
    "mask by rank": adamx.adamw(
        1e-2, weight_decay=0.1, mask=lambda tree: jax.tree.map(lambda p: p.ndim > 1, tree)
    ),
    "multi steps": optax.MultiSteps(adamx.adam(1e-2), 2).gradient_transformation(),
    "accumulate": adamx.accumulate(adamx.adam(1e-2), 2),
    "fold": adamx.fold_micro_batches(adamx.adam(1e-2), 2),
    "schedule free": optax.contrib.schedule_free(adamx.adam(1e-2), 1e-2),
    "optax": optax.adamw(1e-2),
}


@rest_slow(
    "how, name",
    [(how, name) for how in ("shard_map", "pmap") for name in OPTIMIZERS],
    [("shard_map", "lamb"), ("pmap", "block rms"), ("shard_map", "schedule free")],
)
def test_shards_are_stepped_as_parts_of_whole_arrays(how, name):
    with jax.enable_x64(True):
        params, data, opt = model(jnp.float64), batch(dtype=np.float64), OPTIMIZERS[name]
        with jax.numpy_dtype_promotion("standard"):  # Optax's own mix dtypes
            want = on_one_device(opt, loss_fn, params, data, 3)
            train = parallel.data_parallel(loss_fn, opt, params, how=how, zero=True)
            got = train.collect(trained(train, params, data, 3)[0])
        close((got.params, got.state), want, 1e-12)


def exact_loss(params, data):
    """Its gradient is `data`, whose rows are alike: their mean is exact on all devices together."""
    return sum(
        jnp.mean(g.astype(jnp.float32) @ p.astype(jnp.float32).reshape(-1))
        for g, p in zip(jax.tree.leaves(data), jax.tree.leaves(params), strict=True)
    )


FORMATS = [(s, "nearest") for s in cases.STORAGES] + [("int8", x) for x in cases.LANDINGS[1:]]


# Every way with one format, and the smallest formats in shards that are padded.
@rest_slow(
    "storage, landing, layouts",
    [(*format, layouts) for format in FORMATS for layouts in ("padded shards", "every way")],
    [
        ("int8", "stochastic", "every way"),
        ("int8", "compensated8", "padded shards"),
        ("int4", "nearest", "padded shards"),
    ],
)
def test_given_the_same_gradients_codes_are_the_same_on_every_layout(storage, landing, layouts):
    opt = adamx.adamw(1e-2, storage=storage, landing=landing)
    params = {name: model(jnp.bfloat16)[name] for name in ("kernel", "odd", "scale")}
    params["eight"] = jnp.ones(8, jnp.bfloat16)  # padded, a part is as large as the whole
    rng = np.random.default_rng(1)
    grads = jax.tree.map(
        lambda p: np.asarray(jnp.bfloat16(rng.normal(size=p.size)), np.float32), params
    )
    data = jax.tree.map(lambda g: np.tile(g, (16, 1)), grads)
    with jax.numpy_dtype_promotion("standard"):
        want = on_one_device(opt, exact_loss, params, data, 3)
        for how, zero in WAYS if layouts == "every way" else [("pmap", True)]:
            train = parallel.data_parallel(exact_loss, opt, params, how=how, zero=zero)
            got = train.collect(trained(train, params, data, 3)[0])
            same((got.params, got.state), want)


def test_a_shard_that_were_not_told_of_the_whole_would_draw_other_bits():
    params = {"kernel": jnp.ones((64, 64))}
    plan = parallel.zero(params, "data", 8)
    opt = adamx.adam(1e-2, storage="int8")

    def codes(told):
        def step(g, p):
            part = plan.take(p)
            with plan.within() if told else jax.numpy_dtype_promotion("strict"):
                return opt.update(plan.scatter(g), opt.init(part), part)[1][0].nu

        spec = {"kernel": P("data")}
        g = {"kernel": jnp.full((64, 64), 0.3)}
        return jax.jit(jax.shard_map(step, mesh=mesh(8), in_specs=(P(), P()), out_specs=spec))(
            g, params
        )

    whole = opt.update({"kernel": jnp.full((64, 64), 0.3)}, opt.init(params), params)[1][0].nu
    same(codes(True), whole)
    assert np.mean(np.asarray(codes(False)["kernel"]) != np.asarray(whole["kernel"])) > 0.1


def bytes_by_device(tree):
    held = dict.fromkeys(jax.devices(), 0)
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    return set(held.values())


@pytest.mark.parametrize("storage, each", [("float32", 8), ("int8", 2), ("int4", 1)])
@ways
def test_each_device_holds_its_part_of_the_state(how, zero, storage, each):
    params = {"kernel": jnp.ones((64, 128)), "bias": jnp.ones(128)}
    opt = adamx.adam(1e-3, storage=storage)
    train = parallel.data_parallel(exact_loss, opt, params, how=how, zero=zero)
    moments = (64 * 128 + 128) * each // (8 if zero else 1)
    assert bytes_by_device(train.init(params).state) == {moments + 4 * 1}  # and a count of steps
    assert train.report.split == zero * (moments + 0)


def test_the_report_names_what_could_not_be_split_and_its_price():
    params = {"kernel": jnp.ones((64, 10)), "bias": jnp.ones(10), "scale": jnp.ones(())}
    opt = adamx.adam(1e-3)
    report = parallel.data_parallel(exact_loss, opt, params, zero=True).report
    assert [(w.name, w.shape, w.nbytes) for w in report.whole] == [
        ("0/mu/bias", (10,), 35),
        ("0/mu/scale", (), 4),
        ("0/nu/bias", (10,), 35),
        ("0/nu/scale", (), 4),
    ]
    assert "0/mu/bias" in str(report)
    assert report.split == 2 * 64 * 10 * 4 // 8
    padded = parallel.data_parallel(exact_loss, opt, params, how="pmap", zero=True).report
    assert padded.whole[0][:2] == ("0/mu/bias", (8,))


def test_the_state_does_not_depend_on_how_many_devices_there_are():
    params, opt = model(), adamx.adam(1e-3)
    shapes = []
    for n in (1, 2, 4, 8):
        over = jax.make_mesh((n,), ("data",), devices=jax.devices()[:n])
        train = parallel.data_parallel(loss_fn, opt, params, over, how="shard_map", zero=True)
        shapes.append(jax.tree.map(jnp.shape, train.init(params).state))
    assert all(s == shapes[0] for s in shapes)


@functools.cache
def two_steps(size=48, dtype="float32"):
    """What AdamW begins with, and parameters and state after two steps on one device."""
    params, data = model(dtype), batch(size, np.dtype(dtype))
    return params, data, on_one_device(ADAMW, loss_fn, params, data, 2)


ADAMW = adamx.adamw(1e-2)


@rest_slow(
    "how, zero, devices",
    [(*way, devices) for way in WAYS for devices in (1, 3, 5, 6)],
    [*((*way, 3) for way in IN_TURN), ("shard_map", True, 1)],
)
def test_any_number_of_devices_will_do(how, zero, devices):
    params, data, want = two_steps(30)
    over = jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])
    train = parallel.data_parallel(loss_fn, ADAMW, params, over, how=how, zero=zero)
    got = train.collect(trained(train, params, data, 2)[0])
    # Sums of float32 in another order; a step of Adam's is at most 1e-2.
    close(got.params, want[0], 1e-5)


@ways_in_turn
def test_a_run_goes_on_in_another_way_and_on_fewer_devices(how, zero):
    with jax.enable_x64(True):
        opt, params, data = adamx.adamw(1e-2), model(jnp.float64), batch(dtype=np.float64)
        over = functools.partial(parallel.data_parallel, loss_fn, opt, params)
        first, second = over(how=how, zero=zero), over(mesh(8), how="jit", zero=not zero)
        four = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
        third = over(four, how="shard_map", zero=True)
        run = first.collect(trained(first, params, data, 2)[0])
        for train in (second, third, first):
            run = jax.tree.map(np.asarray, run)  # as from a checkpoint
            run = train.collect(train.step(train.spread(run), data)[0])
        close((run.params, run.state), on_one_device(opt, loss_fn, params, data, 5), 1e-12)


@ways_in_turn
def test_micro_batches_make_one_step_of_the_whole_batch(how, zero):
    with jax.enable_x64(True):
        params, data, want = two_steps(dtype="float64")
        train = parallel.data_parallel(loss_fn, ADAMW, params, how=how, zero=zero, micro_batches=3)
        got = train.collect(trained(train, params, data, 2)[0])
        close((got.params, got.state), want, 1e-12)


def full_loss(params, data, *, model, key):
    """With a running mean of inputs, a count, dropout, and things to report."""
    keep = jax.random.bernoulli(key, 0.5, data["x"].shape).astype(jnp.float32)
    loss = loss_fn(params, {**data, "x": data["x"] * keep})
    mean = 0.9 * model["mean"] + 0.1 * jnp.mean(data["x"], 0)
    aux = {"kept": jnp.mean(keep), "examples": jnp.int32(data["x"].shape[0])}
    return loss, {"mean": mean, "steps": model["steps"] + 1}, aux


@rest_slow(
    "how, zero, micro_batches",
    [(*way, micro_batches) for way in WAYS for micro_batches in (1, 2)],
    [*((*way, 2) for way in IN_TURN), ("jit", False, 1)],
)
def test_model_state_keys_and_outcomes_go_along(how, zero, micro_batches):
    params, data = model(), batch()
    train = parallel.data_parallel(
        full_loss, adamx.adam(1e-3), params, how=how, zero=zero, has_aux=True,
        micro_batches=micro_batches,
    )  # fmt: skip
    start = {"mean": jnp.zeros(12), "steps": jnp.int32(0)}
    run = train.init(params, model=start, key=jax.random.key(5))
    kept = []
    for _ in range(3):
        run, outcome = train.step(run, data)
        assert outcome.aux["examples"] == 48
        assert outcome.loss.shape == ()
        kept.append(float(outcome.aux["kept"]))
    plain = train.collect(run)
    assert plain.model["steps"] == 3 * micro_batches
    # A linear average: in parts of a batch and over devices the same mean, but for the forgetting.
    share = 1 - 0.9 ** (3 * micro_batches)
    want = np.mean(data["x"], 0) * share
    np.testing.assert_allclose(plain.model["mean"], want, rtol=0.2, atol=0.02)
    assert len(set(kept)) == 3  # another mask at every step
    assert all(0.4 < k < 0.6 for k in kept)


@pytest.mark.parametrize("how", ["shard_map", "pmap"])
def test_each_device_draws_its_own_dropout(how):
    def noisy(params, data, *, key):
        return jnp.sum(params) * 0 + jnp.mean(data) * 0, jax.random.uniform(key)

    params = jnp.zeros(3)
    train = parallel.data_parallel(noisy, adamx.adam(1e-3), params, how=how, has_aux=True)
    _, outcome = train.step(train.init(params, key=jax.random.key(0)), np.zeros((8, 1), np.float32))
    one = parallel.data_parallel(noisy, adamx.adam(1e-3), params, mesh(1), how=how, has_aux=True)
    _, alone = one.step(one.init(params, key=jax.random.key(0)), np.zeros((8, 1), np.float32))
    assert float(outcome.aux) != float(alone.aux)  # a mean of eight draws, not eight times the same


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("how", ["shard_map", "pmap"])
def test_gradients_travel_in_the_dtype_that_is_asked_for(how, zero):
    params, data = model(), batch()
    train = parallel.data_parallel(
        loss_fn, adamx.adam(1e-2), params, how=how, zero=zero, reduce_dtype="bfloat16"
    )
    run = train.init(params)
    text = str(jax.make_jaxpr(lambda r: train.step(r, data))(run))
    reduced = "reduce_scatter" if zero else "psum"
    lines = [line for line in text.splitlines() if f" {reduced}" in line and "bf16" in line]
    assert lines
    got = train.collect(train.step(run, data)[0])
    want = on_one_device(adamx.adam(1e-2), loss_fn, params, data, 1)[0]
    close(got.params, want, 1e-2)
    assert got.params["kernel"].dtype == jnp.float32


def test_parameters_may_be_sharded_too():
    with jax.enable_x64(True):
        opt = optax.chain(adamx.clip_by_global_norm(0.1), adamx.adamw(1e-2))
        params, data = model(jnp.float64), batch(dtype=np.float64)
        want = on_one_device(opt, loss_fn, params, data, 3)
        tensor = {"kernel": P(None, "model"), "deep": {"kernel": P("model"), "bias": P()}}
        fsdp = {"kernel": P(None, ("model", "data")), "deep": {"kernel": P("data"), "bias": P()}}
        for how, specs, zero in (
            ("jit", tensor, False),
            ("jit", tensor, True),
            ("jit", fsdp, False),
            ("shard_map", tensor, False),
            ("shard_map", tensor, True),
        ):
            specs = {**specs, "odd": P(), "scale": P()}
            train = parallel.data_parallel(
                loss_fn, opt, params, mesh(4, 2), how=how, zero=zero, param_specs=specs
            )
            run, _ = trained(train, params, data, 3)
            assert run.params["kernel"].sharding.spec == specs["kernel"]
            got = train.collect(run)
            close((got.params, got.state), want, 1e-12)
            moments = run.state[1][0].mu["kernel"].addressable_shards[0].data.size
            assert moments == 12 * 64 // (8 if zero or specs["kernel"] == fsdp["kernel"] else 2)


@ways_in_turn
def test_a_step_uses_up_the_run_and_nothing_else(how, zero):
    params, data = model(), batch()
    train = parallel.data_parallel(loss_fn, adamx.adam(1e-2), params, how=how, zero=zero)
    run = train.init(params)
    plain = train.collect(run)
    again = train.spread(plain)
    train.step(run, data)
    assert run.params["kernel"].is_deleted()
    for tree in (params, plain, again):
        assert not any(x.is_deleted() for x in jax.tree.leaves(tree))
    kept = parallel.data_parallel(loss_fn, adamx.adam(1e-2), params, how=how, donate=False)
    run = kept.init(params)
    kept.step(run, data)
    assert not run.params["kernel"].is_deleted()


@rest_slow(
    "how, zero, kind",
    [(*way, kind) for way in WAYS for kind in ("Auto", "Explicit")],
    [*((*way, "Auto") for way in WAYS), ("jit", True, "Explicit")],
)
def test_the_second_step_compiles_nothing(how, zero, kind):
    params, data = model(), batch()
    train = parallel.data_parallel(
        loss_fn, adamx.adamw(1e-2), params, mesh(8, kind=kind), how=how, zero=zero
    )
    run, _ = train.step(train.init(params), data)
    with jax.log_compiles(True), pytest.MonkeyPatch.context() as patch:
        compiled = []
        patch.setattr("jax._src.compiler.compile_or_get_cached", lambda *a, **k: compiled.append(a))
        run, _ = train.step(run, data)
    assert not compiled


@pytest.mark.parametrize("where", ["numpy", "one device", "mixed"])
@ways_in_turn
def test_parameters_may_come_from_anywhere(how, zero, where):
    params, data = model(), batch()
    device = jax.devices()[3]
    placed = {
        "numpy": lambda: jax.tree.map(np.asarray, params),
        "one device": lambda: jax.device_put(params, device),
        "mixed": lambda: {
            **jax.device_put(params, device),
            "odd": np.asarray(params["odd"]),
            "kernel": jax.device_put(params["kernel"], NamedSharding(mesh(8), P())),
        },
    }[where]()
    train = parallel.data_parallel(loss_fn, adamx.adam(1e-2), params, how=how, zero=zero)
    got = train.collect(trained(train, placed, data, 1)[0])
    close(got.params, on_one_device(adamx.adam(1e-2), loss_fn, params, data, 1)[0], 1e-5)


def test_moments_rest_on_the_host():
    params, data, opt = model(), batch(), adamx.adamw(1e-2)
    for zero in (False, True):
        train = parallel.data_parallel(loss_fn, opt, params, zero=zero, memory_kind="pinned_host")
        run, _ = trained(train, params, data, 2)
        assert run.state[0].mu["kernel"].sharding.memory_kind == "pinned_host"
        assert run.state[0].count.sharding.memory_kind == "device"
        assert run.params["kernel"].sharding.memory_kind == "device"
        close(run.params, on_one_device(opt, loss_fn, params, data, 2)[0], 1e-5)


def test_a_state_on_the_host_is_converted_read_and_reset():
    params, data = model(jnp.bfloat16), batch(dtype=jnp.bfloat16)
    opt, plain = adamx.adamw(1e-2, storage="int8", landing="exact"), optax.adamw(1e-2)
    train = parallel.data_parallel(loss_fn, opt, params, zero=True, memory_kind="pinned_host")
    run, _ = trained(train, params, data, 2)
    near = jax.device_put(run.state, jax.memory.Space.Device)
    assert run.state[-1].remainder["kernel"].sharding.memory_kind == "pinned_host"
    for do in (
        lambda state: adamx.master_params(state, run.params),
        lambda state: adamx.convert(state, opt, adamx.adamw(1e-2, landing="exact")),
        lambda state: adamx.interop.to_optax(run.params, state, opt, plain),
        adamx.reset,
    ):
        close(do(run.state), do(near), 0)
    spread = adamx.reset(run.state)[0].mu["kernel"].sharding
    assert spread == run.state[0].mu["kernel"].sharding


MISTAKES = {
    "`how` must be one of 'jit', 'shard_map', 'pmap', got 'xmap'": {"how": "xmap"},
    "`axis` must be one of the mesh's ('data',), got 'batch'": {"axis": "batch"},
    "`micro_batches` must be a whole number of at least 1, got 0": {"micro_batches": 0},
    "`reduce_dtype` needs how='shard_map' or 'pmap'": {"reduce_dtype": "bfloat16"},
    "`memory_kind` needs how='jit', got 'pmap'": {"how": "pmap", "memory_kind": "pinned_host"},
    "how='pmap' copies parameters": {"how": "pmap", "param_specs": P("data")},
    "kernel: `param_specs` splits it over 'data'": {
        "how": "shard_map",
        "param_specs": {"deep": P(), "kernel": P(None, "data"), "odd": P(), "scale": P()},
    },
    "`param_specs` must be a tree like `params`, or a prefix": {
        "param_specs": {"kernel": P(), "deep": P(), "scale": P()}
    },
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parallel.data_parallel(loss_fn, adamx.adam(1e-3), model(), mesh(8), **MISTAKES[message])


@ways
def test_batches_that_do_not_divide_are_refused(how, zero):
    train = parallel.data_parallel(loss_fn, adamx.adam(1e-3), model(), how=how, zero=zero)
    with pytest.raises(ValueError, match="batch x: a first dimension of 30 can't be spread over 8"):
        train.step(train.init(model()), batch(30))
    train = parallel.data_parallel(
        loss_fn, adamx.adam(1e-3), model(), how=how, zero=zero, micro_batches=4
    )
    with pytest.raises(ValueError, match="over 8 devices x 4 micro-batches"):
        train.step(train.init(model()), batch(48))


def test_a_loss_that_returns_too_much_is_told_so():
    train = parallel.data_parallel(full_loss, adamx.adam(1e-3), model())
    run = train.init(model(), model={"mean": jnp.zeros(12), "steps": 0}, key=jax.random.key(0))
    with pytest.raises(TypeError, match="should return loss, model; it returned 3 values"):
        train.step(run, batch())


def link(function):
    """Where scalars are left alone, which all devices have."""
    return optax.stateless(
        lambda updates, params: jax.tree.map(lambda u: function(u) if u.ndim else u, updates)
    )


ACROSS = {
    "clip": optax.chain(optax.clip_by_global_norm(1.0), adamx.adam(1e-3)),
    "lamb": optax.lamb(1e-3),
    "if finite": optax.apply_if_finite(adamx.adam(1e-3), 3),
    "muon": optax.contrib.muon(1e-3),
    "agc": optax.adaptive_grad_clip(0.1),
    "centralize": optax.centralize(),
    "adafactor": optax.adafactor(1e-3, min_dim_size_to_factor=8),
    "flat": optax.flatten(optax.adam(1e-3)),
    "flat, ours": optax.flatten(adamx.adam(1e-3)),
    "noise": optax.add_noise(1.0, 0.0, 0),
    "average": parallel.average_gradients("data"),
    "while": link(
        lambda x: jax.lax.while_loop(lambda c: jnp.max(jnp.abs(c)) > 0.1, lambda c: c / 2, x)
    ),
    "while, body": link(
        lambda x: jax.lax.fori_loop(0, 2, lambda i, c: c / (1 + jnp.sum(c * c)), x)
    ),
    "set": link(lambda x: jax.lax.dynamic_update_slice(x, jnp.zeros_like(x[:1]), (0,) * x.ndim)),
    "shift": link(lambda x: jnp.roll(x, 1, 0)),
    "sorted": link(lambda x: jnp.sort(x, 0)),
    "numbered": link(lambda x: x * jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)),
    "summed": link(lambda x: jnp.cumsum(x, 0)),
    "fourier": link(lambda x: jnp.fft.fft(x, axis=0).real),
    "random": link(lambda x: x + jax.random.normal(jax.random.key(0), x.shape)),
    "psum": link(lambda x: jax.lax.psum(x, "data")),
}


@pytest.mark.parametrize("name", ACROSS)
@pytest.mark.parametrize("how", ["shard_map", "pmap"])
def test_optimizers_that_look_across_elements_are_not_given_shards(how, name):
    with jax.numpy_dtype_promotion("standard"):
        with pytest.raises(ValueError, match="shards") as error:
            parallel.data_parallel(loss_fn, ACROSS[name], model(), how=how, zero=True)
        assert "how='jit'" in str(error.value)
        if name not in ("psum", "average"):
            parallel.data_parallel(loss_fn, ACROSS[name], model(), how=how)  # whole arrays are fine


def test_a_scan_is_followed():
    def over(function):
        return link(lambda x: jax.lax.scan(function, x, jnp.ones((3, 2), x.dtype))[0])

    parallel.data_parallel(
        loss_fn, over(lambda c, w: (c * w[0], c)), model(), how="pmap", zero=True
    )
    across = over(lambda c, w: (c / (1 + jnp.sum(c * c) * w[0]), None))
    with pytest.raises(ValueError, match="reduce_sum"):
        parallel.data_parallel(loss_fn, across, model(), how="pmap", zero=True)


@pytest.mark.parametrize("recipe", cases.RECIPES)
def test_our_recipes_are_known_to_be_elementwise(recipe):
    opt = cases.RECIPES[recipe](1e-3, storage="int4")
    train = parallel.data_parallel(loss_fn, opt, model(), how="shard_map", zero=True)
    assert train.report.split > 0


PADDED = {
    "lamb": adamx.lamb(1e-2, storage="int4"),
    "clip": optax.chain(
        adamx.scale_by_adam(storage="int4"), adamx.clip_by_global_norm(0.1), optax.scale(-0.1)
    ),
    "stable_adamw": adamx.stable_adamw(1e-2, storage="int8"),
    "mars": adamx.mars(1e-2, storage="int8"),
    "cautious": adamx.cautious(adamx.adamw(1e-2)),
    "centralise": optax.chain(adamx.centralise(), adamx.adam(1e-2)),
    "no epsilon": optax.chain(
        optax.scale_by_adam(eps=0.0), adamx.clip_by_global_norm(0.1), optax.scale(-0.1)
    ),
    "no epsilon, trust": optax.chain(
        optax.scale_by_rms(eps=0.0), adamx.scale_by_trust_ratio(), optax.scale(-0.1)
    ),
}


@rest_slow(
    "how, name",
    [(how, name) for how in ("shard_map", "pmap") for name in PADDED],
    [*(("pmap", name) for name in PADDED), ("shard_map", "lamb")],
)
def test_padding_counts_for_nothing(how, name):
    opt, params = PADDED[name], {"w": jnp.linspace(0.1, 1, 6), "m": jnp.ones((5, 3))}
    grads = {"w": jnp.array([0.5, -1, 2, 0.25, -0.5, 1])}
    # Not alike: centred, they would be what the rounding of a mean left, of which Adam makes steps.
    grads["m"] = jnp.linspace(0.2, 1, 15).reshape(5, 3) ** 2
    data = jax.tree.map(lambda g: np.tile(np.ravel(g), (16, 1)), grads)
    with jax.numpy_dtype_promotion("standard"):
        train = parallel.data_parallel(exact_loss, opt, params, how=how, zero=True, multiple=8)
        got = train.collect(trained(train, params, data, 2)[0])
        want = on_one_device(opt, exact_loss, params, data, 2)
    close(got.params, want[0], 1e-6)


@ways
def test_large_float16_gradients_do_not_overflow_on_their_way(how, zero):
    params, size = jnp.zeros(64, jnp.float16), np.zeros((8, 1), np.float16)

    def steep(p, b):
        return jnp.sum(p * jnp.float16(3e4)) + jnp.sum(b)

    train = parallel.data_parallel(steep, optax.sgd(1e-4), params, how=how, zero=zero)
    with jax.numpy_dtype_promotion("standard"):
        got = train.collect(train.step(train.init(params), size)[0])
    np.testing.assert_allclose(got.params, np.full(64, -3.0), rtol=1e-2)


@pytest.mark.parametrize("zero", [False, True])
def test_complex_gradients_keep_both_parts(zero):
    params = jnp.zeros(64, jnp.complex64)

    def loss(p, b):
        return jnp.sum(jnp.real(p * jnp.complex64(2 + 4j))) + jnp.sum(b)

    train = parallel.data_parallel(
        loss, optax.sgd(0.1), params, how="pmap", zero=zero, reduce_dtype="bfloat16"
    )
    with jax.numpy_dtype_promotion("standard"):
        got = train.collect(train.step(train.init(params), np.zeros((8, 1), np.float32))[0])
        want = -0.1 * jax.grad(loss)(params, jnp.zeros(1))
    np.testing.assert_allclose(got.params, want, rtol=1e-6)
    assert np.all(np.imag(want) != 0)
    with pytest.raises(TypeError, match="`reduce_dtype` must be floating point, got int8"):
        parallel.data_parallel(loss, optax.sgd(0.1), params, how="pmap", reduce_dtype="int8")


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("how", HOWS)
def test_numbers_flags_and_keys_go_along(how, micro_batches):
    def loss(p, b, *, model):
        return jnp.sum(p) * 0 + jnp.mean(b) * 0, model, {"lr": 0.5, "n": 3}

    train = parallel.data_parallel(
        loss, optax.sgd(0.1), jnp.zeros(3), how=how, has_aux=True, micro_batches=micro_batches
    )
    run = train.init(jnp.zeros(3), model={"key": jax.random.key(3), "on": jnp.array(True)})
    run, outcome = train.step(run, np.zeros((16, 1), np.float32))
    assert outcome.aux["lr"] == 0.5
    kept = train.collect(run).model
    assert kept["on"].dtype == jnp.bool_
    np.testing.assert_array_equal(
        jax.random.key_data(kept["key"]), jax.random.key_data(jax.random.key(3))
    )


def test_what_would_be_confused_is_refused():
    twice = {"a/b": jnp.ones(8), "a": {"b": jnp.ones((4, 12))}}
    with pytest.raises(ValueError, match="a/b: two parameters have this path"):
        parallel.zero(twice, "data", 8)
    train = parallel.data_parallel(loss_fn, adamx.adam(1e-3), model())
    other = {**model(), "odd": jnp.ones((5, 3))}
    with pytest.raises(ValueError, match=r"odd: `data_parallel` was given shape \(3, 5\)"):
        train.init(other)


class Waited:
    """A loss that counts how often someone waited for it."""

    def __init__(self):
        self.times = 0

    def block_until_ready(self):
        self.times += 1
        return self


def test_virtual_devices_are_waited_for_at_every_eighth_step(monkeypatch):
    loss, calls = Waited(), []
    monkeypatch.setattr(spec, "_is_virtual", lambda mesh: calls.append(mesh) or True)
    step = spec.paced(lambda run, batch: (run + 1, parallel.Outcome(loss, None)))
    run = 0
    for _ in range(17):
        run, _ = step(run, None)
    assert (run, loss.times) == (17, 2)
    params = jnp.ones(8)
    train = parallel.data_parallel(lambda p, x: jnp.mean(x * p), adamx.adam(0.1), params)
    assert calls
    run, state = train.init(params), jax.make_jaxpr(train.step)
    state(run, jnp.ones((8, 8)))  # under a trace there is nothing to wait for
