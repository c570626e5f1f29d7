# SPDX-License-Identifier: Apache-2.0
"""The size of the program that `update` traces to: the equations of its jaxpr."""

from collections.abc import Iterator
from typing import Any

import jax
import optax


def count_equations(opt: optax.GradientTransformation, shapes: Any) -> tuple[int, int]:
    """The equations of `opt.update` itself, inside an outer `jit`, and those in all. Each distinct
    inner function counts once, however often it is called."""
    state = jax.eval_shape(opt.init, shapes)
    jaxpr = jax.make_jaxpr(opt.update)(shapes, state, shapes).jaxpr
    while len(jaxpr.eqns) == 1 and (inner := list(_inner_jaxprs(jaxpr.eqns[0]))):
        jaxpr = inner[0]
    return len(jaxpr.eqns), _total(jaxpr, seen=set())


def _total(jaxpr: Any, seen: set[int]) -> int:
    if id(jaxpr) in seen:
        return 0
    seen.add(id(jaxpr))
    inner = (_total(sub, seen) for equation in jaxpr.eqns for sub in _inner_jaxprs(equation))
    return len(jaxpr.eqns) + sum(inner)


def _inner_jaxprs(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        for entry in value if isinstance(value, (tuple, list)) else (value,):
            entry = getattr(entry, "jaxpr", entry)  # the inside of a ClosedJaxpr
            if hasattr(entry, "eqns"):
                yield entry
