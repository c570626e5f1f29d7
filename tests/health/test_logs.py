# SPDX-License-Identifier: Apache-2.0
"""Logs that crashes, other programs and other loggers have written."""

import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx import health
from adamx.cli import folder
from tests.cli.commands import done


def test_rows_after_a_line_that_a_crash_has_cut_short_are_read(tmp_path):
    path = tmp_path / "run.jsonl"
    with health.JsonLines(path) as log:
        log.write(1, {"loss": 1.0})
    path.write_text(path.read_text() + '{"step": 2, "lo')
    with health.JsonLines(path) as log:  # the run goes on
        log.write(3, {"loss": 1.0})
        log.write(4, {"loss": float("nan")})
    assert [row["step"] for row in health.history(path)] == [1, 3, 4]
    assert "not finite since step 4" in str(health.doctor(health.history(path))[0])
    older = '{"step": 1, "loss": 1}\n{"step": 2, "lo{"step": 3, "loss": 1}\n{"step": 4, "loss": 1}'
    path.write_text(older)
    assert [row["step"] for row in health.history(path)] == [1, 4]


def test_a_file_in_place_of_rows_is_named(tmp_path):
    for path in ("run.jsonl", tmp_path):
        with pytest.raises(TypeError, match=r"rows or a state, got the path .*health.history\("):
            health.doctor(path)


def test_a_state_without_figures_is_not_called_well():
    params = {"kernel": jnp.ones(2)}
    state = adamx.adam(0.1).init(params)
    for blank in (state, health.read(state), {"step": 3}):
        with pytest.raises(ValueError, match=r"no figures: wrap the optimizer in `health.observe`"):
            health.doctor(blank)
    assert health.doctor([]) == []  # a log that has not begun
    assert health.doctor(health.observe(adamx.adam(0.1)).init(params)) == []


def test_the_state_of_groups_is_no_history():
    inner = health.observe(adamx.adam(0.1), per_leaf=True)
    opt = optax.partition({"a": inner}, {"kernel": "a"})
    params = {"kernel": jnp.ones(2)}
    _, state = opt.update({"kernel": jnp.full(2, jnp.nan)}, opt.init(params), params)
    assert "not finite since step 1" in str(health.doctor(state)[0])


@pytest.mark.parametrize("kind", [np.float32, np.float64, jnp.float32, jnp.bfloat16, np.asarray])
def test_figures_may_be_scalars_of_any_library(kind):
    (finding,) = health.doctor({"lost/bias": kind(0.5)})
    assert finding.what == "50% of updates are lost to rounding"
    history = [{"step": np.int64(i), "loss": kind(float("nan"))} for i in range(1, 9)]
    assert str(health.doctor(iter(history))[0]).startswith("not finite since step 1, first in loss")
    assert "not finite" in health.page(history)


def test_what_other_loggers_write_is_left_out(tmp_path):
    path, spoiled = tmp_path / "run.jsonl", {"grad_norm": {"a": 1}, "skipped": "x", "lost": [1]}
    rows = [
        {"step": i, "time": f"2026-11-30T12:00:{i}", "loss": 1 / i, "grad_rms/k": "none", **spoiled}
        for i in range(1, 30)
    ]
    rows[4]["loss"] = 10**400  # more than a float holds
    rows += [{"step": "last", "loss": 1.0}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "[" * 100_000)
    said = done(f"report {path} --out {tmp_path / 'page.html'}")
    assert said.startswith("Nothing that the doctor knows of is wrong.")
    path.write_text('{"step": 1, "loss": 1}\n{"step": 2, "loss": 1' + "0" * 400 + "}\n")
    assert folder.rows(tmp_path, 9) == [{"step": 1, "loss": 1}]


@pytest.mark.parametrize(
    "wrap", [health.observe, health.skip_nonfinite, health.skip_spikes, health.skip_outliers]
)
@pytest.mark.parametrize("tree", [{}, {"a": None}, ()])
def test_a_tree_without_leaves_is_watched_and_guarded(wrap, tree):
    opt = wrap(adamx.adam(0.1))
    params, state = adamx.step(opt, tree, opt.init(tree), tree)
    assert params == tree
    health.check(state, params)
    assert health.doctor(health.read(state)) == []
