# SPDX-License-Identifier: Apache-2.0
"""The rate, the decay and the storage of one leaf, as far as its links say them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamx.core.links import Link
from adamx.moments.scale_by import ScaleBy
from adamx.moments.store import Store
from adamx.transforms.learning_rate import Descend
from adamx.transforms.weight_decay import Pull, form


def storage_of(name: str, leaf: Any, mine: Sequence[Link], stored: list[Any]) -> str:
    """The storages by name, or the dtypes of the arrays of the leaf's shape."""
    alike = [x for x in stored if x.shape == leaf.shape]
    if not alike:
        return "-"
    narrow, named = any(x.dtype.itemsize < 4 for x in alike), []
    rules = [link for link in mine if isinstance(value_of(link), ScaleBy)]
    for link in rules or mine:
        own = value_of(link).choice.of(name, leaf.shape).name if rules else None
        around = next((x.value for x in link.within if isinstance(x.value, Store)), None)
        if narrow and around is not None and own in (None, "float32"):
            own = around.choice.of(name, leaf.shape).name
        named += [own] if own else []
    kinds = [x.dtype.name for x in alike if jnp.issubdtype(x.dtype, jnp.inexact)]
    return " + ".join(dict.fromkeys(named or kinds or [x.dtype.name for x in alike]))


def is_decay(link: Link) -> bool:
    return isinstance(value_of(link), Pull) or link.made == "add_decayed_weights"


def decay_of(mine: Sequence[Link]) -> str:
    """The strengths, with the form of decay where it is not decoupled."""
    found = ["?" for link in mine if "inner_factory" in link.held]  # `inject_hyperparams`
    for link in filter(is_decay, mine):
        x = value_of(link)
        pull = isinstance(x, Pull)
        strength = x.decay.strength if pull else link.held.get("weight_decay")
        strength = shown(value_at_start(strength))
        kind = form(x.decay) if pull else "decoupled"
        if strength not in ("0", "-"):
            found.append(strength if kind == "decoupled" else f"{strength} {kind}")
    return " + ".join(found) or "-"


def is_rate(link: Link) -> bool:
    return isinstance(value_of(link), Descend) or link.made in ("scale", "scale_by_schedule")


def rate_of(mine: Sequence[Link]) -> str:
    """The product of all factors at step 0, downhill positive."""
    factors: list[Any] = []
    for link in mine:
        x = value_of(link)
        if isinstance(x, Descend) and x.learning_rate is not None:
            rate = value_at_start(x.learning_rate)
            factors.append(rate if rate is None or not x.flip_sign else -rate)
        elif link.made == "scale":
            factors.append(value_at_start(link.held.get("step_size")))
        elif link.made == "scale_by_schedule":
            factors.append(value_at_start(link.held.get("step_size_fn")))
        elif "inner_factory" in link.held:
            factors.append(None)
    if not factors:
        inside = [link.held["learning_rate"] for link in mine if "learning_rate" in link.held]
        factors = [value_at_start(x) for x in inside] and [
            *(value_at_start(x) for x in inside[:1]),
            -1.0,
        ]
    if None in factors:
        return "?"
    return shown(float(-np.prod(factors)) + 0.0) if factors else "-"


def value_of(link: Link) -> Any:
    return link.held.get("self")


def value_at_start(x: Any) -> float | None:
    """The number at step 0, as it was written; None where it is traced, or no number."""
    try:
        x = x(0) if callable(x) else x
        return float(np.format_float_positional(np.float32(x)))
    except (TypeError, ValueError, jax.errors.JAXTypeError):
        return None


def shown(x: Any) -> str:
    if x is None:
        return "?"
    if isinstance(x, float):
        return f"{x:.4g}"
    return f"{x:,}" if isinstance(x, int) else str(x)
