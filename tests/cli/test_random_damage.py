# SPDX-License-Identifier: Apache-2.0
"""Random damage to a run's folder: `--resume` says so, or goes on as if there were none."""

import contextlib
import os
import random
import shutil

import matplotlib.figure
import pytest

from adamx.cli import folder
from tests.cli.tiny_run import SAVED, STEPS, files_of_at_most, losses, train
from tests.cli.tiny_run import tiny as tiny
from tests.cli.tiny_run import whole as whole

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def truncate(path, draw):
    os.truncate(path, draw.randrange(max(1, path.stat().st_size)))


def flip(path, draw):
    found = bytearray(path.read_bytes())
    for _ in range(3):
        if found:
            found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
    path.write_bytes(found)


def delete(path, draw):
    path.unlink()


def replace_by_folder(path, draw):
    path.unlink()
    path.mkdir()


def delete_folder(path, draw):
    shutil.rmtree(path.parent)


def place(path):
    """Sorts files by their folder and size, as TensorStore draws the names of some."""
    return path.parent, path.stat().st_size, path.name


def forbid(path, draw):
    path.chmod(0)


DAMAGES = [truncate, flip, delete, replace_by_folder, delete_folder]
DAMAGES += [forbid] * (os.geteuid() != 0)  # nothing is forbidden to root


@contextlib.contextmanager
def no_pictures():
    """They take most of the time, and depend on nothing but the log."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "page", lambda rows, title: "page")
        patch.setattr(folder, "plot", lambda rows, title: matplotlib.figure.Figure((1, 1)))
        yield


def resumed_after_damage(whole, root, seed):
    """Damages a copy of the run, or leaves no room on the disk, and resumes it."""
    draw, run = random.Random(seed), root / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(whole / "cut", run)
    files = sorted((path for path in run.rglob("*") if path.is_file()), key=place)
    latest = [path for path in files if f"checkpoints/{SAVED}" in str(path)]
    limit, said = contextlib.nullcontext(), ""
    if seed % 8 == 7:
        size = draw.choice([0, 100, 500, 1500, 1900, 2500, 4000, 20_000])
        limit, said = files_of_at_most(size), f"files of at most {size}"
    else:
        damage = draw.choice(DAMAGES)
        path = draw.choice(draw.choice([files, latest]))
        damage(path, draw)
        said = f"{damage.__name__} {path.relative_to(run)}"
    with limit, contextlib.nullcontext() if "run.jsonl" in said else no_pictures():
        code, _, err = train(f"--resume --run run --steps {STEPS}", root)
    said = f"damage {seed}, {said}: {code} {err}"
    if code == 0:
        assert err == "", said
        after = {s: x for s, x in losses(run).items() if s > SAVED}
        assert after == {s: x for s, x in losses(whole / "whole").items() if s > SAVED}, said
    else:
        assert err.count("\n") == 1, said
        assert "tensorstore_spec" not in err, said
        assert len(err) < 600, said
    return code


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 200, 40))  # five tests, for more than one worker
def test_random_damages_end_in_a_sentence_or_in_the_same_losses(first, whole, tmp_path, capfd):
    codes = [resumed_after_damage(whole, tmp_path, seed) for seed in range(first, first + 40)]
    assert {0, 1, 2} == set(codes)
    assert capfd.readouterr().err == ""
