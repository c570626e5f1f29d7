# SPDX-License-Identifier: Apache-2.0
"""Differences of two optimizers in plain words, in the order of a step."""

import math
from collections.abc import Iterator
from typing import Any

from adamx.explain.explanation import Difference
from adamx.explain.habits import Habits
from adamx.explain.probes import LONG
from adamx.explain.stored import stored
from adamx.explain.subject import COMMON, Setting, Subject

_TOPICS = {"learning_rate": "learning rate", "b1": "b1", "b2": "b2"}
_DECAYS = {
    "none": "no decay",
    "decoupled": "decoupled, times the learning rate",
    "in the gradient": "added to the gradient, which the root then divides",
}


def differences(
    a: Subject, b: Subject, seen_a: Habits, seen_b: Habits, matched: Habits, alike: bool
) -> tuple[Difference, ...]:
    """What differs, as sentences.

    `matched` is what is seen of the second with the hyperparameters of the first, so that what
    follows from those is not said twice. If both are `alike` then, an argument that only one has is
    only another way of saying the same.
    """
    found = [
        *_settings(a, b),
        *_direction(a, b, seen_a, matched),
        *_decay(a, b, seen_a, seen_b),
        *_epsilon(a, b, seen_a, seen_b),
        *_sizes(a, b, seen_a, matched),
        *_kept(a, b),
        *_others(a, b, alike),
    ]
    return tuple(found)


def _settings(a: Subject, b: Subject) -> Iterator[Difference]:
    for name, topic in _TOPICS.items():
        if name in a.settings and name in b.settings and _differ(a.value(name), b.value(name)):
            yield Difference(topic, a.value(name), b.value(name), _both(a, b, name))


def _both(a: Subject, b: Subject, name: str) -> str:
    return f"{_said(a.settings[name])} in {a.name}, {_said(b.settings[name])} in {b.name}."


def _said(setting: Setting) -> str:
    value = setting.value
    text = f"{value:g}" if isinstance(value, float) else str(value)
    hints = {"default": " by default", "measured": ", as measured,", "taken": ", taken here,"}
    return text + hints.get(setting.source, "")


def _direction(a: Subject, b: Subject, x: Habits, y: Habits) -> Iterator[Difference]:
    if x.uphill != y.uphill:
        up, down = (a, b) if x.uphill else (b, a)
        yield Difference(
            "direction", _way(x), _way(y), f"{up.name} goes uphill, {down.name} downhill."
        )


def _way(x: Habits) -> str:
    return "uphill" if x.uphill else "downhill"


def _decay(a: Subject, b: Subject, x: Habits, y: Habits) -> Iterator[Difference]:
    w, v = _strength(a, x), _strength(b, y)
    if x.decay != y.decay:
        words = f"{_kind(a, x, w)}; {_kind(b, y, v)}."
        yield Difference("weight decay", (x.decay, w), (y.decay, v), words)
    elif _differ(w, v):
        if "weight_decay" in a.settings and "weight_decay" in b.settings:
            words = f"{_both(a, b, 'weight_decay')[:-1]}; in both {_DECAYS[x.decay]}."
        else:
            words = f"{_number(w)} in {a.name}, {_number(v)} in {b.name}; {_DECAYS[x.decay]}."
        yield Difference("weight decay", w, v, words)


def _strength(subject: Subject, seen: Habits) -> Any:
    if seen.decay == "none":
        return 0.0
    known = subject.value("weight_decay")
    if isinstance(known, int | float):
        return known
    return float(f"{seen.pull / abs(subject.rate):.9g}") if seen.pull else None


def _kind(subject: Subject, seen: Habits, strength: Any) -> str:
    if seen.decay == "none":
        return f"none in {subject.name}"
    return f"{_number(strength)} in {subject.name}, {_DECAYS[seen.decay]}"


def _number(x: Any) -> str:
    return f"{x:g}" if isinstance(x, int | float) else "of unknown strength"


def _epsilon(a: Subject, b: Subject, x: Habits, y: Habits) -> Iterator[Difference]:
    alike = all(_near(p, q) for p, q in ((x.eps_first, y.eps_first), (x.eps_last, y.eps_last)))
    if x.eps_place == y.eps_place and alike:
        return
    words = f"{_added(a, x)}; {_added(b, y)}."
    yield Difference("epsilon", _placed(a, x), _placed(b, y), words)


def _placed(subject: Subject, seen: Habits) -> Any:
    if seen.eps_place in ("none", "elsewhere"):
        return seen.eps_place
    return _eps(subject, seen), seen.eps_place


def _eps(subject: Subject, seen: Habits) -> Any:
    known = subject.value("eps")
    return known if isinstance(known, int | float) and known else float(f"{seen.eps_last:.9g}")


def _added(subject: Subject, seen: Habits) -> str:
    if seen.eps_place == "none":
        return f"{subject.name} adds none"
    effect = f"{seen.eps_first:.3g} at first and {seen.eps_last:.3g} at step {LONG}"
    if seen.eps_place == "elsewhere":
        return f"{subject.name} has in effect {effect} on the corrected root"
    if seen.eps_place == "inside the root":
        return f"{subject.name} adds its own inside the root, in effect {effect} at 1e-08"
    said = f"{subject.name} adds {_eps(subject, seen):g} to {seen.eps_place}"
    if seen.eps_place == "the uncorrected root":
        said += f" (epsilon-hat: in effect {effect} on the corrected one)"
    return said


def _sizes(a: Subject, b: Subject, x: Habits, y: Habits) -> Iterator[Difference]:
    if x.plain != y.plain:
        words = f"{_plain(a, x)}; {_plain(b, y)}."
        yield Difference("adaptivity", x.plain, y.plain, words)
    if x.trust != y.trust:
        one, other = (a, b) if x.trust else (b, a)
        words = f"steps of {one.name} grow with the parameter's norm, not those of {other.name}."
        yield Difference("trust ratio", x.trust, y.trust, words)
    for field, topic, text in (
        ("first", "bias correction", "the first step at gradients of 1 is"),
        ("settled", "later steps", f"step {LONG} at gradients of 1 is"),
        ("flipped", "momentum", "after a gradient of 1, one of -1 is answered by a step of"),
        (
            "after_outlier",
            "memory",
            "four steps after a gradient of 10, at gradients of 1, a step is",
        ),
    ):
        p, q = getattr(x, field), getattr(y, field)
        if abs(p - q) > 1e-4 * max(1, abs(p)):
            words = f"{text} {p:.3g} learning rates in {a.name}, {q:.3g} in {b.name}."
            yield Difference(topic, p, q, words)


def _plain(subject: Subject, seen: Habits) -> str:
    if seen.plain == LONG:
        return f"steps of {subject.name} grow with the gradient"
    if seen.plain:
        return f"the first {seen.plain} steps of {subject.name} grow with the gradient"
    return f"steps of {subject.name} do not grow with the gradient"


def _kept(a: Subject, b: Subject) -> Iterator[Difference]:
    """How moments are stored and steps are written."""
    here, there = stored(a.opt), stored(b.opt)
    if here.storage != there.storage:
        words = f"moments are stored in {here.storage} in {a.name}, in {there.storage} in {b.name}"
        noise = "; single steps differ by the rounding, which is right on average."
        yield Difference("storage", here.storage, there.storage, words + noise)
    if here.landing != there.landing:
        words = f"steps are added by {here.landing!r} in {a.name}, by {there.landing!r} in {b.name}"
        only = "; this concerns bfloat16 and float16 parameters alone, which are not run here."
        yield Difference("landing", here.landing, there.landing, words + only)


def _others(a: Subject, b: Subject, alike: bool) -> Iterator[Difference]:
    """Arguments beyond the common ones: where both have them, or where one is given."""
    names = [k for k in (*a.settings, *b.settings) if k not in (*COMMON, "storage", "landing")]
    for name in dict.fromkeys(names):
        one, other = a.settings.get(name), b.settings.get(name)
        if one and other and _differ(one.value, other.value):
            yield Difference(name, one.value, other.value, _both(a, b, name))
        elif (one is None) != (other is None) and not alike:
            who, setting = (a, one) if one else (b, other)
            if setting and setting.source == "given" and setting.value not in (None, False):
                words = f"{setting.value} in {who.name}; the other has no such argument."
                yield Difference(name, one and one.value, other and other.value, words)


def _differ(p: Any, q: Any) -> bool:
    """Whether two settings differ by more than float32 rounds."""
    try:
        return not math.isclose(float(p), float(q), rel_tol=1e-7)
    except (TypeError, ValueError):
        return p != q


def _near(p: float, q: float) -> bool:
    return p == q or abs(p - q) <= 1e-3 * max(abs(p), abs(q))
