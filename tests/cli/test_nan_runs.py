# SPDX-License-Identifier: Apache-2.0
"""`train` where the loss becomes NaN: the doctor's advice, an earlier checkpoint, can be taken."""

import numpy as np
import pytest

from adamx.cli import tasks
from adamx.cli.tasks import Defaults
from tests.cli import tiny_run
from tests.cli.tiny_run import losses, train

BROKEN = 6  # the number of good batches


@pytest.fixture(autouse=True)
def poisoned():
    def make(seed, batch_size, data):
        def batch(step):
            return tiny_run.batch(step) if step < BROKEN else np.full((8, 300), np.nan, np.float32)

        return tiny_run.make(seed, batch_size, data)._replace(title="poisoned", batch=batch)

    tasks.TASKS["poisoned"] = (make, Defaults(16, 8, 1e-2))
    yield
    del tasks.TASKS["poisoned"]


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
