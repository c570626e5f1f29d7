# SPDX-License-Identifier: Apache-2.0
"""Runs two optimizers on the same problems and says how they differ."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from adamx.explain.explanation import Explanation, Move, Small
from adamx.explain.habits import Habits, habits
from adamx.explain.probes import LONG, STEPS, path, steps
from adamx.explain.stored import stored
from adamx.explain.subject import COMMON, Subject
from adamx.explain.words import differences

MOVES = ((1.0, (1, 2, 10, 100, STEPS)), (1e-8, (1, 10, STEPS)))


def explain(a: Any, b: Any) -> Explanation:
    """What differs between two optimizers, in words, and by how much it moves their steps.

    Both are run in float64 on small problems. Sizes are in learning rates. Where both have names,
    the second is also run with the learning rate, b1, b2, epsilon and decay of the first, which
    tells a difference of arithmetic from one of defaults. Where moments of ours are stored in few
    bits, the words are about the same recipe in float32, the runs about the recipe as it is.

    Args:
      a, b: each a name such as `"torch.AdamW"`, `"keras.Adam"`, `"optax.adamw"` or
        `"adamx.adamw"`, with arguments if need be: `"optax.adamw(weight_decay=0.01)"`; a recipe or
        another gradient transformation; an optimizer of torch or Keras, torch's `state_dict()`,
        or Keras' `get_config()`.

    Returns:
      An `Explanation`: print it, or use its fields.

    Example:
      >>> import adamx
      >>> found = adamx.explain("torch.AdamW", "optax.adamw")
      >>> found.same, found.same_arithmetic
      (False, True)
      >>> for difference in found.differences:
      ...     print(difference.topic, difference.a, difference.b)
      weight decay 0.01 0.0001
    """
    from adamx.explain.objects import recognised  # knows each library: not by `import adamx`

    first, second = recognised(a, "a"), recognised(b, "b")
    first, second = first.at_rate_of(second), second.at_rate_of(first)
    twin = _alike(first, second)
    seen = _habits(first), _habits(second)
    matched = seen[1] if twin is None else _habits(twin)
    moves, small = tuple(_moves(first, second, twin)), tuple(_small(*seen))
    found = Explanation(first.name, second.name, (), moves, small)
    alike = bool(found.same_arithmetic)
    return found._replace(differences=differences(first, second, *seen, matched, alike))


def _alike(first: Subject, second: Subject) -> Subject | None:
    """The second optimizer with the common hyperparameters of the first."""
    both = [k for k in COMMON if k in first.settings and k in second.settings]
    try:
        return second.changed({k: first.settings[k] for k in both})
    except TypeError:
        return None


def _habits(subject: Subject) -> Habits:
    b2 = subject.value("b2")
    exact = dataclasses.replace(subject, build=lambda: stored(subject.opt).exact)
    seen = _tried(exact, steps)
    return habits(seen, subject.rate, b2 if isinstance(b2, int | float) else None)


def _moves(first: Subject, second: Subject, twin: Subject | None) -> Iterator[Move]:
    for scale, counts in MOVES:
        runs = [_tried(s, path, scale) for s in (first, second)]
        third = None if twin is None else _tried(twin, path, scale)
        for count in counts:
            alike = None if third is None else _apart(runs[0], third, count, first.rate)
            yield Move(scale, count, _apart(runs[0], runs[1], count, first.rate), alike)


def _apart(a: np.ndarray, b: np.ndarray, count: int, rate: float) -> float:
    return float(np.max(np.abs(a[:count] - b[:count])) / abs(rate))


def _small(a: Habits, b: Habits) -> Iterator[Small]:
    yield Small(1, a.small_first, b.small_first)
    yield Small(LONG, a.small_last, b.small_last)


def _tried(subject: Subject, run: Callable[..., Any], *args: Any) -> Any:
    try:
        return run(subject.opt, *args)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{subject.name} cannot be run on gradients alone: {error}") from error
