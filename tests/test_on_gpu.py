# SPDX-License-Identifier: Apache-2.0
"""The report of a GPU comes to its end where there is none, at tiny sizes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.on_gpu import suite
from tests.on_gpu.__main__ import PARTS, Part, ran

ROOT = Path(__file__).parents[1]
LOG = """
[gw0] [ 33%] PASSED tests/core/test_step.py::test_a
[gw1] [ 66%] FAILED tests/core/test_step.py::test_b[x::y]
[gw0] [100%] SKIPPED tests/laws/test_dtypes.py::test_c
"""
SUMMARY = """
=========================== short test summary info ============================
FAILED tests/core/test_step.py::test_b[x::y] - assert 1 == 2
============ 1 failed, 1 passed, 1 skipped in 3.21s ============
"""


def test_the_outcomes_of_a_log_are_counted_even_if_it_breaks_off():
    for log in (LOG, LOG + SUMMARY):
        rows = suite.table(log).splitlines()[2:]
        cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
        assert cells == [
            ["tests/core/test_step.py", "1", "1", "0", "0"],
            ["tests/laws/test_dtypes.py", "0", "0", "0", "1"],
        ]
    assert suite.failures(LOG) == ["FAILED tests/core/test_step.py::test_b[x::y]"]
    assert suite.failures(LOG + SUMMARY) == [SUMMARY.splitlines()[2]]


def test_a_part_that_fails_is_a_line_of_the_report():
    assert "Failed with exit code 1: " in ran(Part("None", "missing", 1.0), 10, quick=True)
    assert ran(Part("None", "missing", 1.0), 1, quick=True) == "Left out: no time was left."


@pytest.mark.slow
def test_every_part_runs_through(tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "OUT": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.on_gpu", "--quick", "--seconds", "400"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert report.strip() == done.stdout.strip()
    assert [f"## {part.title}" in report for part in PARTS] == [True] * len(PARTS)
    assert not any(word in report for word in ("Failed", "Ended", "Left out: no time")), report
    for told in ("float32: int4", "bfloat16, int8, compensated8", "test_random_bits.py", "GB/s"):
        assert told in report
