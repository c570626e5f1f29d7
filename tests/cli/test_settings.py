# SPDX-License-Identifier: Apache-2.0
"""Every setting of `train` is declared once, and `--resume` does with it what its row says."""

import argparse
import json

import pytest

from adamx import health
from adamx.cli.flags import UsageError
from adamx.cli.train import settings
from adamx.cli.train.settings import FIELDS, Settings
from tests.cli.commands import done


def parsed(*words):
    parser = argparse.ArgumentParser()
    settings.add_arguments(parser)
    return settings.given(parser.parse_args(words))


def test_without_flags_nothing_is_given_and_the_defaults_hold():
    assert parsed() == {}
    assert settings.settled({}) == Settings()


def test_a_flag_that_says_no_is_given():
    assert parsed("--no-zero") == {"zero": False}


def test_the_folder_keeps_what_outlives_a_call():
    kept = settings.to_keep(Settings(steps=7, run="here"), title="a task")
    assert kept["steps"] == 7
    assert kept["title"] == "a task"
    assert not kept.keys() & {"run", "resume", "distributed", "process", "timeout"}
    assert set(kept) - {"title"} < set(FIELDS)


@pytest.fixture
def run(tmp_path):
    kept = settings.to_keep(Settings(recipe="lion", steps=7, clip=None), title="a task")
    (tmp_path / "config.json").write_text(json.dumps(kept))
    return str(tmp_path)


def test_a_resumed_run_keeps_its_settings_but_for_those_that_may_change(run):
    found = settings.settled(parsed("--resume", "--run", run, "--steps", "9"))
    assert (found.recipe, found.steps, found.run) == ("lion", 9, run)


@pytest.mark.parametrize(
    "flag, value, said",
    [
        ("--recipe", "adam", "begun with --recipe lion, not adam"),
        ("--clip", "1.0", "begun without --clip"),
        ("--seed", "3", "begun with --seed 0, not 3"),
    ],
)
def test_a_fixed_setting_may_not_change(run, flag, value, said):
    with pytest.raises(UsageError, match=said):
        settings.settled(parsed("--resume", "--run", run, flag, value))


def test_other_data_are_refused(run):
    resumed = settings.settled(parsed("--resume", "--run", run))
    settings.check_data(resumed, "a task")
    with pytest.raises(UsageError, match="not the data"):
        settings.check_data(resumed, "another task")


@pytest.mark.parametrize(
    "flags, why",
    [
        ("--stop-at 1.5", "--stop-at 1.5"),
        ("--learning-rate 0 --stop-on-plateau 2", "has not fallen for 2 looks"),
        ("--learning-rate 1e30 --stop-on-divergence", "has diverged"),
    ],
)
def test_a_run_ends_early_and_whole(flags, why, tmp_path):
    out = done(f"train --task digits --devices 1 --steps 60 --watch 0 --run here {flags}", tmp_path)
    assert why in out
    assert "bytes of state" in out  # the table of a run that is over
    last = health.history(tmp_path / "here" / "run.jsonl")[-1]
    assert last["step"] < 60
    assert (tmp_path / "here" / "checkpoints" / str(last["step"])).is_dir()
