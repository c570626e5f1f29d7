# SPDX-License-Identifier: Apache-2.0
"""`train` where the loss becomes NaN: the doctor's advice, an earlier checkpoint, can be taken."""

import numpy as np
import pytest

from adamx import health
from adamx.cli import tasks
from adamx.cli.tasks import Defaults
from tests.cli import tiny_run
from tests.cli.tiny_run import losses, train

BROKEN = 6  # the number of good batches


@pytest.fixture(autouse=True)
def poisoned():
    """A task whose batches are NaN after the first, and one of which a single batch is."""
    tasks.TASKS["poisoned"] = (_made(lambda step: step >= BROKEN), Defaults(16, 8, 1e-2))
    tasks.TASKS["spoiled"] = (_made(lambda step: step == BROKEN), Defaults(9, 8, 1e-2))
    yield
    del tasks.TASKS["poisoned"], tasks.TASKS["spoiled"]


def _made(is_bad):
    def make(seed, batch_size, data):
        def batch(step):
            return np.full((8, 300), np.nan, np.float32) if is_bad(step) else tiny_run.batch(step)

        return tiny_run.make(seed, batch_size, data)._replace(batch=batch)

    return make


def kept(run):
    return sorted(int(path.name) for path in (run / "checkpoints").iterdir())


def test_checkpoints_of_a_run_that_is_nan_do_not_replace_good_ones(tmp_path):
    code, out, _ = train("--task poisoned --save-every 2 --watch 0 --run run", tmp_path)
    assert code == 0
    assert "not finite since step 7" in out
    assert "restore a checkpoint from before" in out
    assert kept(tmp_path / "run") == [4, 6, 16]
    assert np.isfinite([losses(tmp_path / "run")[step] for step in range(1, 7)]).all()
    code, out, err = train("--resume --run run --step 6 --steps 17", tmp_path)
    assert (code, err) == (0, "")
    assert kept(tmp_path / "run") == [4, 6, 17]


def test_a_resumed_run_that_begins_with_a_skipped_step_logs_the_same(tmp_path):
    flags = "--task spoiled --loss-scale --schedule constant --watch 1"
    assert train(f"{flags} --run whole", tmp_path)[0] == 0
    assert train(f"{flags} --run cut --steps {BROKEN}", tmp_path)[0] == 0
    assert train("--resume --run cut --steps 9", tmp_path)[0] == 0
    whole, cut = (
        [sorted(row) for row in health.history(tmp_path / run / "run.jsonl")]
        for run in ("whole", "cut")
    )
    assert whole == cut
    assert "grad_norm" not in whole[BROKEN]


def test_what_guards_have_skipped_is_logged_without_an_observer(tmp_path):
    assert train("--task spoiled --skip-nonfinite --watch 0 --run run", tmp_path)[0] == 0
    assert health.history(tmp_path / "run/run.jsonl")[-1]["skipped"] == 1
