# SPDX-License-Identifier: Apache-2.0
"""What `python -m adamx` says of itself; the examples of each `--help`, run as they stand."""

import re

import pytest

from adamx import health
from adamx.cli import COMMANDS, main
from tests.cli.commands import done, here, start, without_plugin

LONG = {"train", "compare", "bench", "run-exported"}  # seconds each: they compile a training


def examples(name):
    """The command lines that a command's help shows, without `python -m adamx`."""
    return re.findall(r"^ {4}python -m adamx (.+)$", COMMANDS[name].__doc__ or "", re.MULTILINE)


def test_alone_it_greets_in_ten_lines():
    code, out, err = here("")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 10
    assert [line.split()[0] for line in lines[1:9]] == list(COMMANDS)
    assert max(map(len, lines)) <= 80


def test_a_reader_that_leaves_is_no_error():
    """As `| head` does."""
    process = start("plan gpt2")
    process.stdout.close()
    assert without_plugin(process.stderr.read()) == ""
    assert process.wait() == 141  # as of a signal that a broken pipe sends
    process.stderr.close()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert examples(name)
    for line in examples(name):
        assert line.split()[0] == name
        assert f"    python -m adamx {line}\n" in said


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - LONG))
def test_short_examples_run(name, tmp_path):
    if name == "report":
        (tmp_path / "runs/first").mkdir(parents=True)
        with health.JsonLines(tmp_path / "runs/first/run.jsonl") as log:
            for step in range(1, 4):
                log.write(step, {"loss": 1 / step})
    if name == "convert-state":
        torch_checkpoint(tmp_path)
    for line in examples(name):
        assert done(line, tmp_path)


@pytest.mark.slow
@pytest.mark.optimized  # they train
def test_long_examples_run_one_after_the_other(tmp_path):
    for name in sorted(LONG, key=lambda name: (name != "train", name)):  # which writes for others
        for line in examples(name):
            code, out, _ = here(line, tmp_path)
            assert (code, bool(out)) == (0, True), line
    assert done(*examples("report"), tmp_path)


def torch_checkpoint(folder):
    torch = pytest.importorskip("torch")
    pytest.importorskip("orbax.checkpoint")
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    both = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(both, folder / "checkpoint.pt")
