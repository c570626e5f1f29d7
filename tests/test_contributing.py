# SPDX-License-Identifier: Apache-2.0
"""The example of CONTRIBUTING: one file and one row make an optimizer that everything knows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE, ROW, ORACLE = re.findall(
    r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S
)
NAME = "adamomentum"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the project with the file and the row."""
    folder = tmp_path_factory.mktemp("checkout")
    for part in ("adamx", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / part, folder)
    optimizers = folder / "adamx" / "optimizers"
    (optimizers / f"{NAME}.py").write_text(FILE, encoding="utf-8")
    with open(optimizers / "__init__.py", "a", encoding="utf-8") as rows:
        rows.write(ROW)
    with open(folder / "tests" / "oracles.py", "a", encoding="utf-8") as oracles:
        oracles.write("\n\n" + ORACLE)
    return folder


def run(checkout, *args, expect=0):
    env = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, *args], cwd=checkout, env=env, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == expect, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_example_is_short():
    assert len(FILE.splitlines()) < 60
    assert len(ROW.splitlines()) == 1


@pytest.mark.slow
def test_the_command_line_knows_it(checkout):
    task = ("--task", "regression", "--batch-size", "8")
    out = run(
        checkout, *"-m adamx train --recipe".split(), NAME, *task, "--steps", "2", "--watch", "0"
    )
    assert f"adamx.{NAME}" in out
    settings = "--steps 3 --seeds 1 --learning-rates 0.01".split()
    out = run(checkout, *"-m adamx compare --optimizers".split(), NAME, *task, *settings)
    assert NAME in out
    out = run(checkout, *"-m adamx bench --help".split())
    assert NAME in out


@pytest.mark.slow
def test_it_passes_the_laws(checkout):
    """All that are about every recipe or rule; the default ones."""
    laws = ["tests/laws", "tests/test_architecture.py", "-k", f"{NAME} or table or argument"]
    out = run(checkout, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *laws)
    assert int(re.search(r"(\d+) passed", out)[1]) > 20
