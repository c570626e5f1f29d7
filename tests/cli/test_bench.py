# SPDX-License-Identifier: Apache-2.0
"""The command line: whole commands, and their parts one by one."""

import json
import re
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.cli import main
from adamx.cli.bench.equations import count_equations
from adamx.cli.bench.scoreboard import UNITS, scoreboard, stacked
from adamx.cli.bench.timing import in_turn, ratios
from adamx.cli.flags import UsageError, names_among, numbers
from adamx.cli.names import RECIPES, STORAGES, offered, ours, reference, theirs
from adamx.cli.progress import progress
from adamx.cli.shapes import TREES
from adamx.cli.tasks import digits
from adamx.core.tables import as_markdown, as_text
from tests.cli.commands import done, ended, here, number, start, table

# Whole commands


def test_bench_prints_every_measure_and_keeps_every_sample(tmp_path: Path):
    file = tmp_path / "bench.json"
    line = f"bench --quick --trees small --repeats 2 --storages float32 --json {file}"
    code, out, err = here(line)
    assert (code, err) == (0, "measuring adamw on small ...\n")
    name = " ".join(out.partition("\n\n")[0].splitlines())
    assert "cores" in name
    assert f"jax {jax.__version__}" in name
    assert f"optax {optax.__version__}" in name
    assert max(map(len, out.splitlines())) <= 80
    assert "adamw on small: 1,360 parameters in 10 leaves" in out
    rows = table(out, "adamx float32")
    assert [row.partition(" [")[0] for row in rows if row != "header"] == list(UNITS)
    mine, theirs = number(rows["equations"][1]), number(rows["equations"][0])
    assert rows["equations"][2] == f"{mine / theirs:.2f}"

    kept = json.loads(file.read_text())
    assert kept["machine"] == name
    samples = kept["results"][0]["samples"]
    for contestant in ("adamx float32", "optax"):
        assert set(samples[contestant]) == set(UNITS)
        assert len(samples[contestant]["jitted step"]) == 2
        assert all(s > 0 for s in samples[contestant]["eager update"])


@pytest.mark.slow
def test_bench_measures_handing_over_to_devices():
    out = done("bench --devices 2 --quick --repeats 1")
    assert "adamw: 10 small leaves on 2 devices" in out
    lines = [line for line in out.splitlines() if line.startswith(("jit", "shard", "pmap"))]
    assert [line.split("  ")[0] for line in lines] == [
        "jit", "jit, ZeRO-1", "shard_map", "shard_map, ZeRO-1", "pmap", "pmap, ZeRO-1",
    ]  # fmt: skip


@pytest.mark.slow
def test_bench_measures_observing_and_guarding():
    out = done("bench --guards --quick --repeats 1 --markdown")
    rows = [line.split("|")[1].strip() for line in out.splitlines() if "|" in line]
    for name in ("nothing", "observe(every=100)", "skip_spikes", "rewind"):
        assert name in rows


def test_a_wrong_flag_in_a_real_process_is_one_sentence_and_code_2():
    code, out, err = ended(start("train --stepz 5"))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "--stepz" in err


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"adamx {adamx.__version__}\n"


def test_lists_may_have_spaces_after_their_commas():
    assert numbers("1e-2, 1e-3") == [1e-3, 1e-2]
    assert names_among(["adam", "lion"])("lion, adam") == ["lion", "adam"]


def test_interrupted_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("adamx.cli.train.command.find", interrupted)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "python -m adamx train: interrupted\n"


# Refusals


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian", "'trian'"),
        ("train --recipe sgd", "'sgd'"),
        ("train --storage int7", "'int7'"),
        ("train --compare torch", "'torch'"),
        ("train --steps", "--steps: expected one argument"),
        ("train --steps 0", "--steps: must be a whole number, at least 1, got '0'"),
        ("train --steps 2.5", "--steps: must be a whole number, at least 1, got '2.5'"),
        ("train --batch-size -4", "--batch-size"),
        ("train --seed -1", "--seed: must be a whole number, from 0 to 4294967295, got '-1'"),
        ("train --seed 4294967296", "--seed"),
        ("train --learning-rate nan", "--learning-rate: must be a finite number"),
        ("train --learning-rate inf", "--learning-rate"),
        ("train --weight-decay -0.1", "--weight-decay"),
        ("train --weight-decay much", "--weight-decay"),
        ("train --pace 5", "--pace"),
        ("train --clip -1", "--clip: must be a finite number of at least 0"),
        ("train --schedule round", "'round'"),
        ("train --dtype int8", "'int8'"),
        ("train --watch -1", "--watch: must be a whole number, at least 0"),
        ("train 5", "unrecognized arguments: 5"),
        ("bench --trees small,oak", "'oak' is not one of: one, gpt2, leaves, small"),
        ("bench --trees=", "'' is not one of"),
        ("bench --recipes sgd", "'sgd'"),
        ("bench --storages int7", "'int7'"),
        ("bench --repeats 0", "--repeats"),
        ("bench --json", "--json: expected one argument"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("python -m adamx")
    assert printed.err.count("\n") == 1
    assert said in printed.err


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence with which a well-formed command line is refused."""
    assert main(words) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith(f"python -m adamx {words[0]}: ")
    assert sentence.count("\n") == 1
    return sentence


def test_a_batch_larger_than_the_training_set_is_refused(capsys: pytest.CaptureFixture[str]):
    words = "train --task digits --batch-size 1438".split()
    assert "at most 1437" in refusal(words, capsys)


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--processes 2", "--coordinator, --processes and --process go together"),
        (
            "--distributed --run x --coordinator a:1 --processes 2",
            "go together, with --distributed",
        ),
        (
            "--distributed --run x --coordinator a:1 --processes 2 --process 2",
            "must be below --processes",
        ),
        ("--resume --compare optax", "--resume goes on with our run only: add --compare none"),
        ("--resume", "--resume: there is no runs/digits-N"),
        ("--task oak", "--task must be one of source, digits"),
        ("--task oak:make", "--task oak:make: No module named 'oak'"),
        ("--task json:make", "has no attribute 'make'"),
        ("--task json:decoder", "--task json:decoder: decoder is not a function"),
        ("--task :make", "--task :make: Empty module name"),
        ("--task regression --data .", "regression makes its own data"),
        ("--data .", "there is no train-images-idx3-ubyte in it"),
        ("--distributed", "--distributed needs --run DIR"),
        ("--devices 9", "--devices 9: this process has 8"),
        (
            "--devices 3 --batch-size 128",
            "--batch-size 128 does not divide over 3 devices: take --batch-size 129 or --devices 2",
        ),
        (
            "--devices 8 --batch-size 7",
            "--batch-size 7 does not divide over 8 devices: take --batch-size 8 or --devices 7",
        ),
    ],
)
def test_what_cannot_be_spread_or_kept_is_refused(
    flags: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.chdir(tmp_path)
    assert jax.device_count() == 8  # before the command may ask for others
    words = ["--task", "digits", *flags.split()]
    assert said in refusal(["train", *words], capsys)


def test_a_decay_that_optax_lacks_is_refused_with_the_way_out(capsys: pytest.CaptureFixture[str]):
    words = "train --task digits --recipe adam --weight-decay 0.1 --compare optax"
    said = refusal(words.split(), capsys)
    assert "optax.adam has no weight_decay" in said
    assert "--compare none" in said


def test_what_a_recipe_refuses_is_refused_in_its_own_words():
    with pytest.raises(UsageError, match="b1"):
        ours("adam", learning_rate=1e-3, b1=1.5)


@pytest.mark.parametrize("flag", ["--devices 2", "--trees small"])
def test_guards_are_measured_on_trees_of_their_own(flag: str, capsys: pytest.CaptureFixture[str]):
    assert "exclude each other, --trees and --json" in refusal(
        ["bench", "--guards", *flag.split()], capsys
    )


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    missing = str(tmp_path / "missing" / "bench.json")
    assert f"cannot write {missing}" in refusal(["bench", "--json", missing], capsys)


def test_missing_orbax_is_a_sentence_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    said = refusal(["train", "--task", "digits", "--run", str(tmp_path)], capsys)
    assert 'pip install "adamx[checkpoint]"' in said


def test_missing_scikit_learn_is_a_sentence_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    said = refusal(["train", "--task", "digits"], capsys)
    assert "scikit-learn is not installed" in said
    assert 'pip install "adamx[demo]"' in said


def test_missing_rich_matters_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with progress("plain", 1, ("bytes", 1000)) as report:
        report(1, {"loss": 0.5, "rate": 1e-5})
    said = capsys.readouterr().out
    assert "plain  step 1/1  loss 0.5000  rate 1.0e-05  " in said
    assert "bytes/s  0.0 s left" in said
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(UsageError, match="rich is not installed; run: pip install"):
        progress("bar", 1).__enter__()


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("--help", "train compare bench plan report explain run-exported"),
        (
            "train --help",
            "--task --data --steps --batch-size --dtype --seed --compare --recipe --storage "
            "--landing --learning-rate --schedule --weight-decay --clip --skip-nonfinite "
            "--skip-spikes --loss-scale --rewind --watch --devices --how --zero --distributed "
            "--run --save-every --resume --export",
        ),
        (
            "bench --help",
            "--trees --recipes --storages --landings --target --devices --guards --repeats --quick "
            "--markdown --json",
        ),
        (
            "compare --help",
            "--optimizers --steps --seeds --batch-size --picture --markdown",
        ),
        ("report --help", "FILE --out --title"),
        ("explain --help", "A B torch.AdamW optax.adamw"),
        ("run-exported --help", "FILE --steps --out"),
        (
            "plan --help",
            "SOURCE --recipe --dtype --storages --landings --mesh --zero --markdown --json",
        ),
    ],
)
def test_help_names_every_flag(words: str, flags: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in flags.split())


# Parts


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_on_offer_exists_on_both_sides(recipe: str, storage: str):
    if storage in offered(recipe, "storage", STORAGES):
        made = ours(recipe, learning_rate=1e-3, storage=storage, weight_decay=0.1)
        assert isinstance(made, optax.GradientTransformationExtraArgs)
    else:
        with pytest.raises(UsageError, match="storage"):
            ours(recipe, learning_rate=1e-3, storage=storage)
    assert isinstance(theirs(reference(recipe), learning_rate=1e-3), optax.GradientTransformation)


def test_an_argument_that_a_recipe_lacks_is_an_error_that_names_its_flag():
    with pytest.raises(UsageError, match="lion has no eps_root: leave --eps-root out"):
        ours("lion", learning_rate=1e-3, eps_root=1e-3)
    with pytest.raises(UsageError, match="`storage` is of the momentum"):
        ours("adafactor", learning_rate=1e-3, storage="int8")
    assert offered("adafactor", "storage", STORAGES) == ["float32"]
    assert reference("came") == "adamw"


def test_one_seed_fixes_split_parameters_and_batches():
    first, again, other = (digits(seed, 32) for seed in (1, 1, 2))
    for step in (0, 3, 44, 200):  # of several passes over the data
        one, two = first.batch(step), again.batch(step)
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    seen = np.concatenate([first.batch(step)[0] for step in range(1437 // 32)])
    assert len(np.unique(seen, axis=0)) == len(seen)
    assert not np.array_equal(first.batch(0)[0], first.batch(1437 // 32)[0])
    assert (first.batch(0)[0] != other.batch(0)[0]).any()
    np.testing.assert_array_equal(first.params[0]["kernel"], again.params[0]["kernel"])
    assert (first.params[0]["kernel"] != other.params[0]["kernel"]).any()


@pytest.mark.parametrize(
    ("name", "leaves", "parameters"),
    [("one", 1, 33_554_432), ("gpt2", 148, 124_439_808), ("leaves", 1000, 136_000)],
)
def test_benchmark_trees_have_the_sizes_they_claim(name: str, leaves: int, parameters: int):
    shapes = TREES[name]().values()
    assert len(shapes) == leaves
    assert sum(np.prod(shape) for shape in shapes) == parameters


@pytest.mark.parametrize("outer", [lambda f: f, jax.jit])
def test_equations_of_an_inner_function_count_once(outer):
    twice_plus_one = jax.jit(lambda x: 2.0 * x + 1.0)

    def update(updates, state, params=None):
        return jax.tree.map(twice_plus_one, updates), state

    opt = optax.GradientTransformation(lambda params: optax.EmptyState(), outer(update))
    leaf = jax.ShapeDtypeStruct((4,), jnp.float32)
    # Three calls, and a product and a sum inside the one function.
    assert count_equations(opt, [leaf] * 3) == (3, 5)


def test_contestants_take_turns_and_the_order_turns_round():
    turns: list[str] = []

    def slow(name: str):
        return lambda: (turns.append(name), time.sleep(0.06))  # longer than a sample: one call each

    samples = in_turn({"a": slow("a"), "b": slow("b")}, repeats=4)
    assert [len(s) for s in samples.values()] == [4, 4]
    assert "".join(turns) == "aabb" + "baabbaab"  # each is tried out twice first


def test_a_ratio_is_the_median_over_rounds():
    # The machine was ten times slower in the second round: each round's ratio does not see it.
    fast, slow = [1.0, 20.0, 1.0], [2.0, 40.0, 8.0]
    assert ratios(slow, fast) == [2.0, 2.0, 8.0]
    samples = {"ours": dict.fromkeys(UNITS, slow), "optax": dict.fromkeys(UNITS, fast)}
    header, rows = scoreboard(samples)
    assert header == ["", "optax", "ours", "/ optax"]
    cells = dict(zip(UNITS, rows, strict=True))
    assert cells["equations"][1:] == ["1", "8", "2.00"]
    assert cells["jitted step"] == ["jitted step [ms]", "1,000", "8,000", "2.00 (2.00 to 5.00)"]


def test_a_measure_that_a_contestant_lacks_leaves_its_cells_empty():
    samples = {"optax": {m: [1.0] * 3 for m in UNITS}, "torch": {"jitted step": [3.0] * 3}}
    cells = dict(zip(UNITS, scoreboard(samples)[1], strict=True))
    assert cells["trace"][2:] == ["", ""]
    assert cells["jitted step"][2:] == ["3,000", "3.00 (3.00 to 3.00)"]


def test_two_samples_have_no_quartiles():
    samples = {"optax": {m: [1.0] * 2 for m in UNITS}, "torch": {"jitted step": [3.0] * 2}}
    cells = dict(zip(UNITS, scoreboard(samples)[1], strict=True))
    assert cells["jitted step"][2:] == ["3,000", "3.00"]


def test_a_scoreboard_is_cut_into_tables_of_eighty_columns():
    ours = {f"adamx {name}": {m: [2.0] * 3 for m in UNITS} for name in STORAGES}
    header, rows = scoreboard({"optax": {m: [1.0] * 3 for m in UNITS}} | ours)
    tables = [part.splitlines() for part in stacked(header, rows).split("\n\n")]
    assert all(len(line) <= 80 for lines in tables for line in lines)
    heads = [word for lines in tables for word in re.split("  +", lines[0].strip())]
    assert heads == header[1:]
    assert all(lines[2].startswith("equations ") for lines in tables)


def test_tables_align_labels_left_and_numbers_right():
    header, rows = ["", "a"], [["x", "1"], ["long", "20"]]
    assert as_text(header, rows) == "       a\n----  --\nx      1\nlong  20"
    assert as_markdown(header, rows).splitlines() == [
        "|      |  a |",
        "| ---- | -: |",
        "| x    |  1 |",
        "| long | 20 |",
    ]
