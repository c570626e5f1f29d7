# SPDX-License-Identifier: Apache-2.0
"""The doctor finds what is wrong, says nothing of what is well, and never judges by one row."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx import health
from adamx.health.report.doctor import too_short
from adamx.health.report.rules import RULES
from tests.health import doctor_table, patients

# What is said, of figures that show it, beside figures that do not.
ILL = {
    "no gradient arrives": ({"grad_norm/decoder/0": 0.0}, {"grad_norm/decoder/0": 1e-9}),
    "all parameters are zero": (
        {"param_norm/layer": 0.0, "grad_norm/layer": 0.1},
        {"param_norm/layer": 1.0, "grad_norm/layer": 0.1},
    ),
    "42% of updates are lost to rounding": ({"lost/*/bias": 0.42}, {"lost/*/bias": 0.2}),
    "epsilon dominates in 30% of elements, the gradient RMS is 1e-09": (
        {"under_epsilon": 0.3, "grad_rms": 1e-9},
        {"under_epsilon": 0.01, "grad_rms": 1e-9},
    ),
    "at the largest value of their format": ({"at_ceiling": 0.5}, {"at_ceiling": 0.0}),
    "at the smallest value of their format": ({"at_floor": 0.5}, {"at_floor": 0.0}),
    "a step changes the parameters by 10.0%": ({"update_ratio": 0.1}, {"update_ratio": 1e-3}),
    "gradients are 3.0 times as large as before": ({"grad_drift": 2.0}, {"grad_drift": 0.5}),
    "100% of steps are clipped": ({"clip_rate": 1.0}, {"clip_rate": 0.9}),
    "the last 9 steps were skipped as spikes": ({"spikes_in_a_row": 9}, {"spikes_in_a_row": 1}),
    "unless the loss is scaled by 1e-03": ({"loss_scale": 2.0**-10}, {"loss_scale": 2.0**15}),
    "the last 4 steps were not finite": ({"skipped_in_a_row": 4}, {"skipped_in_a_row": 3}),
}


def found(history):
    return [str(finding) for finding in health.doctor(history)]


@pytest.mark.parametrize("said", ILL)
def test_the_doctor_sees_what_is_wrong_and_only_that(said):
    ill, well = ILL[said]
    (finding,) = health.doctor(ill)
    assert said in str(finding)
    assert finding.advice
    assert finding.where == next(iter(ill)).partition("/")[2]
    assert health.doctor(well) == []
    # One bad look among twenty is no illness, half of them are.
    name = next(iter(ill))
    assert health.doctor([{**well, name: ill[name]}] + [well] * 19) == []
    assert said in found([well] * 30 + [ill] * 20)[0]


def rows(**figures):
    """A history from the figures' values, which are repeated to one length."""
    count = max(len(values) for values in figures.values())
    return [
        {"step": 10 * i + 10} | {k.replace("__", "/"): v[i % len(v)] for k, v in figures.items()}
        for i in range(count)
    ]


OVER_TIME = {
    "the loss is 3.0 times that of early rows": rows(loss=[1.0] * 20 + [3.0] * 20),
    "no step changes the parameters by more than 1e-08": rows(update_ratio=[1e-8] * 40),
    "gradients are nearly all noise, and the loss does not fall": rows(
        loss=[1.0] * 40, noise_scale=[math.inf]
    ),
    "`embed`: 40% of elements get no gradient any more": rows(
        idle__embed=[0.1] * 20 + [0.5] * 20, idle=[0.0] * 20 + [0.35] * 20
    ),
    "the loss was 2 and is 6": rows(loss=[9.0] * 20 + [2.0, 2.1, 1.9] * 20 + [6.0, 6.3] * 10),
    "a step changes the parameters by 2.5%": rows(update_ratio=[0.025] * 40),
}
WELL = {
    "the loss falls": rows(loss=[2.0] * 20 + [1.0] * 20, noise_scale=[math.inf]),
    "the loss falls by chance": rows(loss=[2.0, 1.4, 2.7] * 20 + [1.5] * 20 + [2.1, 1.6, 2.4] * 9),
    "the loss rises a little": rows(loss=[9.0] * 20 + [2.0] * 20 + [2.3] * 20),
    "the data is learned by heart": rows(loss=[2.3] * 20 + [1e-4] * 20 + [0.1] * 20),
    "a loss jumped and came back": rows(loss=[9.0] * 20 + [2.0] * 20 + [7.0] * 9 + [2.1] * 20),
    "the schedule ends": rows(update_ratio=[1e-3] * 20 + [1e-8] * 20),
    "the schedule ends, in float32": rows(lost=[0.0] * 60 + [0.5] * 40),
    "constant pixels, rare words": rows(idle__embed=[0.95] * 5 + [0.6] * 40, idle=[0.5] * 45),
    "a bias begins at zero": rows(
        param_norm__bias=[0.0] + [0.1] * 30, grad_norm__bias=[1.0], update_ratio__bias=[2.0]
    ),
    "early steps are clipped": rows(clip_rate=[1.0] * 10),
    "a guard keeps a NaN out": rows(
        loss=[1.0], grad_norm=[1.0] * 30 + [math.nan], update_norm=[1.0] * 30 + [0.0]
    ),
}


@pytest.mark.parametrize("said", OVER_TIME)
def test_some_problems_are_seen_over_time_only(said):
    (finding,) = found(OVER_TIME[said])
    assert finding.startswith(said)


@pytest.mark.parametrize("name", WELL)
def test_what_is_normal_is_no_finding(name):
    assert found(WELL[name]) == []


def test_no_rule_judges_by_one_row():
    """All figures of a first step at once, as bad as they can be."""
    first = {"step": 1, "loss": 9.0, "noise_scale": -2.0}
    for ill, _ in ILL.values():
        first |= {k: v for k, v in ill.items() if not k.endswith("in_a_row")}
    first |= {"idle/embed": 1.0, "loss_scale": 1.0}
    assert found([first]) == []
    assert "Too short to judge: 1 of the 5" in too_short([first])
    assert too_short(WELL["the loss falls"]) == ""
    params = {"kernel": jnp.ones((4, 4)), "bias": jnp.zeros(4)}
    opt = health.observe(adamx.adam(1.0), per_leaf=True)
    state = opt.init(params)
    assert found(state) == []  # and its NaN are no sign of one that diverged
    _, state = opt.update(params, state, params)
    assert found(state) == []


NAN, INF = math.nan, math.inf


def test_a_run_that_became_nan_is_the_first_finding_and_names_step_and_leaf():
    history = rows(
        loss=[1.0] * 6 + [NAN] * 4,
        grad_norm=[1.0] * 6 + [NAN] * 4,
        grad_norm__a=[1.0],
        grad_norm__b=[1.0] * 6 + [NAN] * 4,
        grad_norm__c=[1.0] * 7 + [NAN] * 3,
        update_ratio=[0.5] * 6 + [NAN] * 4,
    )
    first, why = found(history)
    assert first.startswith("not finite since step 70, first in leaf b: restore a checkpoint")
    assert why.startswith("a step changes the parameters by 50.0%")  # before
    del history[6]["grad_norm"], history[6]["grad_norm/b"], history[6]["grad_norm/c"]
    said = "not finite since step 70, first in leaf b and 1 more when next observed, at step 80"
    assert found(history)[0].startswith(said)


@pytest.mark.parametrize(
    "figures, said",
    [
        ({"loss": [1.0, INF]}, "not finite since step 20, first in loss"),
        ({"loss": [NAN]}, "not finite since step 10, first in loss"),
        ({"loss": [1.0], "validation loss": [NAN]}, "first in validation loss"),
        ({"grad_norm": [1.0, 1.0, NAN]}, "not finite since step 30, first in grad norm"),
        ({"param_norm": [1.0, INF]}, "first in param norm"),
        (
            {"param_norm": [NAN], "grad_norm/a": [NAN], "grad_norm/b": [INF]},
            "not finite since step 10, in all 2 leaves",
        ),
    ],
)
def test_nothing_that_is_not_finite_is_dropped(figures, said):
    assert said in found(rows(**figures))[0]


def test_a_run_that_has_come_back_is_finite():
    assert found(rows(loss=[1.0, NAN, NAN, 1.0])) == []


def test_a_state_says_that_it_is_not_finite_at_once():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    opt = health.observe(adamx.adam(0.1), per_leaf=True)
    state = opt.init(params)
    _, state = opt.update({"a": jnp.ones(2), "b": jnp.full(2, jnp.nan)}, state, params)
    assert found(state)[0].startswith("not finite since step 1, first in leaf b")


def test_the_doctor_reads_a_state_of_a_run_that_is_ill():
    params = {"embed": jnp.ones((8, 8)), "bias": jnp.full(8, 100.0, jnp.bfloat16)}
    grads = {"embed": jnp.full((8, 8), 1e-10), "bias": jnp.ones(8, jnp.bfloat16)}
    opt = health.observe(adamx.adam(1e-3), per_leaf=True)
    state, update = opt.init(params), jax.jit(opt.update)
    for _ in range(20):
        _, state = update(grads, state, params)
    said = found(state)
    assert any(s.startswith("`embed`: epsilon dominates in 100%") for s in said)
    assert any(s.startswith("`bias`: 100% of updates are lost to rounding") for s in said)
    well, rng = {"k": jnp.ones((8, 8))}, np.random.default_rng(0)
    state = opt.init(well)
    for _ in range(20):
        g = {"k": jnp.asarray(rng.normal(size=(8, 8)), jnp.float32)}
        _, state = update(g, state, well)
    assert found(state) == []


# Measured


def test_every_rule_has_runs_with_its_problem():
    assert set(patients.PROBLEMS) == {"not finite"} | {rule.name for rule in RULES}
    assert len(doctor_table.NAMES) == len(patients.PROBLEMS)  # no two rules advise the same


@pytest.mark.slow
def test_rules_find_what_they_are_for_and_nothing_in_the_same_run_without():
    """Some rules, in a few runs each; `doctor_table.py` has them all."""
    plain = [rule for rule, (setup, _) in patients.PROBLEMS.items() if setup == "plain"]
    for rule in plain:
        assert doctor_table.detected(rule, seeds=5) >= 4, rule
    well = patients.histories("plain", [patients.healthy(seed) for seed in range(5)])
    assert [found(history) for history in well] == [[]] * 5


@pytest.mark.slow
def test_healthy_runs_are_found_healthy(tmp_path):
    from tests.health import healthy

    for name in ("digits", "regression, one byte"):
        assert found(healthy.trained(name, tmp_path)) == [], name


def test_rows_as_they_stand_in_the_file_are_understood():
    rows = [{"step": i, "loss": "NaN" if i > 7 else 1.0, "grad_norm/x": "NaN"} for i in range(9)]
    assert str(health.doctor(rows)[0]).startswith("not finite since step 8")


# The cause, and not what follows from it


def test_a_schedule_that_ends_too_early_is_named_and_not_its_rounding():
    history = rows(
        update_ratio=[1e-3] * 20 + [1e-11] * 60,
        grad_norm=[1.0],
        lost=[0.0] * 20 + [1.0] * 60,
        lost__k=[0.0] * 20 + [1.0] * 60,
        update_ratio__k=[1e-3] * 20 + [1e-11] * 60,
    )
    (said,) = found(history)
    assert said.startswith("for most of the run no step changes the parameters: look at the learn")
    assert found(history[:38]) != [said]  # half of a run at most is the end of a schedule


def test_a_learning_rate_of_zero_is_named():
    opt = health.observe(adamx.adam(0.0), per_leaf=True)
    params = {"bias": jnp.zeros(3), "kernel": jnp.ones(3)}
    state, history = opt.init(params), []
    for step in range(30):
        _, state = opt.update({"bias": jnp.ones(3), "kernel": jnp.ones(3)}, state, params)
        history.append({"step": step, **health.read(state)})
    (said,) = found(history)
    assert said.startswith("for most of the run no step changes the parameters")
    skipped = [{"step": 30, "update_ratio": 0.0, "grad_norm": 1.0}]
    assert found(skipped[0]) == []  # one step, which a guard may have skipped


def test_units_that_long_first_steps_have_killed_are_their_work():
    died = {"idle__k": [0.0] * 20 + [0.6] * 60, "idle": [0.0] * 20 + [0.6] * 60}
    early = [0.5] + [1e-3] * 19 + [1e-4] * 60  # parameters that have grown change less
    said = found(rows(update_ratio=early, **died))
    assert said[0].startswith(
        "one of the first steps changed the parameters by 50.0%: lower the learn"
    )
    assert said[1].startswith("`k`: 60% of elements get no gradient any more")
    assert len(found(rows(update_ratio=[1e-3], **died))) == 1
    assert found(rows(update_ratio=early)) == []  # parameters that begin at zero


def test_a_spike_that_shortens_steps_for_long_is_named():
    before, after = [1e-2] * 20, [1e-5] * 20
    (said,) = found(rows(rate_p50__k=before + after))
    assert said.startswith("`k`: steps became 1000 times shorter at once: look for a batch with")
    for well in (
        [x * 0.97**i for i, x in enumerate(before * 4)],  # a schedule
        before + [1e-3] * 20,  # one that falls tenfold
        before + [1e-9] * 20,  # one that ends
        [*before, 1e-5, *before],  # a step that was short
        [1e-1, 1e-5, 1e-5] * 13,
    ):
        assert found(rows(rate_p50__k=well)) == []
