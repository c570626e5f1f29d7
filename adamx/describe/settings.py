# SPDX-License-Identifier: Apache-2.0
"""The storage of one leaf, as far as its links say it, and the numbers that links hold."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamx.core.links import Link
from adamx.moments.scale_by import ScaleBy
from adamx.moments.store import Store


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
