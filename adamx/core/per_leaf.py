# SPDX-License-Identifier: Apache-2.0
"""Functions of one leaf, traced once per shape: a tree of 1,000 leaves costs a few traces."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from adamx.core.one_map import one_map


def leafwise(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(arrays, scalars, *static)` as one inner call that leaves of the same shape share.

    Scalars that are known when the step is traced (NumPy's or Python's) become constants inside
    the call; the others are arguments. Passing constants as arguments would cost each leaf one
    operation per constant when the step is lowered.
    """

    @functools.partial(jax.jit, static_argnums=(2, 3))
    def call(arrays: Any, traced: Mapping[str, Any], known: tuple, static: tuple) -> Any:
        def leaf(arrays: Any, traced: Mapping[str, Any]) -> Any:
            return function(arrays, {**traced, **dict(known)}, *static)

        return one_map(leaf, arrays, traced)

    def outer(arrays: Any, scalars: Mapping[str, Any], *static: Any) -> Any:
        return call(arrays, *split(scalars), static)

    return outer


def split(scalars: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[tuple[str, Any], ...]]:
    """The scalars that are not known when the step is traced, and those that are."""
    known = tuple((k, v) for k, v in scalars.items() if isinstance(v, _KNOWN))
    return {k: v for k, v in scalars.items() if not isinstance(v, _KNOWN)}, known


_KNOWN = (int, float, np.generic)
