# SPDX-License-Identifier: Apache-2.0
"""A sweep's runs are those that each optimizer makes by itself, and the best is the best."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.cli import main
from adamx.cli.compare.grid import Grid, grid_of
from adamx.cli.compare.halving import cost, rungs_of
from adamx.cli.compare.results import advice, around, write
from adamx.cli.compare.sweep import HELD_OUT, OPTIMIZERS, OTHERS, Sweep, builder, sweep
from adamx.cli.flags import UsageError
from adamx.cli.tasks import digits, find
from adamx.optimizers.recipe import TABLE
from tests.cli.commands import done, number, table
from tests.products import some_slow


def alone(task, opt, steps):
    """The held-out loss of one run."""
    params, state = task.params, opt.init(task.params)
    step = jax.jit(lambda p, s, b: adamx.step(opt, p, s, jax.grad(task.loss)(p, b)))
    for i in range(steps):
        params, state = step(params, state, task.batch(i))
    return float(task.glance(params))


def rates(*values):
    """A grid of learning rates alone."""
    return Grid({"learning_rate": np.array(values)})


def results(grid, losses):
    """A sweep whose runs all trained to the end with these losses."""
    return Sweep(grid, {HELD_OUT: losses}, np.full(len(losses), 10), losses)


@some_slow("name", ["adamw", "momentum"], ["momentum"])
def test_a_sweep_is_every_run_by_itself(name):
    tasks, values = [digits(seed, 32) for seed in (0, 1)], np.array([1e-3, 1e-2])
    others = {"weight_decay": np.array([0.0, 0.5]), "b2": np.array([0.9, 0.999])}
    grid = grid_of(builder(name), values, others if name == "adamw" else {})
    with jax.numpy_dtype_promotion("standard"):  # of Optax's own
        found = sweep(name, tasks, grid, rungs_of(len(grid.points["learning_rate"]), 6, 0))
        for point in (0, grid.shape[0] * 4 - 3 if name == "adamw" else 1):  # 1e-2, 0, .999
            hyper = {k: float(x[point]) for k, x in grid.points.items()}
            want = [alone(task, builder(name)(**hyper), 6) for task in tasks]
            # batched products sum in another order
            np.testing.assert_allclose(found.scores[HELD_OUT][point], want, 1e-4)
    assert found.losses.shape == (8 if name == "adamw" else 2, 2)


def valley():
    """A task on a parabola: SGD's loss is (1 - 2 rate)^(2 steps)."""
    make, _ = find("regression")

    def loss(params, batch, *, key=None):
        return jnp.sum(params**2)

    return make(0, 16)._replace(
        params=jnp.ones(()), loss=loss, glance=loss_of, scores=lambda p: {"loss": 0.0}, random=False
    )


def loss_of(params):
    return jnp.sum(params**2)


def test_the_better_half_goes_on_and_the_rest_stops():
    values = np.array([1e-3, 0.01, 0.1, 0.3, 0.45, 1.2, 30.0, 1e6])
    rungs = rungs_of(8, steps=8, halvings=2)
    found = sweep("sgd", [valley(), valley()], rates(*values), rungs)
    whole = sweep("sgd", [valley(), valley()], rates(*values), rungs_of(8, 8, 0))
    with np.errstate(all="ignore"):
        after = [[(1 - 2 * r) ** (2 * t) for r in values] for t in (2, 4, 8)]
    order = np.argsort(after[0])[:4]
    last = order[np.argsort(np.array(after[1])[order])][:2]
    want = [8 if i in last else 4 if i in order else 2 for i in range(8)]
    np.testing.assert_array_equal(found.reached, want)
    np.testing.assert_allclose(found.losses[last, 0], np.array(after[2])[last], 1e-4)
    np.testing.assert_array_equal(found.scores[HELD_OUT][last], whole.scores[HELD_OUT][last])
    assert np.isnan(found.scores[HELD_OUT][0]).all()  # dropped
    np.testing.assert_allclose(found.losses[0], after[0][0], 1e-5)  # but known
    assert found.best == whole.best == 4
    assert cost(rungs) == 8 * 2 + 4 * 2 + 2 * 4


def test_those_that_are_left_go_on_with_the_next_batches():
    counting = valley()._replace(
        params=jnp.zeros(()),
        batch=lambda i: jnp.float32(i),
        loss=lambda params, batch: -params * batch,
        glance=lambda params: -params,
    )
    found = sweep("sgd", [counting], rates(0.5, 1.0), rungs_of(2, steps=6, halvings=1))
    np.testing.assert_allclose(found.losses[:, 0], [-0.5 * (0 + 1 + 2), -(0 + 1 + 2 + 3 + 4 + 5)])


def test_what_diverges_stands_still_and_is_dropped_first():
    values = np.array([0.1, 0.2, 0.3, 1e30])
    found = sweep("sgd", [valley()], rates(*values), rungs_of(4, steps=4, halvings=1))
    assert list(np.isnan(found.losses[:, 0])) == [False, False, False, True]
    assert list(found.reached) == [2, 4, 4, 2]
    seen = []
    watching = valley()._replace(glance=lambda params: seen.append(float(params)) or params)
    alone = sweep("sgd", [watching], rates(1e30), rungs_of(1, steps=4, halvings=0))
    assert np.isnan(alone.scores[HELD_OUT]).all()
    assert np.isfinite(seen).all()  # where it was when it diverged


def test_a_sweep_hands_random_losses_a_key_for_each_seed_and_step():
    make, _ = find("regression")
    # Its gradient is the drawn number itself, so that SGD adds them up.
    adds_up = make(0, 16)._replace(
        params=jnp.zeros(()),
        loss=lambda params, batch, *, key: -params * jax.random.uniform(key),
        glance=lambda params: params,
        scores=lambda params: {"loss": 0.0},
    )
    found = sweep("sgd", [adds_up] * 2, rates(1.0), rungs_of(1, 64, 0))
    one, other = found.scores[HELD_OUT][0]
    assert one != other
    # The sum of 64 has a standard deviation of 2.3; 64 times one number, of 18.
    np.testing.assert_allclose([one, other], 32, atol=7)


def test_what_never_trains_comes_last(monkeypatch, capsys):
    found = {"sgd": np.nan, "adam": 0.5, "lion": 0.1}

    def swept(name, *_):
        return results(rates(1.0), np.full((1, 2), found[name]))

    monkeypatch.setattr("adamx.cli.compare.command.sweep", swept)
    assert main(["compare", "--optimizers", "adam,sgd,lion", "--seeds", "1"]) == 0
    out = capsys.readouterr().out
    rows = table(out[: out.index("sgd: every setting")], "best rate")
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
    rows = table(out[: out.index("setting")], "best rate")
    assert rows["adamw"][0] in ("0.01", "0.001")
    assert 0 < number(rows["adamw"][1].split(" ")[0]) < 1


def test_a_rate_that_breaks_down_is_never_the_best():
    losses = np.array([[1.0, 1.2], [0.5, 0.6], [0.1, np.nan], [0.55, 3.0]])
    found = results(rates(1e-3, 1e-2, 1e-1, 1.0), losses)
    assert found.best == 1
    assert list(found.trains) == [False, True, False, False]


def test_nothing_is_the_best_of_what_diverged(monkeypatch, capsys, tmp_path):
    found = results(rates(1e-3, 1e-2), np.full((2, 1), np.nan))
    early = found._replace(losses=np.array([[0.5], [np.nan]]))  # dropped before the other's end
    monkeypatch.setattr("adamx.cli.compare.command.sweep", lambda *_: early)
    flags = ["--optimizers", "adam", "--seeds", "1", "--results", str(tmp_path / "runs.json")]
    assert main(["compare", *flags]) == 0
    out = capsys.readouterr().out
    assert "adam: every setting diverged: there is no best one" in out
    assert not [said for said in ("widen it", "below", "0.001") if said in out]
    best = json.loads((tmp_path / "runs.json").read_text())["best"]["adam"]
    assert best == {"learning_rate": None, HELD_OUT: None, "deviation": None, "edges": {}}


def test_neighbours_and_edges_of_a_grid():
    axes = {"learning_rate": [0.1, 0.2, 0.4], "weight_decay": [0.0, 0.1], "b2": [0.9]}
    grid = Grid({k: np.array(x) for k, x in axes.items()})
    assert grid.neighbours(3) == {"learning_rate": (1, 5), "weight_decay": (2, None)}
    assert grid.edges(3) == {"weight_decay": "upper"}
    assert grid.edges(0) == {"learning_rate": "lower"}  # no decay is below 0
    assert grid.edges(2) == {}
    assert [float(x[3]) for x in grid.points.values()] == [0.2, 0.1, 0.9]


def test_a_b2_keeps_its_digits():
    axes = {"learning_rate": np.array([0.1]), "b2": np.array([0.999, 0.9999])}
    found = results(Grid(axes), np.array([[2.0], [1.0]]))
    assert around("adam", found) == [["adam", "b2", "0.999: 2", "0.9999: 1", "", "upper"]]
    assert advice("adam", found) == [
        "adam: the best b2 is the upper edge of the grid, 0.9999: widen it"
    ]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_has_as_many_runs(name):
    others = {"weight_decay": np.array([0.0, 0.1]), "b2": np.array([0.9, 0.99, 0.999])}
    grid = grid_of(builder(name), np.array([0.01, 0.1, 1.0]), others)
    points = grid.points["learning_rate"]
    assert len(points) == 18
    assert (points.min(), points.max()) == pytest.approx((0.01, 1.0))
    assert ("b2" in grid.axes) <= (name not in OTHERS)


def test_compare_tunes_prints_neighbours_and_writes_files(tmp_path):
    picture, sheet, file = (tmp_path / f"compare.{end}" for end in ("png", "csv", "json"))
    flags = (
        "compare --optimizers sgd,adamw --steps 8 --seeds 2 --batch-size 32 --halvings 1 "
        "--learning-rates 1e-6,1e-5,1e-3 --weight-decays 0,0.1"
    )
    out = done(f"{flags} --picture {picture} --results {file}")
    assert "2 optimizers x 12 runs, 72 steps each" in out
    rows = table(out[out.index("best rate") - 20 : out.index("setting")], "best rate")
    assert list(rows)[:2] == ["adamw", "sgd"]
    assert len(rows["sgd"]) < len(rows["adamw"])  # it has no decay
    assert number(rows["adamw"][2].split(" ")[0]) < 2.4
    assert "the best learning_rate is the upper edge of the grid, 0.001: widen it" in out
    beside = table(out[out.index("setting") - 20 :], "setting")["adamw"]
    assert beside[0] in ("learning_rate", "weight_decay")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    found = json.loads(file.read_text())
    assert (found["steps"], found["seeds"], found["halvings"]) == (8, 2, 1)
    assert found["best"]["adamw"]["edges"]["learning_rate"] == "upper"
    runs = found["runs"]
    assert len(runs) == 24
    assert sorted({run["steps"] for run in runs}) == [4, 8]
    best = [run for run in runs if run["optimizer"] == "adamw" and run["steps"] == 8]
    losses = [run[HELD_OUT] for run in best if run["learning_rate"] == 1e-3]
    assert min(losses) < found["best"]["adamw"][HELD_OUT] < max(losses)
    write(str(sheet), {}, {"sgd": results(rates(0.1, 0.2), np.array([[1.0, np.nan], [2.0, 3.0]]))})
    lines = list(csv.DictReader(sheet.read_text().splitlines()))
    assert [line[HELD_OUT] for line in lines] == ["1.0", "", "2.0", "3.0"]
    assert lines[3] | {HELD_OUT: ""} == dict(
        zip(lines[3], ["sgd", "0.2", "1", "10", ""], strict=True)
    )


def test_a_glance_that_is_not_of_jax_is_refused_with_halvings():
    task = valley()._replace(glance=float)
    with pytest.raises(UsageError, match="--halvings ranks by held-out losses inside"):
        sweep("sgd", [task], rates(0.1, 0.2), rungs_of(2, steps=2, halvings=1))
    assert sweep("sgd", [task], rates(0.1, 0.2), rungs_of(2, steps=2, halvings=0)).best == 1


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--picture x.txt", "--picture must end in .png, .svg, .pdf, got 'x.txt'"),
        ("--picture none/x.png", "there is no such folder"),
        ("--batch-size 2000", "--batch-size must be at most 1437"),
        ("--results x.txt", "--results must end in .csv, .json, got 'x.txt'"),
        ("--b2s 0.9,1", "--b2s must be below 1, got 1"),
        ("--halvings 4", "--halvings 4 needs at least 16 points on the grid, got 10"),
        ("--halvings 3 --steps 5", "--halvings 3 needs at least 8 steps, got 5"),
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
    assert sorted(OPTIMIZERS) == sorted({*OTHERS, *TABLE})
    assert len(OTHERS) == 5
