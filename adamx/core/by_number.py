# SPDX-License-Identifier: Apache-2.0
"""From an elementwise function of arrays to the function of numbers that it is.

A jaxpr is followed operation by operation. What is the same for all elements is computed at once,
outside; what differs is recorded, to be done on numbers later. An operation that is not known to be
elementwise ends it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal

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


class MixesError(Exception):
    """The function has an operation that may mix elements."""


class Slot:
    """A number that differs from element to element, or an operand."""


class Recorder:
    """Follows one function of arrays of a shape.

    Attributes:
      shape: the shape of its arrays.
      steps: the operations on numbers: equation, operands, result.
      operands: what they need from outside: arrays, or numbers that are the same for all elements.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape
        self.steps: list[tuple[Any, list[Any], Slot]] = []
        self.operands: dict[Slot, Any] = {}
        self._slots: dict[int, Slot] = {}

    def run(self, jaxpr: Any, args: Sequence[Any]) -> list[Any]:
        """The results of a closed jaxpr: slots, or values from outside."""
        variables = [*jaxpr.jaxpr.constvars, *jaxpr.jaxpr.invars]
        known = dict(zip(variables, [*jaxpr.consts, *args], strict=True))

        def read(v: Any) -> Any:
            return known[v] if not isinstance(v, Literal) else _constant(v)

        for eqn in jaxpr.jaxpr.eqns:
            outs = self._results(eqn, [read(v) for v in eqn.invars])
            known |= zip(eqn.outvars, outs, strict=True)
        return [read(v) for v in jaxpr.jaxpr.outvars]

    def function(self, outs: Sequence[Any]) -> Callable[..., list[Any]]:
        """What was recorded, as a function of the numbers of `operands`."""
        outs = [self._slot(x) for x in outs]

        def numbers(*operands: Any) -> list[Any]:
            known = dict(zip(self.operands, operands, strict=True))

            def read(x: Any) -> Any:
                return known[x] if isinstance(x, Slot) else x

            for eqn, ins, out in self.steps:
                known[out] = eqn.primitive.bind(*map(read, ins), **eqn.params)
            return [read(x) for x in outs]

        return numbers

    def _results(self, eqn: Any, ins: list[Any]) -> list[Any]:
        name = eqn.primitive.name
        if name in _CALLS:
            return self.run(eqn.params[_CALLS[name]], ins)
        shapes = {v.aval.shape for v in (*eqn.invars, *eqn.outvars)}
        if not shapes <= {(), self.shape} or eqn.params.get("sharding") is not None:
            raise MixesError(name)
        if name == "iota":
            return [eqn.primitive.bind(**eqn.params)]
        if name in _SAME:
            return ins[: len(eqn.outvars)]
        if name not in ELEMENTWISE:
            raise MixesError(name)
        if any(isinstance(x, Tracer) for x in ins) and not any(map(_differs, ins)):
            return [eqn.primitive.bind(*ins, **eqn.params)]
        out = Slot()
        self.steps.append((eqn, [self._slot(x) for x in ins], out))
        return [out]

    def _slot(self, x: Any) -> Any:
        """The slot of `x`; numbers that are constants need none."""
        if isinstance(x, Slot) or (np.ndim(x) == 0 and not isinstance(x, Tracer)):
            return x
        if id(x) not in self._slots:
            self._slots[id(x)] = slot = Slot()
            self.operands[slot] = x
        return self._slots[id(x)]


def _constant(literal: Any) -> np.ndarray:
    return np.asarray(literal.val, literal.aval.dtype)


def _differs(x: Any) -> bool:
    return isinstance(x, Slot) or np.shape(x) != ()
