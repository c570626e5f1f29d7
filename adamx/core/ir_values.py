# SPDX-License-Identifier: Apache-2.0
"""Types, constants and casts of StableHLO, by NumPy dtypes and shapes."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters import mlir


def bits_as(x: Any, dtype: Any, shape: tuple[int, ...]) -> Any:
    """The same bits in another dtype."""
    kind = type_of(shape, dtype)
    return x if x.type == kind else stablehlo.bitcast_convert(kind, x)


def carrier(dtype: Any) -> np.dtype:
    """The dtype of an operand: XLA wants the floats among them to be of one precision."""
    dtype = np.dtype(dtype)
    is_float = jnp.issubdtype(dtype, np.floating)
    return unsigned(8 * dtype.itemsize) if is_float and dtype != np.float32 else dtype


def constant(x: int, dtype: np.dtype, shape: tuple[int, ...]) -> Any:
    kind = type_of(shape, dtype)
    return stablehlo.constant(
        ir.DenseElementsAttr.get_splat(kind, ir.IntegerAttr.get(kind.element_type, x))
    )


def type_of(shape: tuple[int, ...], dtype: Any) -> Any:
    return ir.RankedTensorType.get(shape, mlir.dtype_to_ir_type(np.dtype(dtype)))


def unsigned(bits: int) -> np.dtype:
    return np.dtype(f"uint{bits}")


def bits_of(aval: Any) -> int:
    return 8 * np.dtype(aval.dtype).itemsize
