# SPDX-License-Identifier: Apache-2.0
"""Logs that crashes, other programs and other loggers have written."""

from adamx import health


def rows(*steps):
    return [{"step": step, "loss": 1.0} for step in steps]


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
