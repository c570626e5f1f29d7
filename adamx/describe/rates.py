# SPDX-License-Identifier: Apache-2.0
"""The learning rate of one leaf, as far as its links say it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import optax

from adamx.core.links import Link
from adamx.describe.settings import shown, value_at_start, value_of
from adamx.moments.factored_rms import FactoredRms
from adamx.moments.scale_by import ScaleBy
from adamx.transforms.learning_rate import Descend


def is_rate(link: Link) -> bool:
    return isinstance(value_of(link), Descend) or link.made in ("scale", "scale_by_schedule")


def rate_of(mine: Sequence[Link]) -> str:
    """The product of all factors at step 0, downhill positive. Those before a rule that makes
    nothing of the size of gradients are left out; what sets updates to zero is one."""
    last = max((i for i, link in enumerate(mine) if normalises(link)), default=-1)
    mine = mine[last + 1 :] if any(map(_is_factor, mine[last + 1 :])) else mine
    factors: list[Any] = [factor_of(link) for link in mine if _is_factor(link)]
    if not factors:
        inside = [link.held["learning_rate"] for link in mine if "learning_rate" in link.held]
        factors = [value_at_start(inside[0]), -1.0] if inside else []
    if None in factors:
        return "?"
    return shown(float(-np.prod(factors)) + 0.0) if factors else "-"


def _is_factor(link: Link) -> bool:
    x = value_of(link)
    if isinstance(x, Descend):
        return x.learning_rate is not None
    return is_rate(link) or link.made in ("Downhill", "set_to_zero") or "inner_factory" in link.held


def factor_of(link: Link) -> float | None:
    """What a link multiplies updates by at step 0; 1 if it does something else."""
    x = value_of(link)
    if isinstance(x, Descend):
        rate = 1.0 if x.learning_rate is None else value_at_start(x.learning_rate)
        return rate if rate is None or not x.flip_sign else -rate
    if link.made == "scale":
        return value_at_start(link.held.get("step_size"))
    if link.made == "scale_by_schedule":
        return value_at_start(link.held.get("step_size_fn"))
    if "inner_factory" in link.held:
        return None
    return {"Downhill": -1.0, "set_to_zero": 0.0}.get(link.made, 1.0)


def normalises(link: Link) -> bool:
    """Whether a link's directions are as long for gradients of any size."""
    x = value_of(link)
    if isinstance(x, ScaleBy):
        return x.rule.state is not optax.EmaState
    if link.module.startswith("optax"):
        return link.made.startswith("scale_by_") and link.made not in _LINEAR
    return isinstance(x, FactoredRms) or link.made in ("adam_mini", "soap")


_LINEAR = (
    "scale_by_schedule",
    "scale_by_trust_ratio",
    "scale_by_param_block_rms",
    "scale_by_param_block_norm",
    "scale_by_learning_rate",
    "scale_by_polyak",
    "scale_by_backtracking_linesearch",
    "scale_by_zoom_linesearch",
    "scale_by_lbfgs",
)
