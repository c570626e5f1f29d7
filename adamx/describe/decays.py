# SPDX-License-Identifier: Apache-2.0
"""The decay of one leaf, as far as its links say it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from adamx.core import paths
from adamx.core.links import Link, Narrow
from adamx.describe.rates import factor_of, is_rate, normalises
from adamx.describe.settings import shown, value_at_start, value_of
from adamx.transforms.masked import Masked, frozen
from adamx.transforms.weight_decay import Decay, Pull, as_decay, form


def is_decay(link: Link) -> bool:
    return isinstance(value_of(link), Pull) or link.made == "add_decayed_weights"


def decay_of(mine: Sequence[Link], name: str, like: Any) -> str:
    """The strengths, with the form of decay where it is not decoupled."""
    mine = _that_count(mine)
    found = ["?" for link in mine if "inner_factory" in link.held]  # `inject_hyperparams`
    for i, link in enumerate(mine):
        if is_decay(link):
            x = value_of(link)
            decay = x.decay if isinstance(x, Pull) else as_decay(link.held["weight_decay"])
            decay, kind = _in_place(decay, mine[:i], mine[i + 1 :])
        elif _pulls(link, name, like):
            decay = as_decay(link.held["weight_decay"])
            kind = form(decay)
        else:
            continue
        strength = shown(value_at_start(decay.strength))
        if strength not in ("0", "-"):
            found.append(strength if kind == "decoupled" else f"{strength} {kind}")
    return " + ".join(found) or "-"


def _in_place(decay: Decay, before: Sequence[Link], behind: Sequence[Link]) -> tuple[Decay, str]:
    """A decay and its form for where it is: a plain pull is part of the gradient before a rule, and
    behind the learning rate nothing multiplies it but a sign."""
    factors: list[Any] = [factor_of(link) for link in behind]
    if any(normalises(link) or link.made == "trace" for link in behind):
        return decay, "l2" if form(decay) == "decoupled" else form(decay)
    if decay.place != "between" or not any(map(is_rate, before)) or set(factors) - {1.0, -1.0}:
        return decay, form(decay)
    if np.prod(factors) > 0:  # added to steps that go downhill already
        strength = value_at_start(decay.strength)
        decay = decay._replace(strength=None if strength is None else -strength)
    if decay.relative and decay.peak == 1:  # the rate, over 1
        return decay, form(decay._replace(relative=False, peak=None))
    return decay, form(decay._replace(place="after"))


def _pulls(link: Link, name: str, like: Any) -> bool:
    """Whether a whole optimizer in one link, such as Prodigy, has a decay for this leaf."""
    if link.held.get("weight_decay") is None or "learning_rate" not in link.held:
        return False
    mask = link.held.get("mask")
    narrow = None if mask is None else Masked(link, frozen(mask)).inside()[0].narrow
    return narrow is None or name in names_seen(narrow, like)


def names_seen(narrow: Narrow, shapes: Any) -> set[str]:
    """The names of the leaves that are left. The mask sees traced arrays, as in `init` under `jit`:
    one that asks `eqx.is_array` of a leaf would take a shape for something else."""
    found: set[str] = set()
    jax.eval_shape(lambda tree: found.update(paths.names(narrow(tree))), shapes)
    return found


def _that_count(mine: Sequence[Link]) -> Sequence[Link]:
    """The links behind the last one that sets updates to zero."""
    last = max((i for i, link in enumerate(mine) if link.made == "set_to_zero"), default=-1)
    return mine[last + 1 :]
