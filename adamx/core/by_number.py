# SPDX-License-Identifier: Apache-2.0
"""From an elementwise function of arrays to the function of numbers that it is.

The operations of its jaxpr are applied to numbers instead, one element of each array. That is the
same function where all of them are known to be elementwise.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal
from jax.sharding import Sharding

# Operations whose parameters say nothing of shapes.
ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil clamp
    convert_element_type copy copy_p cos cosh div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
    integer_pow is_finite le log log1p logistic lt max min mul ne neg nextafter not or pow
    reduce_precision rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical
    sign sin sinh sqrt square stop_gradient sub tan tanh xor
    """.split()
)
_SAME = frozenset({"broadcast_in_dim", "pcast", "pvary"})  # each element is one of the operand's
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr"}


class Iota(NamedTuple):
    """The positions of elements along a dimension, in a dtype."""

    dtype: np.dtype
    dimension: int

    @classmethod
    def of(cls, eqn: Any) -> "Iota":
        return cls(np.dtype(eqn.params["dtype"]), eqn.params["dimension"])


def operations(jaxpr: Any) -> Iterator[Any]:
    """The operations of a jaxpr and of the functions that it calls."""
    for eqn in jaxpr.eqns:
        inner = _called(eqn)
        yield from [eqn] if inner is None else operations(inner)


def is_elementwise(eqn: Any, shape: tuple[int, ...]) -> bool:
    """Whether an operation is known to be elementwise, on arrays of `shape` and on numbers."""
    name, ins, outs = eqn.primitive.name, eqn.invars, eqn.outvars
    if name not in ELEMENTWISE and name not in _SAME and name != "iota":
        return False
    shapes = {v.aval.shape for v in ins}
    fits = {shape} if shape in shapes or name in ("iota", "broadcast_in_dim") else {()}
    held = any(np.ndim(v.val) for v in ins if isinstance(v, Literal))
    same = {v.aval.shape for v in outs} == fits and shapes <= {(), shape}
    return same and not held and not (name in ELEMENTWISE and _is_placed(eqn))


def holds_arrays(jaxpr: Any) -> bool:
    """Whether a jaxpr has constants that are arrays or traced."""
    return any(np.ndim(x) > 0 or isinstance(x, Tracer) for x in jaxpr.consts)


def evaluate(jaxpr: Any, known: dict[Any, Any]) -> list[Any]:
    """The results of an elementwise jaxpr for numbers: those of its arguments and of iotas."""
    known = {**known, **dict(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))}

    def read(v: Any) -> Any:
        return _number(v) if isinstance(v, Literal) else known[v]

    for eqn in jaxpr.eqns:
        known |= zip(eqn.outvars, _results(eqn, [read(v) for v in eqn.invars], known), strict=True)
    return [read(v) for v in jaxpr.jaxpr.outvars]


def _results(eqn: Any, ins: list[Any], known: dict[Any, Any]) -> list[Any]:
    inner, name = _called(eqn), eqn.primitive.name
    if inner is not None:
        return evaluate(inner, {**known, **dict(zip(inner.jaxpr.invars, ins, strict=True))})
    if name == "iota":
        return [known[Iota.of(eqn)]]
    return ins if name in _SAME else [eqn.primitive.bind(*ins, **eqn.params)]


def _number(literal: Any) -> np.ndarray:
    return np.asarray(literal.val, literal.aval.dtype)


def _called(eqn: Any) -> Any:
    """The function that an operation does nothing but call; None if there is none."""
    inner = eqn.params.get(_CALLS.get(eqn.primitive.name, ""))
    return None if inner is None or holds_arrays(inner) or _is_placed(eqn) else inner


def _is_placed(eqn: Any) -> bool:
    """Whether an operation says how arrays are sharded."""
    given = (x if isinstance(x, tuple) else (x,) for x in eqn.params.values())
    return any(isinstance(x, Sharding) for row in given for x in row)
