# SPDX-License-Identifier: Apache-2.0
"""The dtypes in which a leaf is computed, stored and returned.

Arithmetic is float32 for everything up to float32 and float64 for float64; complex numbers
follow the same rule part by part. Results never depend on `jax_numpy_dtype_promotion`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike


def of(x: ArrayLike | jax.ShapeDtypeStruct) -> jnp.dtype:
    """The dtype that JAX gives `x`: a NumPy float64 is a float32 unless x64 is enabled."""
    return jnp.result_type(x)


@functools.cache
def wider(a: DTypeLike, b: DTypeLike) -> jnp.dtype:
    """The narrowest dtype that holds both `a` and `b`; bfloat16 for two different 8-bit floats."""
    a, b = jnp.dtype(a), jnp.dtype(b)
    if a != b and {a.itemsize, b.itemsize} & {1}:  # JAX leaves 8-bit floats out of its promotion
        a, b = (jnp.dtype(jnp.bfloat16) if dtype.itemsize == 1 else dtype for dtype in (a, b))
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(a, b)


def working(*dtypes: DTypeLike) -> jnp.dtype:
    """The dtype to compute in: the widest of `dtypes`, and at least float32."""
    return functools.reduce(wider, dtypes, jnp.dtype(jnp.float32))


@functools.cache
def real(dtype: DTypeLike) -> jnp.dtype:
    """The dtype of the real part of `dtype`."""
    return jnp.finfo(dtype).dtype


def is_complex(dtype: DTypeLike) -> bool:
    """Whether `dtype` has an imaginary part."""
    return jnp.issubdtype(dtype, jnp.complexfloating)


def widen(x: ArrayLike) -> jax.Array:
    """`x` as a strongly typed array of its working dtype."""
    dtype = working(of(x))
    if isinstance(x, jax.Array) and x.dtype == dtype and not x.weak_type:
        return x
    return jnp.asarray(x).astype(dtype)


def cast(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`x` rounded to nearest in `dtype`. A real `dtype` drops the imaginary part; float16 clips
    finite numbers to its largest."""
    if jnp.iscomplexobj(x) and not is_complex(dtype):
        x = x.real
    if dtype == jnp.float16 and x.dtype != dtype:
        most = jnp.asarray(jnp.finfo(dtype).max, x.dtype)
        x = jnp.where(jnp.isinf(x), x, lax.clamp(-most, x, most))
    return x.astype(dtype)


def by_part(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """`function` of a real array, or of both parts of a complex one, in the dtype of `x`."""
    if not jnp.iscomplexobj(x):
        return function(x).astype(x.dtype)
    return lax.complex(
        function(x.real).astype(real(x.dtype)), function(x.imag).astype(real(x.dtype))
    )
