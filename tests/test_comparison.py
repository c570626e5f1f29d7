# SPDX-License-Identifier: Apache-2.0
"""The instruments of the comparison in `notebooks/modern_family`: its protocol, a few steps."""

import dataclasses
import math

import jax
import pytest

from notebooks.modern_family import costs, protocol, results, summary
from notebooks.modern_family.entrants import ENTRANTS, WORKLOADS
from notebooks.modern_family.results import Row
from notebooks.modern_family.run import train
from notebooks.modern_family.training import RESULTS
from tests.docs.reader import DOCS


def tuned(loss, middle=1.0, entrant="adamw"):
    """All rows of an entrant whose loss is a function of rate, decay and seed, stage by stage."""
    rows, stages = [], []
    while runs := protocol.next_runs("text", middle, rows):
        stages.append(runs)
        rows += [Row("text", entrant, *run, loss(*run), 0.0) for run in runs]
        assert len(stages) < 10
    return rows, stages


def test_the_best_of_the_grid_is_judged_on_other_seeds():
    # A valley along which the rate has to fall as the decay grows: one after the other misses it.
    rows, stages = tuned(lambda rate, decay, seed: abs(math.log2(rate) + 1) + abs(decay - 0.4))
    assert protocol.best(rows) == (0.5, 0.4)
    assert not protocol.on_edge(rows)
    # The grid, a climb to the decay 1.6, the finalists, the judges.
    assert [len(runs) for runs in stages] == [21, 1, 3, 5]
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


def noise(rate, decay, seed):
    return 2 + abs(math.log2(rate)) + 0.1 * math.sin(seed)


@pytest.mark.parametrize(
    "better, verdict", [(0.2, 1), (-0.2, -1), (0.0, 0), (0.003, 0), (math.nan, -1)]
)
def test_gains_are_those_of_pairs_of_seeds(better, verdict):
    def loss(rate, decay, seed):
        gain = better if seed in protocol.JUDGES["text"] or better == better else 0.1
        return noise(rate, decay, seed) - gain - 0.002 * math.cos(seed)

    rows = tuned(noise)[0] + tuned(loss, entrant="soap")[0]
    found = summary.judged(rows, "text", "soap")
    assert found.verdict == verdict
    if better == better:
        # The noise of 0.1 that seeds share is gone from the difference.
        assert abs(found.gain - better) < found.within < found.surely < 0.01 < found.spread


def test_a_table_names_what_is_better_and_what_diverged():
    def loss(name):
        shift = {"soap": 0.5, "lion": -0.5, "came": math.nan}.get(name, 0.0)
        return lambda rate, decay, seed: (
            noise(rate, decay, seed)
            - (shift + 0.001 * math.cos(seed * len(name)) if seed > 9 else 0)
        )

    rows = [row for name in ENTRANTS for row in tuned(loss(name), entrant=name)[0]]
    rows += [row._replace(workload="digits") for row in rows]
    prices = {name: summary.Cost(name, 8.0, 0.9, 1.0, 1.1) for name in ENTRANTS}
    lines = {line.split("|")[1].strip(): line for line in summary.table(rows, prices).splitlines()}
    assert list(lines)[2] == "soap"  # the first below the header
    assert list(lines)[-1] == "came"
    assert "-0.50" in lines["soap"]
    assert "better" in lines["soap"]
    assert "worse" in lines["lion"]
    assert "nan" in lines["came"]
    assert "better" not in lines["adan"]
    assert not summary.finished(rows)  # digits have other seeds


def test_the_runs_are_all_there_and_the_page_has_their_table():
    rows, prices = results.read(RESULTS / "runs.csv"), costs.read()
    assert summary.finished(rows)
    assert list(prices) == list(ENTRANTS)
    page = (DOCS / "ideas" / "family.md").read_text(encoding="utf-8")
    assert summary.table(rows, prices) in page


@pytest.mark.parametrize("name, held", [("adam_mini int8", 1.1), ("muon + adamw", 5.6)])
def test_costs_are_measured(name, held, monkeypatch):
    monkeypatch.setattr(costs, "ENTRANTS", {name: ENTRANTS[name]})
    with jax.numpy_dtype_promotion("standard"):
        (found,) = costs.costs(costs.tree(width=64, layers=1), steps=1, rounds=2)
    assert 0 < found.low <= found.time <= found.high
    assert found.bytes == pytest.approx(held, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("entrant", ENTRANTS.values(), ids=ENTRANTS)
def test_an_entrant_trains(entrant):
    workload = dataclasses.replace(WORKLOADS["digits"], steps=20)
    with jax.numpy_dtype_promotion("standard"):
        ended = train(workload, entrant, entrant.middle["digits"], 0.1, 0)
    assert ended.validation < 1.05 * ended.start  # Prodigy is still looking for its rate
