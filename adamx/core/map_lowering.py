# SPDX-License-Identifier: Apache-2.0
"""The HLO `map`: a function of numbers, applied to each element of arrays.

A map has one result. Several are packed into a word of 64 bits and taken out of it again, through
which LLVM sees.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Literal
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters import mlir
from jax.sharding import AbstractMesh, use_abstract_mesh

from adamx.core.by_number import Iota, evaluate, holds_arrays, is_elementwise, operations

WORD = 64
FEW = 24
"""Functions with fewer operations gain nothing."""
FACTORS = "ijklmnopqrstuvwxyz"  # what Shardy calls dimensions

Shape = tuple[int, ...]


def fits(jaxpr: Any) -> bool:
    """Whether a jaxpr can be a map: an elementwise function whose results fit into one word."""
    shape, *others = {x.shape for x in jaxpr.out_avals} or {()}
    sizes = 0 < len(shape) <= len(FACTORS) and all(isinstance(d, int) and d > 0 for d in shape)
    if others or not sizes or holds_arrays(jaxpr):
        return False
    results, operands = [_bits(x.dtype) for x in jaxpr.out_avals], _operands(jaxpr)
    if 0 in results or sum(results) > WORD or not operands:
        return False
    if not all(x.dtype == bool or _bits(x.dtype) for x in operands.values()):
        return False
    steps = list(operations(jaxpr))
    inputs = all(x.shape in ((), shape) for x in operands.values())
    return inputs and len(steps) >= FEW and all(is_elementwise(eqn, shape) for eqn in steps)


def lower(ctx: Any, *args: Any, jaxpr: Any) -> list[Any]:
    """The results of a jaxpr that fits, by a map."""
    operands, results = _operands(jaxpr), [x.dtype for x in jaxpr.out_avals]
    shape, given = jaxpr.out_avals[0].shape, dict(zip(jaxpr.jaxpr.invars, args, strict=True))
    whole = [_array(given.get(name), name, x, shape) for name, x in operands.items()]
    packed = _unsigned(WORD) if len(results) > 1 else _carrier(results[0])
    dimensions = ir.DenseI64ArrayAttr.get(list(range(len(shape))))
    op = stablehlo.MapOp(_type(shape, packed), whole, dimensions)
    op.operation.attributes["sdy.sharding_rule"] = _sharding_rule(len(whole), shape)
    numbers = [ShapedArray((), x.dtype) for x in operands.values()]
    types = [_type((), _carrier(x.dtype)) for x in numbers]
    block = op.computation.blocks.append(*types, arg_locs=[op.location] * len(types))

    def function(*values: Any) -> list[Any]:
        return evaluate(jaxpr, dict(zip(operands, values, strict=True)))

    # A number has no sharding, whatever the mesh around it.
    with ir.InsertionPoint(block), use_abstract_mesh(AbstractMesh((), ())):
        ins = [_cast(x, aval.dtype, ()) for x, aval in zip(block.arguments, numbers, strict=True)]
        outs = mlir.lower_fun(function)(ctx.replace(avals_in=numbers, avals_out=None), *ins)
        stablehlo.return_([_pack(outs, results, packed)])
    for inside in block.operations:  # thousands of call stacks take time, too
        inside.operation.location = op.location
    return _unpack(op.result, results, packed, shape)


def _operands(jaxpr: Any) -> dict[Any, Any]:
    """What a jaxpr needs for each element: the avals of its arguments and of its iotas."""
    read = [*(v for eqn in jaxpr.eqns for v in eqn.invars), *jaxpr.jaxpr.outvars]
    used = {v for v in read if not isinstance(v, Literal)}
    found: dict[Any, Any] = {v: v.aval for v in jaxpr.jaxpr.invars if v in used}
    iotas = [eqn for eqn in operations(jaxpr) if eqn.primitive.name == "iota"]
    return found | {Iota.of(eqn): eqn.outvars[0].aval for eqn in iotas}


def _array(x: Any, name: Any, aval: Any, shape: Shape) -> Any:
    """An operand: an array of the map's shape."""
    kind = _type(shape, _carrier(aval.dtype))
    if isinstance(name, Iota):
        x = stablehlo.IotaOp(_type(shape, name.dtype), mlir.i64_attr(name.dimension)).result
    x = _cast(x, _carrier(aval.dtype), aval.shape)
    none = ir.DenseI64ArrayAttr.get([])
    return x if aval.shape else stablehlo.broadcast_in_dim(kind, x, none)


def _sharding_rule(operands: int, shape: Shape) -> Any:
    """All operands and the result are sharded alike."""
    names = FACTORS[: len(shape)]
    one = f"[{', '.join(names)}]"
    sizes = ", ".join(f"{n}={d}" for n, d in zip(names, shape, strict=True))
    return ir.Attribute.parse(
        f"#sdy.op_sharding_rule<({', '.join([one] * operands)})->({one}) {{{sizes}}}>"
    )


def _pack(outs: Sequence[Any], results: Sequence[Any], packed: np.dtype) -> Any:
    if len(results) == 1:
        return _cast(outs[0], packed, ())
    words = []
    for i, at in _places(results).items():
        bits = _cast(outs[i], _unsigned(_bits(results[i])), ())
        word = stablehlo.convert(_type((), packed), bits)
        words.append(stablehlo.shift_left(word, _constant(at, packed, ())) if at else word)
    return functools.reduce(stablehlo.or_, reversed(words))


def _unpack(word: Any, results: Sequence[Any], packed: np.dtype, shape: Shape) -> list[Any]:
    if len(results) == 1:
        return [_cast(word, results[0], shape)]
    outs = {}
    for i, at in _places(results).items():
        x = stablehlo.shift_right_logical(word, _constant(at, packed, shape)) if at else word
        bits = stablehlo.convert(_type(shape, _unsigned(_bits(results[i]))), x)
        outs[i] = _cast(bits, results[i], shape)
    return [outs[i] for i in range(len(results))]


def _places(results: Sequence[Any]) -> dict[int, int]:
    """The first bit of each result, lowest first; those of 32 bits fill one half of the word."""
    places, at = {}, 0
    for i in sorted(range(len(results)), key=lambda i: (_bits(results[i]), -i)):
        at = max(at, WORD // 2) if _bits(results[i]) == WORD // 2 and at else at
        places[i] = at
        at += _bits(results[i])
    return places


def _bits(dtype: Any) -> int:
    """The size of a real number in bits; 0 if it is no whole number of bytes, or no real number."""
    for kind, info in ((jnp.floating, jnp.finfo), (jnp.integer, jnp.iinfo)):
        if jnp.issubdtype(dtype, kind):
            bits = int(info(dtype).bits)
            return bits if bits in (8, 16, 32, 64) else 0
    return 0


def _carrier(dtype: Any) -> np.dtype:
    """The dtype of an operand: XLA wants the floats among them to be of one precision."""
    is_float = jnp.issubdtype(dtype, jnp.floating)
    return _unsigned(_bits(dtype)) if is_float and dtype != jnp.float32 else np.dtype(dtype)


def _cast(x: Any, dtype: Any, shape: Shape) -> Any:
    """The same bits in another dtype."""
    kind = _type(shape, dtype)
    return x if x.type == kind else stablehlo.bitcast_convert(kind, x)


def _constant(x: int, dtype: np.dtype, shape: Shape) -> Any:
    kind = _type(shape, dtype)
    return stablehlo.constant(
        ir.DenseElementsAttr.get_splat(kind, ir.IntegerAttr.get(kind.element_type, x))
    )


def _type(shape: Shape, dtype: Any) -> Any:
    return ir.RankedTensorType.get(shape, mlir.dtype_to_ir_type(np.dtype(dtype)))


def _unsigned(bits: int) -> np.dtype:
    return np.dtype(f"uint{bits}")
