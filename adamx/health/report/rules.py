# SPDX-License-Identifier: Apache-2.0
"""The doctor's rules: each a row of `RULES`, of what shows the problem, its words, its remedy.

Each is measured on 20 small runs that have its problem, drawn in `tests/health/patients.py`, and on
20 healthy ones, every task of `train` and the workloads of the study among them. All found their
problem in 20 of 20, `long steps` in 19, `idle` in 15; none found anything in a healthy run. Milder
problems are found less often (2026-11-30, `python -m tests.health.doctor_table`).
"""

from collections.abc import Callable
from typing import NamedTuple

from adamx.health.report.evidence import Evidence


class Rule(NamedTuple):
    """One kind of problem.

    Attributes:
      name: one or two words, for tables.
      holds: whether the evidence of a group shows the problem.
      what: the symptom in words, from the same evidence.
      advice: what to try.
      of_tree: whether the rule applies to the whole tree only. A bias that starts at zero changes
        by more than its own size, which is normal.
    """

    name: str
    holds: Callable[[Evidence], bool]
    what: Callable[[Evidence], str]
    advice: str
    of_tree: bool = False


def _above(name: str, least: float) -> Callable[[Evidence], bool]:
    return lambda seen: seen.lately(name) > least


def _share(name: str, of: str) -> Callable[[Evidence], str]:
    return lambda seen: f"{seen.lately(name):.0%} of {of}"


def _is_all_noise(seen: Evidence) -> bool:
    """Noise alone is where good runs end: it is a problem where nothing was learned from it."""
    return seen.lately("noise_scale") > 1e4 and 0.9 < seen.times_the_first("loss") < 1.5


def _takes_no_steps(seen: Evidence) -> bool:
    """Not only at the end of a schedule, and not by a rate that was too small from the start."""
    longest = max(seen.lately("update_ratio"), seen.usual("update_ratio"))
    if not (longest < 1e-8 and seen.is_history("update_ratio")):
        return False
    return seen.lately("grad_norm") > 0 and not 0 < seen.peak("update_ratio") < 1e-6


def _is_stalled(seen: Evidence) -> bool:
    """Not by a schedule that ends, which leaves nothing, and not by one that falls tenfold."""
    return 1e-6 < seen.fallen("rate_p50") < 0.05


def _divergence(seen: Evidence) -> str:
    times, risen = seen.times_the_first("loss"), seen.risen("loss")
    if times > 1.5 or risen is None:
        return f"the loss is {times:.1f} times that of early rows"
    return f"the loss was {risen[0]:.3g} and is {risen[1]:.3g}"


def _ratio(seen: Evidence) -> float:
    return max(seen.lately("update_ratio"), seen.usual("update_ratio"))


NO_GRADIENT = Rule(
    "no gradient",
    lambda seen: seen.lately("grad_norm") == 0,
    lambda seen: "no gradient arrives",
    "look for a layer that is cut off, a dead activation or a loss that does not depend on it",
)
IDLE = Rule(
    "idle",
    # A share that is there from the start is normal, as of constant pixels and rare words, and
    # a network of ReLU that has learned its data ends with a quarter.
    lambda seen: seen.grown("idle") > 0.3,
    lambda seen: f"{seen.grown('idle'):.0%} of elements get no gradient any more",
    "look for dead units, and for inputs or rows that the data no longer asks for",
)
NO_STEPS = Rule(
    "no steps",
    _takes_no_steps,
    lambda seen: "for most of the run no step changes the parameters",
    "look at the learning rate: it is zero, or its schedule has ended",
    of_tree=True,
)
LONG_STEPS = Rule(
    "long steps",
    lambda seen: seen.lately("update_ratio") > 0.03 or seen.usual("update_ratio") > 0.02,
    lambda seen: f"a step changes the parameters by {_ratio(seen):.1%}",
    "lower the learning rate, or warm it up for longer",
    of_tree=True,
)
RULES = (
    NO_GRADIENT,
    NO_STEPS,
    Rule(
        "diverged",
        lambda seen: seen.times_the_first("loss") > 1.5 or seen.risen("loss") is not None,
        _divergence,
        "lower the learning rate, warm it up, clip by global norm, or use `health.rewind`",
        of_tree=True,
    ),
    Rule(
        "all zero",
        lambda seen: seen.lately("param_norm") == 0 and seen.lately("grad_norm") > 0,
        lambda seen: "all parameters are zero, and stay so",
        "look at masks and learning rates of these leaves, or restore a checkpoint",
    ),
    Rule(
        "lost updates",
        # Not only at the end of a schedule, where steps become small.
        lambda seen: seen.lately("lost") > 0.3 and seen.usual("lost") > 0.1,
        _share("lost", "updates are lost to rounding"),
        'land them by landing="stochastic", "compensated8" or "kahan" (`adamx.convert` adds one in '
        "the middle of a run), or keep float32 parameters",
    ),
    Rule(
        "under epsilon",
        _above("under_epsilon", 0.1),
        lambda seen: (
            f"epsilon dominates in {seen.lately('under_epsilon'):.0%} of elements"
            + (
                f", the gradient RMS is {seen.lately('grad_rms'):.0e}"
                if seen.lately("grad_rms") > 0
                else ""
            )
        ),
        'use a smaller `eps` or `eps_root`, or eps_mode="atan2", or scale the loss up; where '
        "gradients are far larger than these, a larger `b2`, above b1^2",
    ),
    Rule(
        "at ceiling",
        _above("at_ceiling", 0.01),
        _share("at_ceiling", "second moments are at the largest value of their format"),
        'scale the loss down, clip, or use storage="bfloat16" for these leaves',
    ),
    Rule(
        "at floor",
        _above("at_floor", 0.1),
        _share("at_floor", "second moments are at the smallest value of their format"),
        'scale the loss up, or use storage="bfloat16" for these leaves',
    ),
    LONG_STEPS,
    Rule(
        "short steps",
        lambda seen: 0 < seen.peak("update_ratio") < 1e-6,
        lambda seen: f"no step changes the parameters by more than {seen.peak('update_ratio'):.0e}",
        "raise the learning rate",
    ),
    Rule(
        "drift",
        _above("grad_drift", 1.0),
        lambda seen: f"gradients are {1 + seen.lately('grad_drift'):.1f} times as large as before",
        "lower the learning rate, clip by global norm, or look at the recent data",
    ),
    Rule(
        "all noise",
        _is_all_noise,
        lambda seen: "gradients are nearly all noise, and the loss does not fall",
        "check that labels belong to their inputs, unless the run began with trained parameters; "
        "take larger batches, or another learning rate",
        of_tree=True,
    ),
    IDLE,
    Rule(
        "stalled",
        _is_stalled,
        lambda seen: f"steps became {1 / seen.fallen('rate_p50'):.0f} times shorter at once",
        "look for a batch with huge gradients, which the mean of squares remembers: go back before "
        "it with `health.skip_spikes` or a clip, or `adamx.reset` the moments",
    ),
    Rule(
        "always clipped",
        # Gradients are largest at first; the rate is over some hundred steps.
        lambda seen: seen.step > 200 and seen.lately("clip_rate") > 0.98,
        _share("clip_rate", "steps are clipped"),
        "raise the bound: a clip at every step just lowers the learning rate",
    ),
    Rule(
        "spikes",
        lambda seen: seen.last("spikes_in_a_row") > 3,
        lambda seen: f"the last {seen.last('spikes_in_a_row'):.0f} steps were skipped as spikes",
        "`health.first_bad(state, params)` names the leaf; look at the recent data, or go back",
    ),
    Rule(
        "loss scale",
        lambda seen: seen.last("loss_scale") < 1,
        lambda seen: (
            f"gradients overflow unless the loss is scaled by {seen.last('loss_scale'):.0e}"
        ),
        "train in bfloat16, or find the layer with the largest gradients",
    ),
    Rule(
        "skipped",
        lambda seen: seen.last("skipped_in_a_row") > 3,
        lambda seen: (
            f"the last {seen.last('skipped_in_a_row'):.0f} steps were not finite and were skipped"
        ),
        "`health.first_bad(state, params)` names the leaf; lower the learning rate or go back",
    ),
)
