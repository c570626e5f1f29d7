# SPDX-License-Identifier: Apache-2.0
"""A step is lowered from shapes alone, to the program that it runs, for absent devices too."""

import gc
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx
from adamx import parallel
from tests.parallel import targets
from tests.products import HOWS, IN_TURN, WAYS, rest_slow, ways

OPT = adamx.adamw(1e-2, storage="int8")
COMPILE = "jax._src.compiler.compile_or_get_cached"


def loss_fn(params, batch):
    out = jnp.tanh(batch["x"] @ params["kernel"]) @ params["head"] + params["bias"]
    return jnp.mean((out - batch["y"]) ** 2)


def shapes(width=64, rows=16):
    """Parameters, of which ZeRO pads one, and a batch."""
    params = {"kernel": (24, width), "head": (width, 10), "bias": (10,)}
    batch = {"x": (rows, 24), "y": (rows, 10)}
    return tuple(
        {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in tree.items()}
        for tree in (params, batch)
    )


def filled(tree):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), tree)


def mesh(kind="Auto"):
    return jax.make_mesh((8,), ("data",), (getattr(AxisType, kind),))


@rest_slow(
    "how, zero, kind",
    [(*way, kind) for way in WAYS for kind in ("Auto", "Explicit")],
    [*((*way, "Auto") for way in IN_TURN), ("jit", True, "Explicit")],
)
def test_the_program_is_the_one_that_a_step_compiles(how, zero, kind, monkeypatch):
    params, batch = shapes()
    train = parallel.data_parallel(loss_fn, OPT, params, mesh(kind), how=how, zero=zero)
    lowered = train.lower(jax.eval_shape(train.init, params), batch)
    run, data = train.init(filled(params)), filled(batch)
    compiled, compiler = [], jax._src.compiler.compile_or_get_cached
    monkeypatch.setattr(COMPILE, lambda *a, **k: compiled.append(str(a[1])) or compiler(*a, **k))
    jax.clear_caches()  # else the step would take the lowered program from JAX's cache
    train.step(run, data)
    assert [plain(x) for x in compiled] == [plain(str(lowered.compiler_ir()))]
    assert plain(train.lower(run, data).as_text()) == plain(lowered.as_text())  # from arrays too


def plain(text):
    """A program without the addresses of Python objects that decide how loops are spread."""
    return re.sub(r'backend_config = "\d+"', "", text)


@ways
def test_the_compiled_program_makes_the_step(how, zero):
    params, batch = shapes()
    train = parallel.data_parallel(loss_fn, OPT, params, how=how, zero=zero)
    program = train.lower(jax.eval_shape(train.init, params), batch).compile()
    data = filled(batch)
    want, outcome = train.step(train.init(filled(params)), data)
    rows = (8, 2) if how == "pmap" else (16,)
    over = NamedSharding(mesh(), P("data"))
    data = {k: jax.device_put(x.reshape(*rows, *x.shape[1:]), over) for k, x in data.items()}
    got, reached = program(train.init(filled(params)), data)
    assert reached.loss == outcome.loss
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@ways
def test_nothing_is_placed_and_nothing_runs(how, zero, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("compiled, to run")

    gc.collect()
    before = {id(x) for x in jax.live_arrays()}
    jax.clear_caches()
    monkeypatch.setattr(COMPILE, refuse)
    params, batch = shapes(width=72)
    train = parallel.data_parallel(loss_fn, OPT, params, how=how, zero=zero)
    lowered = train.lower(jax.eval_shape(train.init, params), batch)
    assert {id(x) for x in jax.live_arrays()} <= before
    assert lowered.as_text()


@pytest.mark.parametrize("how", HOWS)
def test_model_state_keys_and_micro_batches_go_along(how):
    def noisy(params, batch, *, model, key):
        return loss_fn(params, batch) + jax.random.normal(key), {"steps": model["steps"] + 1}

    params, batch = shapes()
    train = parallel.data_parallel(noisy, OPT, params, how=how, zero=True, micro_batches=2)
    begin = {"model": {"steps": 0}, "key": jax.eval_shape(jax.random.key, 0)}
    lowered = train.lower(jax.eval_shape(train.init, params, **begin), batch)
    run, _ = jax.tree.map(lambda x: x.shape, lowered.out_info)
    assert run.model == {"steps": (8,) if how == "pmap" else ()}


def test_a_batch_that_is_spread_otherwise_stays_so():
    params, batch = shapes()
    over = jax.make_mesh((4, 2), ("data", "model"), (AxisType.Auto,) * 2)
    train = parallel.data_parallel(loss_fn, OPT, params, over)
    spec = P("data", "model")
    batch["x"] = batch["x"].update(sharding=NamedSharding(over, spec))
    program = train.lower(jax.eval_shape(train.init, params), batch).compile()
    _, given = program.input_shardings[0]
    assert (given["x"].spec, given["y"].spec) == (spec, P("data"))


@pytest.mark.parametrize("how", ["shard_map", "pmap"])
def test_a_collected_run_is_refused(how):
    params, batch = shapes()
    train = parallel.data_parallel(loss_fn, OPT, params, how=how, zero=True)
    with pytest.raises(ValueError, match=r"(mu|params)/bias: .*jax.eval_shape\(train.init, params"):
        train.lower(train.like(params), batch)
    with pytest.raises(ValueError, match="another structure"):
        train.lower(parallel.Run(params, ()), batch)
    with pytest.raises(ValueError, match="batch x: a first dimension of 15 can't be spread"):
        train.lower(jax.eval_shape(train.init, params), shapes(rows=15)[1])


@pytest.mark.parametrize("how", ["shard_map", "pmap"])
def test_a_step_says_that_a_collected_run_has_to_be_spread(how):
    params, batch = map(filled, shapes())
    train = parallel.data_parallel(loss_fn, OPT, params, how=how, zero=True)
    run = train.collect(train.init(params))
    with pytest.raises(ValueError, match=r"/bias: a run .* goes through `train.spread` first"):
        train.step(run, batch)


@pytest.mark.parametrize("target", targets.TARGETS)
@ways
def test_a_step_compiles_for_devices_that_are_not_here(how, zero, target):
    over = targets.found(target)
    if over is None:
        pytest.skip(f"no compiler for {target} is installed: see tests/parallel/targets.py")
    params = jax.ShapeDtypeStruct((256, 2048), jnp.float32)
    batch = jax.ShapeDtypeStruct((64, 256), jnp.float32)
    train = parallel.data_parallel(
        lambda p, x: jnp.mean((x @ p) ** 2), OPT, params, over, how=how, zero=zero
    )
    memory = train.lower(jax.eval_shape(train.init, params), batch).compile().memory_analysis()
    moments = 2 * params.size // (over.size if zero else 1)
    held = 4 * params.size + moments + 4 * batch.size // over.size
    assert held <= memory.argument_size_in_bytes <= 1.01 * held  # a count and a loss, in tiles
    assert memory.alias_size_in_bytes >= 4 * params.size + moments  # the run is donated
