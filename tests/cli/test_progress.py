# SPDX-License-Identifier: Apache-2.0
"""The bar says what is known and of which step, and nothing else."""

import io
import math
import sys

import pytest
from rich.console import Console

from adamx.cli import progress as module
from adamx.cli.progress import Seen, progress


class Terminal(io.StringIO):
    """A file that claims to be a terminal."""

    def isatty(self):
        return True


def shown(monkeypatch, columns, reports):
    """What a terminal of so many columns has shown at the end."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    with progress("adamx.adamw", 100_000, ("images", 128)) as report:
        for done, figures in reports:
            report(done, figures)
    console = Console(file=io.StringIO(), width=columns)
    assert console.width == columns
    return terminal.getvalue()


FIGURES = {
    "loss": 0.0123,
    "rate": 1e-5,
    "validation": Seen(0.0474, 99_000),
    "gradient": Seen(4.7e-4, 99_981),
    "update": Seen(1.2e-4, 99_981),
}


@pytest.mark.parametrize("columns", [80, 130])
def test_old_figures_say_of_which_step_they_are(columns, monkeypatch):
    text = shown(monkeypatch, columns, [(99_999, FIGURES)])
    assert "loss 0.0123  rate 1.0e-05" in text
    assert "validation 0.0474 (step 99000)  gradient 4.7e-04  update 1.2e-04 (step 99981)" in text


def test_before_the_first_step_it_is_compiling(monkeypatch):
    text = shown(monkeypatch, 80, [])
    assert "compiling …" in text
    assert "loss" not in text


def test_what_is_not_known_is_a_dash_and_never_nan(monkeypatch):
    told = {"loss": math.nan, "validation": Seen(), "gradient": Seen(math.inf, 1)}
    text = shown(monkeypatch, 80, [(1, told)])
    assert "loss not finite" in text
    assert "validation –  gradient not finite" in text
    assert "nan" not in text
    assert "step 0" not in text


def test_plain_lines_say_the_same(capsys):
    with progress("run", 1) as report:
        report(1, {"loss": 0.5, "validation": Seen(0.25, 1), "gradient": Seen()})
    assert "loss 0.5000  validation 0.2500  gradient –  " in capsys.readouterr().out
    assert module.LINES > 1
