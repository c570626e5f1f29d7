# SPDX-License-Identifier: Apache-2.0
"""`train --resume` of a damaged run and on a full disk: a sentence, or the undamaged run."""

import errno
import os
import shutil
from pathlib import Path

import matplotlib.figure
import pytest

import adamx.cli.export.file
from adamx import health
from tests.cli.tiny_run import SAVED, STEPS, files_of_at_most, losses, train
from tests.cli.tiny_run import tiny as tiny
from tests.cli.tiny_run import whole as whole

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def root(whole, tmp_path):
    shutil.copytree(whole / "cut", tmp_path / "run")
    return tmp_path


def refused(root, flags="", code=2):
    found, _, err = train(f"--resume --run run --steps {STEPS} {flags}", root)
    assert found == code, err
    assert err.count("\n") == 1
    assert len(err) < 500 + 2 * len(str(root))
    return err


def goes_on(root, whole, flags=""):
    code, out, err = train(f"--resume --run run --steps {STEPS} {flags}", root)
    assert (code, err) == (0, "")
    assert losses(root / "run")[STEPS] == losses(whole / "whole")[STEPS]
    return out


# Checkpoints


def test_a_damaged_checkpoint_is_refused_and_the_step_that_is_named_goes_on(root, whole):
    (root / f"run/checkpoints/{SAVED}/run/_METADATA").write_text("garbage")
    err = refused(root)
    assert f"checkpoint {SAVED} in" in err
    assert "the newest whole one is of step 6 (`step=6`, or `train --resume --step 6`)" in err
    assert "no checkpoint 7 in" in refused(root, "--step 7")
    goes_on(root, whole, "--step 6")
    assert losses(root / "run") == losses(whole / "whole")
    kept = sorted(int(path.name) for path in (root / "run/checkpoints").iterdir())
    assert kept == [6, 9, STEPS]


def test_a_step_without_resume_is_refused(root):
    assert "--step needs --resume" in train("--task tiny --run new --step 3", root)[2]


def test_a_run_whose_checkpoints_are_gone_does_not_begin_again_unasked(root):
    shutil.rmtree(root / "run/checkpoints")
    err = refused(root)
    assert "run/checkpoints: there is no checkpoint to go on from; begin again in another" in err
    assert not (root / "run/checkpoints").exists()


def test_a_file_in_the_place_of_the_checkpoints_is_named(root):
    shutil.rmtree(root / "run/checkpoints")
    (root / "run/checkpoints").write_text("")
    assert "run/checkpoints: there is no checkpoint" in refused(root)
    (root / "new").mkdir()
    (root / "new/checkpoints").write_text("")
    code, _, err = train("--task tiny --run new", root)
    assert code == 2
    assert "checkpoints is a file, not a folder of checkpoints" in err


# Settings and log


@pytest.mark.parametrize(
    "text, said",
    [
        ("[]", "not the settings of a run, but a list"),
        ("{", "not the settings of a run: "),
        (10**5 * "[", "not the settings of a run: "),
        ('{"steps": "many"}', "steps cannot be 'many'"),
        ('{"recipe": "sgd"}', "recipe cannot be 'sgd'"),
        ('{"zero": 1}', "zero cannot be 1"),
    ],
    ids=["list", "cut", "deep", "type", "choice", "number"],
)
def test_settings_that_are_none_are_refused(text, said, root):
    (root / "run/config.json").write_text(text)
    assert said in refused(root)


def test_a_changed_setting_is_noticed(root):
    path = root / "run/config.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 4'))
    assert 'you have changed them, remove the line "checksum"' in refused(root)


def test_a_log_that_is_cut_in_a_line_goes_on_from_its_whole_rows(root, whole):
    path = root / "run/run.jsonl"
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([*lines[:2], "\x00[", "[]", '{"step": "x"}', *lines[4:6], lines[6][:9]])
    )
    assert f"run.jsonl: 4 of {SAVED} rows are lost or damaged" in goes_on(root, whole)
    steps = [1, 2, 5, 6, *range(SAVED + 1, STEPS + 1)]
    want = losses(whole / "whole")
    assert losses(root / "run") == {step: want[step] for step in steps}


def test_a_row_whose_loss_has_lost_its_name_is_damaged(root, whole):
    path = root / "run/run.jsonl"
    path.write_text(path.read_text().replace('"loss"', '"lors"', 1))
    assert f"run.jsonl: 1 of {SAVED} rows are lost or damaged" in goes_on(root, whole)


# A full disk


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("place", ["run.jsonl", "report.html", "run.png", "x.bin", "config.json"])
def test_a_full_disk_is_one_sentence_and_leaves_the_checkpoints(place, root, whole, monkeypatch):
    if place == "run.jsonl":
        monkeypatch.setattr(health.JsonLines, "write", full)
    if place == "run.png":
        savefig = matplotlib.figure.Figure.savefig

        def save(figure, to, **kwargs):  # the page has pictures, too
            return full() if str(to).endswith(".png") else savefig(figure, to, **kwargs)

        monkeypatch.setattr(matplotlib.figure.Figure, "savefig", save)
    if place == "x.bin":
        monkeypatch.setattr(adamx.cli.export.file.zipfile.ZipFile, "writestr", full)
    if place in ("report.html", "config.json"):
        write_text = Path.write_text

        def write(path, *args, **kwargs):
            return full() if place in path.name else write_text(path, *args, **kwargs)

        monkeypatch.setattr(Path, "write_text", write)
    err = refused(root, "--export x.bin" if place == "x.bin" else "", code=1)
    assert f"{place}: No space left on device" in err
    monkeypatch.undo()
    latest = max(int(path.name) for path in (root / "run/checkpoints").iterdir())
    assert latest in (SAVED, STEPS)
    if latest == SAVED:
        goes_on(root, whole)
    else:
        assert losses(root / "run") == losses(whole / "whole")


def test_a_folder_that_cannot_be_made_is_one_sentence(root, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", full)
    code, _, err = train("--task tiny --run new", root)
    assert (code, err) == (1, "python -m adamx train: cannot write new: No space left on device\n")


def test_a_folder_that_may_not_be_read_is_one_sentence(root, monkeypatch):
    def forbidden(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "iterdir", forbidden)
    assert "cannot use run/checkpoints: Permission denied" in refused(root, code=1)


def test_a_checkpoint_that_does_not_fit_is_one_sentence(root, whole):
    with files_of_at_most(1900):  # enough for the log of so few steps
        err = refused(root, code=1)
    assert "train: cannot write checkpoint 9 in" in err
    assert err.endswith(f"File too large; the latest is of step {SAVED}\n")
    goes_on(root, whole)
