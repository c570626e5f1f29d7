# SPDX-License-Identifier: Apache-2.0
"""The instruments of the study in `notebooks/small_states`: two steps each, and the protocol."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from notebooks.small_states import protocol, results, streams, training
from notebooks.small_states.memories import memory
from notebooks.small_states.results import Entrant, Row
from notebooks.small_states.run import problem, train
from notebooks.small_states.workloads import WORKLOADS, Workload
from tests import blockwise

ENTRANT = Entrant("float32", "nearest", "float32")
FACTORY = functools.partial(adamx.adamw, storage="float32")


@functools.cache
def short(name: str) -> Workload:
    """Two steps of a workload; the same object each time, so that data and programs are shared."""
    return dataclasses.replace(streams.STREAMS[name], steps=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_trains_alike_with_the_same_seed_only(name):
    workload = short(name)
    once, again, other = (train(workload, FACTORY, workload.rates[2], s) for s in (0, 0, 1))
    assert all(map(math.isfinite, once))
    assert once == again
    assert once != other


@pytest.mark.slow
def test_bfloat16_parameters_train_too():
    workload = short("mlp")
    still, moved = (train(workload, FACTORY, rate, 0, "bfloat16") for rate in (0.0, 4e-3))
    # At rate 0 the loss is that of the start, but for what a sum over digits rounds.
    np.testing.assert_allclose(still.validation, still.start, rtol=1e-6)
    assert moved.start == still.start
    assert moved.validation < still.validation


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WORKLOADS, "synthetic"])
def test_gradients_have_the_dtype_of_the_parameters(name):
    task = problem(short(name))
    params, world = task.init(jax.random.key(0))
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    grads, _ = jax.eval_shape(task.grads, params, world, jax.random.key(1))
    assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.slow
def test_most_rows_of_the_embedding_see_no_gradient():
    task = problem(short("embedding"))
    params, world = task.init(jax.random.key(0))
    grads, _ = task.grads(params, world, jax.random.key(1))
    assert np.mean(np.any(np.asarray(grads["embedding"]), axis=-1)) < 0.1


def test_the_rate_warms_up_and_falls_to_nothing():
    at = WORKLOADS["transformer"].schedule(2.0)
    rates = [float(at(jnp.int32(step))) for step in (0, 99, 100, 550, 999)]
    np.testing.assert_allclose(rates[:4], [0.02, 2, 2, 1], rtol=1e-6)
    assert 0 < rates[4] < 1e-5


def rows(losses: dict[float, list[float]], entrant: Entrant = ENTRANT) -> list[Row]:
    return [
        Row("mlp", *entrant, rate, seed, loss, loss, 1.0, not loss < 1.0)
        for rate, seeds in losses.items()
        for seed, loss in enumerate(seeds)
    ]


def test_the_best_rate_is_that_of_the_lowest_mean_over_shared_seeds():
    assert protocol.best_rate(rows({1.0: [0.2, 0.2], 2.0: [0.1, 0.2]})) == 2.0
    assert protocol.best_rate(rows({1.0: [0.2, 0.2], 2.0: [0.1, math.nan]})) == 1.0
    assert protocol.best_rate(rows({1.0: [0.2, 0.2], 2.0: [0.1, 0.2, 9.0]})) == 2.0


def test_the_largest_rate_is_the_one_where_every_seed_trains():
    """Nine tenths of the way from 1 to 0.05: up to 0.145."""
    found = rows({1.0: [0.05, 0.06], 2.0: [0.1, 0.14], 4.0: [0.1, 0.15], 8.0: [math.inf, 0.1]})
    assert protocol.largest_rate(found, found) == 2.0
    assert protocol.largest_rate([r for r in found if r.rate > 2], found) == 0.0


def test_the_protocol_tunes_then_repeats_then_seeks_the_edge():
    workload = dataclasses.replace(WORKLOADS["mlp"], rates=(1.0, 2.0, 4.0))
    losses = {1.0: 0.1, 2.0: 0.05, 4.0: 0.1, 8.0: 0.9}
    found: list[Row] = []
    asked = []
    while runs := protocol.next_runs(workload, ENTRANT, found, 2, 3, ["final", "edge"]):
        asked.append(runs)
        found += [
            Row("mlp", *ENTRANT, rate, seed, 0.0, losses.get(rate, 0.9), 1.0, False)
            for rate, seed in runs
        ]
    assert asked == [
        [(rate, seed) for rate in (1.0, 2.0, 4.0) for seed in (0, 1)],
        [(2.0, 2)],
        [(8.0, 0), (8.0, 1)],  # the grid's end still trained
        [(5.656854, 0), (5.656854, 1)],
    ]
    assert protocol.largest_rate(found, found) == 4.0


def test_rows_survive_the_file(tmp_path):
    written = rows({5.656854: [0.1234567, math.inf]})
    for row in written:
        results.append(tmp_path / "runs.csv", row)
    assert results.read([tmp_path / "runs.csv", tmp_path / "none.csv"]) == written


def test_the_command_runs_what_is_missing_and_no_more(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(WORKLOADS, "bigram", short("bigram"))
    out = tmp_path / "runs.csv"
    flags = ["--workloads", "bigram", "--rates", "0.5,1", "--seeds", "2", "--out", str(out)]
    training.main(flags)
    first = out.read_text()
    assert len(first.splitlines()) == 5
    training.main(flags)
    assert out.read_text() == first
    training.main([*flags[:5], "3", *flags[6:]])
    assert len(out.read_text().splitlines()) == 7


@pytest.mark.slow
def test_float32_beside_itself_has_no_error():
    found = list(streams.errors(short("synthetic"), ["float32"], 0.0, 0, window=2))
    (row,) = found
    assert row.keys() == set(streams.FIELDS)
    assert row["alive"] > 0.5
    errors = [row[k] for k in streams.FIELDS[4:]]
    np.testing.assert_allclose(errors, 0, atol=1e-6)  # a quotient of two roots in float32


def test_a_reference_that_keeps_all_is_adam(monkeypatch):
    exact = blockwise.Reference(8.0, lambda m: m, lambda v: v)
    monkeypatch.setitem(blockwise.FORMATS, "exact", exact)
    ours, theirs = memory("float32"), memory("exact")
    rng = np.random.default_rng(0)
    params = {"a": jnp.zeros((3, 4)), "b": jnp.zeros(2)}
    states = ours.init(params), theirs.init(params)
    for _ in range(5):
        grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params)
        *want, first = ours.step(grads, states[0])
        *got, second = theirs.step(grads, states[1])
        states = first, second
        # 1 - b2 in float32 has four digits fewer than ours, which is exact.
        for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4)


@pytest.mark.slow
def test_a_coarse_code_shows_its_bias(monkeypatch):
    """Squares always a quarter too small: roots are half, their inverse is twice as large."""
    small = blockwise.Reference(8.0, lambda m: m, lambda v: v / 4)
    nothing = blockwise.Reference(8.0, lambda m: m, jnp.zeros_like)
    monkeypatch.setitem(blockwise.FORMATS, "small", small)
    monkeypatch.setitem(blockwise.FORMATS, "nothing", nothing)
    workload = dataclasses.replace(streams.STREAMS["synthetic"], steps=1)
    found = list(streams.errors(workload, ["small", "nothing"], 0.0, 0, window=1))
    np.testing.assert_allclose([found[0][k] for k in ("root_median", "root_bias")], 1, rtol=1e-5)
    assert found[0]["zero_share"] == 0
    assert found[1]["zero_share"] == 1
    assert found[1]["root_median"] == math.inf
