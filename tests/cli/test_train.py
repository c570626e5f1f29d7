# SPDX-License-Identifier: Apache-2.0
"""`train` as it is typed: every task, every flag, and a run that is cut off."""

import gzip
import json
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from adamx import health
from adamx.cli import folder
from adamx.cli.train.notes import without_effect
from adamx.cli.train.settings import Settings
from tests.cli.commands import done, ended, number, on_a_terminal, refused, start, table


def losses(folder):
    return [(row["step"], row["loss"]) for row in health.history(folder / "run.jsonl")]


@pytest.mark.slow
def test_digits_beside_optax_end_with_a_table_in_which_both_sides_agree(tmp_path):
    out = done("train --task digits --steps 5 --compare optax --devices 1", tmp_path)
    assert "step 5/5" in out
    assert "\x1b" not in out  # no bar where stdout is no terminal
    rows = table(out, "adamx.adamw  optax.adamw")
    assert rows["header"] == ["adamx.adamw", "optax.adamw"]
    mine, other = map(number, rows["final loss"])
    assert mine == pytest.approx(other, rel=1e-3)
    for which in ("train accuracy", "test accuracy"):
        assert all(40 < number(cell) <= 100 for cell in rows[which])
    assert all(number(cell) > 0 for cell in rows["ms per step"])
    parameters = 64 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10
    ours, theirs = (number(c) for c in rows["bytes of state per device"])
    assert theirs == 8 * parameters + 4
    assert theirs < ours < theirs + 2000  # what is watched
    # Five steps move by 5e-3 at most; float32 rounding of either side is some 1e-7.
    assert number(rows["largest |difference of parameters|"][0]) < 1e-5
    assert not (tmp_path / "runs/digits-1/checkpoints").exists()
    run = "train --run runs/digits-1"
    said = refused(f"{run} --resume", tmp_path)
    assert "has a comparison, of which nothing is saved" in said
    said = refused(f"{run} --distributed", tmp_path)  # before others are waited for
    assert "has a run in it: add --resume" in said


def test_a_run_has_a_folder_with_all_that_is_to_be_kept(tmp_path):
    for _ in range(2):
        out = done("train --task digits --steps 45 --save-every 20 --seed 3 --devices 1", tmp_path)
        assert len(out.split("report.html\n")[1].splitlines()) <= 4  # the page has all
    for name in ("digits-1", "digits-2"):
        run = tmp_path / "runs" / name
        kept = {p.name for p in run.iterdir()}
        assert kept == {"config.json", "run.jsonl", "checkpoints", "report.html", "run.png"}
        assert json.loads((run / "config.json").read_text())["seed"] == 3
        rows = health.history(run / "run.jsonl")
        assert [row["step"] for row in rows] == list(range(1, 46))
        assert [row["step"] for row in rows if "grad_norm" in row] == [1, 21, 41]
        assert rows[-1]["validation loss"] > 0
    one, two = (losses(tmp_path / "runs" / name) for name in ("digits-1", "digits-2"))
    assert one == two


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_shows_a_bar(tmp_path):
    shown = on_a_terminal("train --task regression --steps 20", tmp_path)
    for part in (
        "\x1b[",
        "━",
        "20/20",
        "loss ",
        "rate ",
        "gradient ",
        "update ",
        "points/s",
        "left",
    ):
        assert part in shown


FLAGS = {
    "source": "--task source --steps 3 --batch-size 2 --schedule linear --clip 0.5 --watch 0",
    "cnn in bfloat16": "--task digits-cnn --steps 6 --dtype bfloat16 --landing compensated8 "
    "--storage int8 --recipe nadamw",
    "text with guards": "--task text --steps 4 --skip-nonfinite --skip-spikes --rewind --watch 2",
    "regression in float16": "--task regression --steps 12 --dtype float16 --loss-scale "
    "--weight-decay 0.01 --learning-rate 0.002 --schedule constant --clip 0 "
    "--devices 2 --how mesh --no-zero",
    "devices": "--task digits --steps 4 --devices 4 --how shard_map --zero --storage int4",
    "pmap": "--task regression --steps 4 --devices 2 --how pmap --zero",
    "unwatched": "--task digits --steps 4 --watch 0 --recipe adabelief --compare optax",
}
SHORT = {"pmap"}


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(flags, id=name, marks=() if name in SHORT else pytest.mark.slow)
        for name, flags in FLAGS.items()
    ],
)
def test_every_task_trains_with_every_flag(flags, tmp_path):
    devices = "" if "--devices" in flags else "--devices 1"
    out = done(f"train {flags} {devices} --run here", tmp_path)
    rows = table(out, "adamx.")
    assert 0 < number(rows["final loss"][0]) < 20
    assert (tmp_path / "here/report.html").stat().st_size > 5000
    if "source" in flags:
        assert 1 < number(rows["zlib"][0].split()[0]) < 3
        assert number(rows["bits per byte"][0]) > 2


def test_a_task_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import jax.numpy as jnp, numpy as np\n"
        "from adamx.cli.tasks import Task\n"
        "def make(seed, batch_size, data):\n"
        "    def loss(params, batch): return jnp.mean((params['x'] - batch) ** 2)\n"
        "    return Task('mine', {'x': jnp.ones(3)}, loss, lambda i: np.zeros((batch_size, 3)),\n"
        "                lambda p: 7.0, lambda p: {'loss': 0.25, 'seed': seed})\n"
    )
    # A process that has not looked for modules in this folder before.
    line = "train --task mine:make --steps 5 --seed 4 --run here"
    code, out, err = ended(start(line, tmp_path))
    assert (code, err) == (0, "")
    rows = table(out, "adamx.adamw")
    assert rows["final loss"] == ["0.25"]
    assert rows["seed"] == ["4"]
    assert "validation 7.0" in out


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_is_the_run_that_was_not(tmp_path):
    flags = "train --task regression --steps 300 --save-every 20 --rewind --skip-spikes"
    flags += " --watch 0"  # half of what is compiled is what watches
    code, _, err = ended(start(f"{flags} --run whole", tmp_path))
    assert code == 0, err
    for seed in (0, 1):
        run = tmp_path / f"cut-{seed}"
        process = start(f"{flags} --run {run}", tmp_path)
        while not any(path.name.isdecimal() for path in run.glob("checkpoints/*")):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(random.Random(seed).uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        # With the flags in the folder; Orbax tells on stderr of slow saves and of those cut off.
        code, out, err = ended(start(f"train --run {run} --resume", tmp_path))
        assert code == 0, err
        assert losses(run) == losses(tmp_path / "whole")  # bit for bit
        assert "final loss" in out


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    flags = "train --task digits --steps 100000 --save-every 100000"
    process = start(f"{flags} --run here", tmp_path)
    while not (tmp_path / "here/run.jsonl").exists() or len(losses(tmp_path / "here")) < 5:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert (code, err) == (130, "")
    step = len(losses(tmp_path / "here"))
    assert f"interrupted: saved at step {step}; go on with --resume --run here" in out
    assert (tmp_path / "here/report.html").exists()
    done(f"train --steps {step + 3} --resume --run here --devices 1", tmp_path)
    assert [s for s, _ in losses(tmp_path / "here")] == list(range(1, step + 4))


def test_a_folder_that_is_taken_and_a_run_that_is_another_are_refused(tmp_path):
    done("train --task digits --steps 5 --run here --devices 1", tmp_path)

    def refusal(flags):
        return refused(f"train {flags} --devices 1", tmp_path)

    again = "--task digits --run here"
    kept = (tmp_path / "here/config.json").read_text()
    said = refusal(f"{again} --steps 9 --seed 1")
    assert "here has a run in it: add --resume to go on with it" in said
    assert (tmp_path / "here/config.json").read_text() == kept
    assert "--steps 4: the checkpoint is of step 5" in refusal(f"{again} --steps 4 --resume")
    assert (tmp_path / "here/config.json").read_text() == kept  # not even by what was refused
    said = refusal(f"{again} --steps 9 --resume --seed 1")
    assert "here: the run was begun with --seed 0, not 1" in said
    said = refusal(f"{again} --steps 9 --resume --batch-size 64")
    assert "here: the run was begun with --batch-size 128, not 64" in said
    said = refusal("--run here --steps 9 --resume --storage int8")
    assert "here: the run was begun with --storage float32, not int8" in said
    said = refusal("--run here --steps 9 --resume --rewind")
    assert said.endswith("here: the run was begun without --rewind\n")
    said = refusal("--run here --steps 9 --resume --learning-rate 0.1")
    assert said.endswith("here: the run was begun without --learning-rate\n")
    assert "there is no run in hare" in refusal("--run hare --resume")
    assert not (tmp_path / "hare").exists()
    config = json.loads(kept)
    config["title"] = "other data"
    (tmp_path / "here/config.json").write_text(json.dumps(config))
    said = refusal("--run here --steps 9 --resume")
    assert "not the settings that the run was begun with" in said
    del config["checksum"]  # as one does who changes them
    (tmp_path / "here/config.json").write_text(json.dumps(config))
    said = refusal("--run here --steps 9 --resume")
    assert "these are not the data that the run was begun with: other data; now" in said
    (tmp_path / "here/config.json").write_text("{")
    assert "config.json: not the settings of a run" in refusal("--run here --resume")
    assert "cannot write" in refusal("--task digits --steps 2 --run here/run.jsonl/x")


@pytest.mark.parametrize(
    "task, said",
    [
        ("json:dumps", "takes no (seed, batch_size, data): too many positional arguments"),
        ("builtins:int", "takes no (seed, batch_size, data): "),
        ("builtins:max", "takes no (seed, batch_size, data): "),
        ("builtins:print", "returns a NoneType, not a Task"),
    ],
)
def test_what_is_no_task_is_refused(task, said):
    assert f"--task {task}: " in (told := refused(f"train --task {task}"))
    assert said in told


def test_the_latest_run_of_a_task_is_not_anothers_and_has_begun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits-1", "digits-10", "digits-cnn-12", "digits-11", "digits-x"):
        Path("runs", name).mkdir(parents=True)
        if name != "digits-11":
            folder.keep(Path("runs", name), {"task": name})
    assert folder.latest("digits").name == "digits-10"
    assert folder.latest("digits-cnn").name == "digits-cnn-12"
    assert folder.next_free("digits").name == "digits-2"


@pytest.mark.slow
def test_a_run_of_float16_logs_what_was_seen_at_its_own_steps(tmp_path):
    # Steps that overflow do not count for the observer: it looks later.
    flags = "--task regression --dtype float16 --loss-scale --watch 5 --steps 30 --devices 1"
    done(f"train {flags} --run here", tmp_path)
    rows = health.history(tmp_path / "here/run.jsonl")
    overflows = next(row["overflows"] for row in rows if "overflows" in row)
    assert overflows >= 1
    looked = [row["step"] for row in rows if "grad_norm" in row]
    assert looked[0] == 1 + overflows
    assert all(row["grad_norm"] > 0 for row in rows if "grad_norm" in row)


def test_the_quadratic_shows_every_step_of_the_arithmetic():
    rows = table(done("train --task quadratic --steps 3 --learning-rate 0.001"), "next x")
    x, g, m, v, m_hat, v_hat, step, after = map(number, rows["1"])
    assert (x, g, m_hat, v_hat, after) == (5, 10, 10, 100, 4.999)  # some tutorials have v = 1000
    assert (m, v) == (pytest.approx(1.0), pytest.approx(0.1))
    x, m, v = 4.999, 0.9 * 1 + 0.1 * 9.998, 0.999 * 0.1 + 0.001 * 9.998**2
    assert number(rows["2"][2]) == pytest.approx(m, rel=1e-6)
    assert number(rows["2"][3]) == pytest.approx(v, rel=1e-6)
    step = -1e-3 * (m / (1 - 0.9**2)) / (v / (1 - 0.999**2)) ** 0.5
    assert number(rows["2"][6]) == pytest.approx(step, rel=1e-3)
    for flag, said in (
        ("--recipe nadam", "use --recipe adam"),
        ("--weight-decay 0.1", "--task quadratic has no --weight-decay"),
    ):
        assert said in refused(f"train --task quadratic {flag}")


# Data of one's own


def idx(array):
    kinds = {"uint8": 8, "int32": 12}
    head = bytes([0, 0, kinds[array.dtype.name], array.ndim]) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def mnist(folder, zipped=False):
    rng = np.random.default_rng(0)
    for name, count in (("train", 200), ("t10k", 60)):
        labels = rng.integers(0, 10, count).astype(np.uint8)
        images = rng.integers(0, 40, (count, 28, 28)).astype(np.uint8)
        images[np.arange(count), 2 * labels, :] = 255
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = idx(array)
            path = folder / f"{name}-{kind}-ubyte{'.gz' * zipped}"
            path.write_bytes(gzip.compress(data) if zipped else data)


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_is_read_from_its_own_files(zipped, tmp_path):
    mnist(tmp_path, zipped)
    flags = "--data . --steps 60 --batch-size 50 --run here --devices 1 --watch 0"
    out = done(f"train --task {'digits' if zipped else 'digits-cnn'} {flags}", tmp_path)
    assert "200 images to train on, 60 to test on" in out
    assert ("MLP 784-512-256-10" in out) == zipped
    assert number(table(out, "adamx.adamw")["train accuracy"][0]) > 60


def test_broken_idx_files_are_named(tmp_path):
    from adamx.cli.flags import UsageError
    from adamx.cli.tasks import digits
    from adamx.cli.tasks.idx import read_idx, read_mnist

    numbers = np.arange(-3, 3, dtype=np.int32).reshape(2, 3)
    (tmp_path / "a").write_bytes(idx(numbers))
    np.testing.assert_array_equal(read_idx(tmp_path / "a"), numbers)
    (tmp_path / "b").write_bytes(idx(numbers)[:-1])
    with pytest.raises(UsageError, match=r"b: 35 bytes do not hold an array of shape \(2, 3\)"):
        read_idx(tmp_path / "b")
    (tmp_path / "d").write_bytes(idx(numbers)[:7])
    with pytest.raises(UsageError, match="d: not an IDX file"):
        read_idx(tmp_path / "d")
    (tmp_path / "e").write_bytes(gzip.compress(idx(numbers))[:20])
    with pytest.raises(UsageError, match="e: Compressed file ended"):
        read_idx(tmp_path / "e")
    (tmp_path / "c").write_bytes(b"P5 28 28")
    with pytest.raises(UsageError, match="c: not an IDX file"):
        read_idx(tmp_path / "c")
    mnist(tmp_path)
    assert "200 images to train on, 60 to test on" in digits(0, 50, str(tmp_path)).title
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(UsageError, match=r"has shape \(60, 28, 28\), t10k-labels.* \(3,\)"):
        read_mnist(str(tmp_path))


@pytest.mark.slow
def test_folders_of_texts_are_kinds(tmp_path):
    rng = np.random.default_rng(0)
    for kind, letters in (("vowels", "aeiou "), ("rest", "bcdfg ")):
        (tmp_path / "texts" / kind).mkdir(parents=True)
        for i in range(3):
            text = "".join(rng.choice(list(letters), 4000))
            (tmp_path / "texts" / kind / f"{i}.txt").write_text(text)
    flags = "--data texts --steps 20 --batch-size 16 --run here --devices 1 --watch 0"
    out = done(f"train --task text {flags}", tmp_path)
    assert "of 2 kinds (rest, vowels)" in out
    assert number(table(out, "adamx.adamw")["test accuracy"][0]) > 90


def test_too_little_text_is_refused(tmp_path):
    for task in ("text", "source", "digits"):
        said = refused(f"train --task {task} --data {tmp_path / 'no'}")
        assert (
            f"--data {tmp_path / 'no'}: there is no such folder; name one or leave --data" in said
        )
    (tmp_path / "texts").mkdir()
    for i in range(3):
        (tmp_path / f"texts/{i}.txt").write_text(1000 * "text")
    said = refused(f"train --task text --data {tmp_path / 'texts'}")
    assert f"--data {tmp_path / 'texts'}: --task text needs at least two folders in it" in said
    said = refused(f"train --data {tmp_path / 'texts'}")
    assert "--data" in said
    assert "are too few: add text, --task source takes 8,256 of each" in said
    (tmp_path / "texts/3.txt").write_text(8255 * "x")  # the fourth is held out
    (tmp_path / "texts/4.txt").write_text(9000 * "x")
    said = refused(f"train --data {tmp_path / 'texts'}")
    assert "and 8,255 held out are too few" in said
    (tmp_path / "texts/3.txt").write_text(8256 * "x")
    done(
        f"train --data {tmp_path / 'texts'} --steps 1 --batch-size 1 --watch 0 --devices 1",
        tmp_path,
    )


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--landing kahan", "--landing kahan does nothing for float32 parameters"),
        ("--zero", "--zero does nothing on one device"),
    ],
)
def test_a_flag_that_does_nothing_is_named_in_one_line(flags, said, tmp_path):
    short = "train --task regression --steps 2 --watch 0 --devices 1"
    assert done(f"{short} {flags}", tmp_path).count(said) == 1


def test_flags_that_do_something_are_not_noted():
    assert without_effect(Settings(), 1) == []
    assert without_effect(Settings(landing="kahan", dtype="bfloat16", zero=True), 2) == []


# Export


def shown_losses(out):
    return [float(line.split("loss ")[1].split()[0]) for line in out.splitlines() if "loss" in line]


@pytest.mark.slow
def test_an_exported_step_goes_on_training_in_a_process_without_the_model(tmp_path):
    flags = (
        "--task regression --storage int8 --dtype bfloat16 --landing exact --rewind --skip-spikes"
        " --watch 0"
    )
    done(f"train {flags} --steps 30 --devices 1 --run here --export step.bin", tmp_path)
    code, out, err = ended(start("run-exported step.bin --steps 40 --out more.bin", tmp_path))
    assert (code, err) == (0, "")
    assert "after 30 steps" in out
    assert shown_losses(out)[-1] < np.mean([loss for _, loss in losses(tmp_path / "here")[:5]]) / 2
    again = done("run-exported more.bin --steps 1", tmp_path)
    assert "after 70 steps" in again


@pytest.mark.slow
def test_a_step_trained_on_many_devices_is_exported_for_one(tmp_path):
    flags = "--task regression --steps 4 --devices 2 --zero --storage int8"
    done(f"train {flags} --run here --export step.bin", tmp_path)
    assert "after 4 steps" in done("run-exported step.bin --steps 2", tmp_path)


@pytest.mark.slow
def test_an_exported_step_is_the_step(tmp_path, caplog):
    """The same batches, the same numbers, to the last digit that programs of XLA share."""
    flags = "--task digits --devices 1 --watch 0"
    done(f"train {flags} --steps 20 --run a --export step.bin", tmp_path)
    done(f"train {flags} --steps 23 --run b", tmp_path)
    with jax.log_compiles():
        shown = shown_losses(done("run-exported step.bin --steps 3 --out more.bin", tmp_path))
    assert sum("compilation of jit(call)" in said for said in caplog.messages) == 1
    want = [loss for step, loss in losses(tmp_path / "b") if step > 20]
    np.testing.assert_allclose(shown, want, atol=1e-4)  # four digits are shown
    assert "after 23 steps" in done("run-exported more.bin --steps 1", tmp_path)


def test_what_cannot_be_exported_or_read_is_refused(tmp_path):
    said = refused("train --task digits --export none/x.bin", tmp_path)
    assert "there is no such folder" in said
    assert "cannot write .: it is a folder" in refused("train --task digits --export .", tmp_path)
    assert not list(tmp_path.iterdir())  # before the training, not after it
    (tmp_path / "x.csv").mkdir()
    assert "x.csv: it is a folder" in refused("compare --results x.csv", tmp_path)
    (tmp_path / "x.bin").write_bytes(b"nothing")
    said = refused("run-exported x.bin", tmp_path)
    assert "x.bin: not a file of `train --export`" in said
    said = refused("run-exported x.bin --out none/y.bin", tmp_path)
    assert "there is no such folder" in said


def test_what_may_not_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    def access(path, mode):
        return Path(path) not in (tmp_path, tmp_path / "x.csv")

    (tmp_path / "x.csv").touch()
    monkeypatch.setattr(os, "access", access)
    for line, name in {
        "train --task digits --export x.bin": "x.bin",
        "compare --results x.csv": "x.csv",
        "compare --picture x.png": "x.png",
        "convert-state a.pt moved": "moved",
    }.items():
        assert f"cannot write {name}: Permission denied" in refused(line, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]
