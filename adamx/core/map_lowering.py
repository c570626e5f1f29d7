# SPDX-License-Identifier: Apache-2.0
"""The HLO `map`: a function of numbers, applied to each element of arrays.

A map has one result. Several are packed into a word of 64 bits and taken out of it again, through
which LLVM sees.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters import mlir

from adamx.core.ir_values import bits_as, bits_of, carrier, constant, type_of, unsigned

WORD = 64
FACTORS = "ijklmnopqrstuvwxyz"  # what Shardy calls dimensions


def fits(results: Sequence[Any]) -> bool:
    """Whether arrays with these avals can be the results of one map."""
    shapes = {x.shape for x in results}
    if len(shapes) != 1 or sum(map(bits_of, results)) > WORD:
        return False
    (shape,) = shapes
    sizes = 0 < len(shape) <= len(FACTORS) and all(isinstance(d, int) and d > 0 for d in shape)
    return sizes and all(np.dtype(x.dtype).kind not in "cb" for x in results)


def map_numbers(
    function: Callable[..., Sequence[Any]], operands: Sequence[Any], shape: tuple[int, ...]
) -> list[Any]:
    """The results of `function` for the elements of each operand, in arrays of `shape`.

    Operands are arrays of that shape, or numbers.
    """
    numbers = [jax.ShapeDtypeStruct((), x.dtype) for x in operands]
    jaxpr = jax.make_jaxpr(function)(*numbers)
    return _map.bind(*operands, jaxpr=jaxpr, shape=shape)


_map = Primitive("map")
_map.multiple_results = True


@_map.def_abstract_eval
def _(*operands: Any, jaxpr: Any, shape: tuple[int, ...]) -> list[Any]:
    return [ShapedArray(shape, x.dtype) for x in jaxpr.out_avals]


def _lowering(ctx: Any, *operands: Any, jaxpr: Any, shape: tuple[int, ...]) -> list[Any]:
    numbers, results = jaxpr.in_avals, jaxpr.out_avals
    whole = [_array(x, aval, shape) for x, aval in zip(operands, ctx.avals_in, strict=True)]
    packed = unsigned(WORD) if len(results) > 1 else carrier(results[0].dtype)
    op = stablehlo.MapOp(
        type_of(shape, packed), whole, ir.DenseI64ArrayAttr.get(list(range(len(shape))))
    )
    op.operation.attributes["sdy.sharding_rule"] = _sharding_rule(len(whole), shape)
    types = [type_of((), carrier(x.dtype)) for x in numbers]
    block = op.computation.blocks.append(*types, arg_locs=[op.location] * len(types))
    with ir.InsertionPoint(block):
        ins = [bits_as(x, aval.dtype, ()) for x, aval in zip(block.arguments, numbers, strict=True)]
        lower = mlir.lower_fun(jaxpr_as_fun(jaxpr))
        outs = lower(ctx.replace(avals_in=numbers, avals_out=None), *ins)
        stablehlo.return_([_pack(outs, results, packed)])
    for inside in block.operations:  # thousands of call stacks take time, too
        inside.operation.location = op.location
    return _unpack(op.result, results, packed, shape)


def _sharding_rule(operands: int, shape: tuple[int, ...]) -> Any:
    """All operands and the result are sharded alike."""
    names = FACTORS[: len(shape)]
    one = f"[{', '.join(names)}]"
    sizes = ", ".join(f"{n}={d}" for n, d in zip(names, shape, strict=True))
    return ir.Attribute.parse(
        f"#sdy.op_sharding_rule<({', '.join([one] * operands)})->({one}) {{{sizes}}}>"
    )


def _array(x: Any, aval: Any, shape: tuple[int, ...]) -> Any:
    x = bits_as(x, carrier(aval.dtype), aval.shape)
    none = ir.DenseI64ArrayAttr.get([])
    return (
        x
        if aval.shape
        else stablehlo.broadcast_in_dim(type_of(shape, carrier(aval.dtype)), x, none)
    )


def _pack(outs: Sequence[Any], results: Sequence[Any], packed: np.dtype) -> Any:
    if len(results) == 1:
        return bits_as(outs[0], packed, ())
    words = []
    for i, at in _places(results).items():
        bits = unsigned(bits_of(results[i]))
        word = stablehlo.convert(type_of((), packed), bits_as(outs[i], bits, ()))
        words.append(stablehlo.shift_left(word, constant(at, packed, ())) if at else word)
    return functools.reduce(stablehlo.or_, reversed(words))


def _unpack(
    word: Any, results: Sequence[Any], packed: np.dtype, shape: tuple[int, ...]
) -> list[Any]:
    if len(results) == 1:
        return [bits_as(word, results[0].dtype, shape)]
    outs = {}
    for i, at in _places(results).items():
        bits = unsigned(bits_of(results[i]))
        x = stablehlo.shift_right_logical(word, constant(at, packed, shape)) if at else word
        outs[i] = bits_as(stablehlo.convert(type_of(shape, bits), x), results[i].dtype, shape)
    return [outs[i] for i in range(len(results))]


def _places(results: Sequence[Any]) -> dict[int, int]:
    """The first bit of each result, lowest first; those of 32 bits fill one half of the word."""
    places, at = {}, 0
    for i in sorted(range(len(results)), key=lambda i: (bits_of(results[i]), -i)):
        at = max(at, WORD // 2) if bits_of(results[i]) == WORD // 2 and at else at
        places[i] = at
        at += bits_of(results[i])
    return places


mlir.register_lowering(_map, _lowering)
