# SPDX-License-Identifier: Apache-2.0
"""The instruments of the comparison in `notebooks/modern_family`: its protocol, a few steps."""

import dataclasses
import math

import jax
import pytest

from notebooks.modern_family import protocol, results
from notebooks.modern_family.entrants import ENTRANTS, WORKLOADS
from notebooks.modern_family.results import Row
from notebooks.modern_family.run import train


def tuned(loss, middle=1.0):
    """All rows of an entrant whose loss is a function of rate, decay and seed, stage by stage."""
    rows, stages = [], []
    while runs := protocol.next_runs("text", middle, rows):
        stages.append(runs)
        rows += [Row("text", "adamw", *run, loss(*run), 0.0) for run in runs]
        assert len(stages) < 10
    return rows, stages


def test_the_best_of_the_grid_is_judged_on_other_seeds():
    # A valley along which the rate has to fall as the decay grows: one after the other misses it.
    rows, stages = tuned(lambda rate, decay, seed: abs(math.log2(rate) + 1) + abs(decay - 0.4))
    assert protocol.best(rows) == (0.5, 0.4)
    assert not protocol.on_edge(rows)
    assert [len(runs) for runs in stages] == [
        21,
        1,
        3,
        5,
    ]  # a climb to the decay 1.6
    assert {seed for _, _, seed in stages[-1]}.isdisjoint(protocol.TUNING["text"])
    assert len(protocol.judged(rows)) == 5


def test_from_the_edge_of_the_grid_we_climb_and_say_if_that_was_not_enough():
    def loss(rate, decay, seed):
        return abs(math.log2(rate) - 5.0) + abs(decay - 1.6)

    rows, _ = tuned(loss)
    assert protocol.best(rows) == (32.0, 1.6)
    assert not protocol.on_edge(rows)
    rows, _ = tuned(lambda rate, decay, seed: rate)
    assert protocol.best(rows)[0] == 2**-7
    assert protocol.on_edge(rows)


def test_what_diverges_is_not_the_best():
    rows, _ = tuned(lambda rate, decay, seed: math.nan if rate > 0.5 else 1 / rate)
    assert protocol.best(rows)[0] == 0.5


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [Row("text", "soap", 0.004, 0.1, 0, math.nan, 2.5), Row("a", "b", 1.0, 0.0, 1, 1.0, 1.0)]
    for row in rows:
        results.append(tmp_path / "runs.csv", row)
    assert str(results.read(tmp_path / "runs.csv")) == str(rows)


@pytest.mark.slow
@pytest.mark.parametrize("entrant", ENTRANTS.values(), ids=ENTRANTS)
def test_an_entrant_trains(entrant):
    workload = dataclasses.replace(WORKLOADS["digits"], steps=20)
    with jax.numpy_dtype_promotion("standard"):
        ended = train(workload, entrant, entrant.middle["digits"], 0.1, 0)
    assert ended.validation < 1.05 * ended.start  # Prodigy is still looking for its rate
