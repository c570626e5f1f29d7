# SPDX-License-Identifier: Apache-2.0
"""A sweep's runs are those that each optimizer makes by itself, and the best is the best."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.cli import main
from adamx.cli.compare.sweep import HELD_OUT, OPTIMIZERS, Sweep, sweep
from adamx.cli.tasks import digits, find
from tests.cli.commands import done, number, table


def alone(task, opt, steps):
    """The held-out loss of one run."""
    params, state = task.params, opt.init(task.params)
    step = jax.jit(lambda p, s, b: adamx.step(opt, p, s, jax.grad(task.loss)(p, b)))
    for i in range(steps):
        params, state = step(params, state, task.batch(i))
    return float(task.glance(params))


@pytest.mark.parametrize("name, opt", [("adam", adamx.adam), ("momentum", None)])
def test_a_sweep_is_every_run_by_itself(name, opt):
    opt = opt or (lambda rate: optax.sgd(rate, momentum=0.9))
    tasks, rates = [digits(seed, 32) for seed in (0, 1)], np.array([1e-3, 1e-2])
    with jax.numpy_dtype_promotion("standard"):  # of Optax's own
        found = sweep(name, tasks, rates, steps=6).scores[HELD_OUT]
        want = [[alone(task, opt(float(rate)), 6) for task in tasks] for rate in rates]
    np.testing.assert_allclose(found, want, 1e-4)  # batched products sum in another order


def test_a_sweep_hands_random_losses_a_key_for_each_seed_and_step():
    make, _ = find("regression")
    # Its gradient is the drawn number itself, so that SGD adds them up.
    adds_up = make(0, 16)._replace(
        params=jnp.zeros(()),
        loss=lambda params, batch, *, key: -params * jax.random.uniform(key),
        glance=lambda params: params,
        scores=lambda params: {"loss": 0.0},
    )
    one, other = sweep("sgd", [adds_up] * 2, np.array([1.0]), steps=64).scores[HELD_OUT][0]
    assert one != other
    # The sum of 64 has a standard deviation of 2.3; 64 times one number, of 18.
    np.testing.assert_allclose([one, other], 32, atol=7)


def test_what_never_trains_comes_last(monkeypatch, capsys):
    found = {"sgd": np.nan, "adam": 0.5, "lion": 0.1}
    rates = np.array([1.0])

    def swept(name, *_):
        return Sweep(rates, {HELD_OUT: np.full((1, 2), found[name])})

    monkeypatch.setattr("adamx.cli.compare.command.sweep", swept)
    assert main(["compare", "--optimizers", "adam,sgd,lion", "--seeds", "1"]) == 0
    rows = table(capsys.readouterr().out, "best rate")
    assert [name for name in rows if name != "header"] == ["lion", "adam", "sgd"]
    assert main(["compare", "--optimizers", "adam,lion", "--seeds", "1", "--markdown"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["lion", "adam"]


@pytest.mark.slow
def test_compare_takes_any_task_and_rates():
    out = done(
        "compare --task regression --optimizers adagrad,adamw --steps 30 --seeds 1 "
        "--learning-rates 0.01,0.001"
    )
    assert "MLP 10-128-128-1 with dropout 0.1" in out
    assert "2 optimizers x 2 runs" in out
    rows = table(out, "best rate")
    assert rows["adamw"][0] in ("0.01", "0.001")
    assert 0 < number(rows["adamw"][1].split(" ")[0]) < 1


def test_a_rate_that_breaks_down_is_never_the_best():
    losses = np.array([[1.0, 1.2], [0.5, 0.6], [0.1, np.nan], [0.55, 3.0]])
    found = Sweep(np.array([1e-3, 1e-2, 1e-1, 1.0]), {HELD_OUT: losses})
    assert found.best == 1
    assert list(found.trains) == [False, True, False, False]


def test_compare_prints_the_best_first_and_writes_a_picture(tmp_path):
    file = tmp_path / "compare.png"
    out = done(
        f"compare --optimizers sgd,adam,lion --steps 20 --seeds 2 --batch-size 32 --picture {file}"
    )
    assert "3 optimizers x 20 runs" in out
    text = out[out.index("best rate") - 20 :]
    rows = table(text, "best rate")
    rows.pop("header")
    losses = [number(row[1].split(" ")[0]) for row in rows.values() if len(row) > 3]
    assert len(losses) == 3
    assert losses == sorted(losses)
    assert file.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--picture x.txt", "--picture must end in .png, .svg, .pdf, got 'x.txt'"),
        ("--picture none/x.png", "there is no such folder"),
        ("--batch-size 2000", "--batch-size must be at most 1437"),
        ("--task quadratic", "--task must be one of source, digits, digits-cnn, text, regression"),
    ],
)
def test_compare_refuses_in_one_sentence(flags, said, capsys):
    assert main(["compare", *flags.split()]) == 2
    assert said in capsys.readouterr().err


def test_compare_refuses_what_it_does_not_know(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--optimizers", "adam,sgdd"])
    assert "'sgdd' is not one of: sgd, momentum" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["compare", "--learning-rates", "0.1,high"])
    assert "must be a finite number of at least 0, got 'high'" in capsys.readouterr().err
    assert len(set(OPTIMIZERS)) == len(OPTIMIZERS) == 19
