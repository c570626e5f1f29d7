# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: written on eight devices, read on any number, and never taken for another's."""

import functools
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

import adamx
from adamx import parallel
from adamx.checkpoints import Checkpoints, about
from tests import cases
from tests.parallel.test_data_parallel import (
    batch,
    close,
    loss_fn,
    model,
    on_one_device,
    same,
    trained,
)
from tests.products import WAYS, rest_slow

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def mesh(devices):
    return jax.make_mesh((devices,), ("data",), (AxisType.Auto,), devices=jax.devices()[:devices])


def run_of(opt, params):
    """A run after one step, so that no array is all zeros."""
    grads = jax.tree.map(lambda p: jnp.full_like(p, 0.3), params)
    params, state = adamx.step(opt, params, opt.init(params), grads)
    return parallel.Run(params, state, {"mean": jnp.ones(3)}, jax.random.key(7))


def blank(run):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), run)


@cases.pairs(fast_rules=("adam", "amsgrad", "lion", "adan", "lamb", "spam"))
def test_every_recipe_and_format_comes_back_bit_for_bit(recipe, storage, tmp_path):
    opt = recipe(1e-2, storage=storage, landing="compensated8")
    run = run_of(opt, model(jnp.bfloat16))
    with Checkpoints(tmp_path, opt) as kept:
        kept.save(1, run)
        back = kept.restore(blank(run))
    assert jax.tree.structure(back) == jax.tree.structure(run)
    same(*(r._replace(key=jax.random.key_data(r.key)) for r in (back, run)))


@rest_slow("how, zero", WAYS, [("shard_map", True)])
def test_a_run_saved_on_eight_devices_goes_on_with_four_and_with_one(how, zero, tmp_path):
    with jax.enable_x64(True):
        opt, params, data = adamx.adamw(1e-2), model(jnp.float64), batch(dtype=np.float64)
        want = on_one_device(opt, loss_fn, params, data, 2)
        over = functools.partial(parallel.data_parallel, loss_fn, opt, params)
        train = over(mesh(8), how=how, zero=zero)
        run, _ = trained(train, params, data, 1)
        with Checkpoints(tmp_path, opt) as kept:
            kept.save(1, train.collect(run))
        for devices, other in ((4, "jit"), (1, "pmap"), (4, "shard_map")):
            train = over(mesh(devices), how=other, zero=zero)
            with Checkpoints(tmp_path, opt) as kept:
                back = kept.restore(train.like(params))
            assert back.params["kernel"].sharding.device_set == set(jax.devices()[:devices])
            got = train.collect(train.step(train.spread(back), data)[0])
            close((got.params, got.state), want, 1e-12)


OTHERS = {
    "its moments are stored as 'int8', the optimizer's as 'float32'": adamx.adamw(1e-2),
    "its moments are stored as 'int8', the optimizer's as 'int4'": adamx.adamw(
        1e-2, storage="int4"
    ),
    "its moments are stored as 'int8', the optimizer's as a table": adamx.adamw(
        1e-2, storage={"*/bias": "float32", "*": "int8"}
    ),
    "it was saved with adamw, the optimizer is lion": adamx.lion(1e-2, storage="int8"),
    "it was saved with adamw, the optimizer is nadam": adamx.nadam(1e-2, storage="int8"),
    "the run has": adamx.adamw(optax.constant_schedule(1e-2), storage="int8"),
    "state/3/draws is not in it": adamx.adamw(1e-2, storage="int8", landing="compensated8"),
}


@pytest.mark.parametrize("message", OTHERS)
def test_another_format_recipe_or_landing_is_refused(message, tmp_path):
    opt, params = adamx.adamw(1e-2, storage="int8"), model(jnp.bfloat16)
    with Checkpoints(tmp_path, opt) as kept:
        kept.save(5, run_of(opt, params))
    other = OTHERS[message]
    with Checkpoints(tmp_path, other) as kept, pytest.raises(ValueError) as error:  # noqa: PT011
        kept.restore(blank(run_of(other, params)))
    assert message in str(error.value)
    assert "checkpoint 5 in " in str(error.value)


def test_another_model_is_refused_by_the_name_of_its_leaf(tmp_path):
    opt = adamx.adamw(1e-2)
    with Checkpoints(tmp_path, opt) as kept:
        kept.save(1, run_of(opt, {"kernel": jnp.ones((3, 4))}))
        for params, message in (
            ({"kernel": jnp.ones((4, 3))}, r"params/kernel is float32\[3,4\], the run has"),
            ({"kernel": jnp.ones((3, 4), jnp.bfloat16)}, r"the run has bfloat16\[3,4\]"),
            ({"core": jnp.ones((3, 4))}, "params/core is not in it"),
        ):
            with pytest.raises(ValueError, match=message):
                kept.restore(blank(run_of(opt, params)))


def test_a_newer_layout_is_refused(tmp_path, monkeypatch):
    opt = adamx.adamw(1e-2)
    run = run_of(opt, model())
    with Checkpoints(tmp_path, opt) as kept:
        monkeypatch.setattr(about, "VERSION", 3)
        kept.save(1, run)
        monkeypatch.setattr(about, "VERSION", 2)
        with pytest.raises(ValueError, match="layout 3, this adamx reads up to 2"):
            kept.restore(blank(run))


@pytest.mark.parametrize(
    "build, changed",
    [
        ({"storage": "int8"}, "of 'int8' have"),
        ({"storage": {"b": "float32", "*": "int4"}}, "of 'int4' have"),
        ({"landing": "exact"}, "of remainders have"),
        ({"storage": "bfloat16", "landing": "kahan"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_codes_that_have_changed_since_are_not_read_as_others(
    build, changed, tmp_path, monkeypatch
):
    opt, params = adamx.adamw(1e-2, **build), {"a": jnp.ones((2, 3)), "b": jnp.ones(2)}
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16) if "landing" in build else p, params)
    run = run_of(opt, params)
    with Checkpoints(tmp_path, opt) as kept:
        monkeypatch.setattr(about, "VERSION", 1)
        kept.save(1, run)
        monkeypatch.undo()
        if changed is None:
            kept.restore(blank(run))
            return
        with pytest.raises(ValueError, match=f"layout 1, whose codes {changed} changed since"):
            kept.restore(blank(run))


@pytest.mark.parametrize("to", ["float32", pytest.param("int4", marks=pytest.mark.slow)])
def test_a_run_is_converted_on_the_way_in(to, tmp_path):
    before, after = (adamx.adamw(1e-2, storage=s) for s in ("int8", to))
    params = {"kernel": model()["kernel"], "bias": jnp.zeros(10)}
    run = run_of(before, params)
    train = parallel.data_parallel(loss_fn, after, params, mesh(8), zero=True)
    with Checkpoints(tmp_path, before) as kept:
        kept.save(1, run)
    with Checkpoints(tmp_path, after) as kept:
        like = train.like(params, run.model, run.key)
        back = kept.restore(like, saved_by=before)
        wrong = adamx.adamw(1e-2, storage="bfloat16")
        with pytest.raises(ValueError, match="stored as 'int8', the optimizer's as 'bfloat16'"):
            kept.restore(like, saved_by=wrong)
    same(back.state, adamx.convert(run.state, before, after))
    placed = jax.tree.map(lambda x, s: x.sharding == s.sharding, back.state, like.state)
    assert all(jax.tree.leaves(placed))


def test_a_missing_checkpoint_is_named(tmp_path):
    opt = adamx.adamw(1e-2)
    run = run_of(opt, model())
    with Checkpoints(tmp_path, opt, keep=2) as kept:
        with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*there are: none"):
            kept.restore(blank(run))
        for step in (1, 2, 3):
            kept.save(step, run)
        with pytest.raises(FileNotFoundError, match=r"no checkpoint 1 in .*there are: 2, 3"):
            kept.restore(blank(run), 1)
        assert kept.latest == 3


def test_a_step_that_is_not_after_the_latest_is_no_silent_loss(tmp_path):
    opt = adamx.adamw(1e-2)
    run = run_of(opt, model())
    with Checkpoints(tmp_path, opt) as kept:
        kept.save(10, run)
        for step in (10, 5):
            with pytest.raises(ValueError, match=f"step {step} is not after 10, the latest"):
                kept.save(step, run)


@pytest.mark.parametrize("theirs, ours", [("adabelief", "adam"), ("adam", "adabelief")])
def test_a_state_of_another_class_is_refused(theirs, ours, tmp_path):
    with jax.numpy_dtype_promotion("standard"):
        run = run_of(getattr(optax, theirs)(1e-2), model())
    with Checkpoints(tmp_path, getattr(optax, theirs)(1e-2)) as kept:
        kept.save(1, run)
    other = getattr(adamx, ours)(1e-2)
    with Checkpoints(tmp_path, other) as kept, pytest.raises(ValueError, match="has the classes"):
        kept.restore(blank(run_of(other, model())))


def test_a_state_of_optax_restores_into_ours(tmp_path):
    theirs, ours, params = optax.adamw(1e-2), adamx.adamw(1e-2), model()
    with jax.numpy_dtype_promotion("standard"):
        run = run_of(theirs, params)
    with Checkpoints(tmp_path, theirs) as kept:
        kept.save(1, run)
    with Checkpoints(tmp_path, ours) as kept:
        same(kept.restore(blank(run)).state, run.state)


KILLED = """
    import os, signal, sys, threading, time
    import jax, jax.numpy as jnp
    import adamx
    from adamx import parallel
    from adamx.checkpoints import Checkpoints

    opt = adamx.adamw(1e-3)
    params = {f"k{i}": jnp.full((256, 1024), float(i)) for i in range(40)}
    run = parallel.Run(params, opt.init(params))
    kept = Checkpoints(sys.argv[1], opt)
    kept.save(1, run)
    kept._manager.wait_until_finished()
    print("saved", flush=True)
    kept.save(2, run._replace(params=jax.tree.map(lambda p: p + 1, params)))
    time.sleep(float(sys.argv[2]))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.0, 0.02])
def test_a_process_killed_while_it_saves_loses_that_save_only(after, tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), str(after)]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        command, env=env, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "saved" in done.stdout
    opt = adamx.adamw(1e-3)
    params = {f"k{i}": jnp.full((256, 1024), float(i)) for i in range(40)}
    with Checkpoints(tmp_path, opt) as kept:
        assert kept.latest == 1
        back = kept.restore(blank(parallel.Run(params, opt.init(params))))
        same(back.params, params)
        kept.save(2, back)  # what the dead one left does not stand in the way
    with Checkpoints(tmp_path, opt) as kept:
        assert kept.latest == 2


def test_what_is_no_run_is_refused(tmp_path):
    params = {"kernel": jnp.ones(2)}
    opt = adamx.adam(0.1)
    pair = (params, opt.init(params))
    with Checkpoints(tmp_path, opt) as kept:
        with pytest.raises(TypeError, match=r"`run` must be a run, .*Run\(params.* got a tuple"):
            kept.save(1, pair)
        with pytest.raises(TypeError, match="`like` must be a run"):
            kept.restore(pair)
    train = parallel.data_parallel(lambda p, x: jnp.mean(x @ p["kernel"]), opt, params)
    for call in (train.collect, train.spread, lambda run: train.step(run, jnp.ones((8, 2)))):
        with pytest.raises(TypeError, match="`run` must be a run"):
            call(pair)


def test_a_landing_starts_from_a_checkpoint(tmp_path):
    params = {"kernel": jnp.ones(2, jnp.bfloat16)}
    before, after = optax.adamw(0.1), adamx.adamw(0.1, landing="compensated8")
    with Checkpoints(tmp_path, before) as kept:
        kept.save(1, parallel.Run(params, before.init(params)))
    with Checkpoints(tmp_path, after) as kept:
        run = kept.restore(parallel.Run(params, after.init(params)), saved_by=before)
    assert run.state[-1].remainder["kernel"].dtype == jnp.int8
