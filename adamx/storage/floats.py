# SPDX-License-Identifier: Apache-2.0
"""Moments as floating-point arrays: `float32`, the default, and `bfloat16`.

A mean is rounded to nearest. A mean of squares (or a decaying maximum) moves by less than half a
unit of bfloat16 per step at b2 = 0.999. Rounded to nearest it would stand still: 1.0 stays 1.0 for
10,000 steps. It is rounded stochastically instead, which keeps its expectation exact. So is a mean
of the kind `"slow"`, which at b3 = 0.9999 would stand still at 3% of a constant gradient.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from adamx.core import dtypes, random_bits
from adamx.core.arithmetic import straight
from adamx.core.random_bits import Seed
from adamx.core.rule import Kind, is_signed
from adamx.core.values import value
from adamx.storage.storage import Arrays


@value
class Floats:
    """Each moment is a floating-point array.

    Attributes:
      name: its name in error messages.
      mean: the dtype of signed moments; None means the parameter's, at least float32.
      square: the dtype of squares and magnitudes; None as above.
      seed: the seed of stochastic rounding.
      complex_mean: whether signed moments of complex leaves stay complex despite `mean`.
    """

    name: str
    mean: jnp.dtype | None = None
    square: jnp.dtype | None = None
    seed: Seed | None = None
    complex_mean: bool = False

    def fields(self, kinds: Mapping[str, Kind]) -> tuple[str, ...]:
        return tuple(kinds)

    def init(self, like: ArrayLike, kinds: Mapping[str, Kind], start: Mapping[str, Any]) -> Arrays:
        stored = {k: self._dtype(kind, dtypes.of(like)) for k, kind in kinds.items()}
        return {k: jnp.full_like(like, start.get(k, 0), dtype=d) for k, d in stored.items()}

    def decode(self, arrays: Arrays, kinds: Mapping[str, Kind]) -> Arrays:
        return {k: _real_unless_signed(dtypes.widen(a), kinds[k]) for k, a in arrays.items()}

    def encode(
        self, moments: Arrays, kinds: Mapping[str, Kind], old: Arrays, key: random_bits.Key
    ) -> Arrays:
        drawing = [k for k in moments if self._draws(kinds[k], old[k].dtype)]
        noise = random_bits.noise(key, moments[drawing[0]].shape) if drawing else None
        return {
            k: straight(stochastic(m, noise.draw(1 + drawing.index(k))), m)
            if noise and k in drawing
            else dtypes.cast(m, old[k].dtype)
            for k, m in moments.items()
        }

    def _draws(self, kind: Kind, dtype: jnp.dtype) -> bool:
        """Whether a moment is rounded stochastically."""
        moves_little = kind == "slow" or not (is_signed(kind) or kind == "maximum")
        return moves_little and dtype == jnp.bfloat16

    def ends(
        self, arrays: Arrays, kinds: Mapping[str, Kind]
    ) -> tuple[jax.Array | float, jax.Array | float]:
        name = next((k for k, kind in kinds.items() if not is_signed(kind)), None)
        if name is None:
            return 0.0, 0.0
        x, finfo = jnp.abs(arrays[name]), jnp.finfo(arrays[name].dtype)
        return (x > 0) & (x <= finfo.tiny), x >= finfo.max

    def complaint(self, arrays: Arrays, kinds: Mapping[str, Kind], gradient: jnp.dtype) -> str:
        for name, array in arrays.items():
            if array.dtype != (want := self._dtype(kinds[name], array.dtype)):
                return f"the state's `{name}` is {array.dtype}, storage {self.name!r} has {want}"
            if is_signed(kinds[name]) and dtypes.is_complex(gradient) > jnp.iscomplexobj(array):
                return f"gradient is {gradient}, the state's `{name}` is real ({array.dtype})"
        return ""

    def _dtype(self, kind: Kind, leaf: jnp.dtype) -> jnp.dtype:
        asked = self.mean if is_signed(kind) else self.square
        if kind == "slow" and asked == jnp.float16:
            raise TypeError(
                "`mu_dtype` must not be float16: a mean that forgets so slowly would stand still; "
                "bfloat16 is rounded stochastically"
            )
        keep = is_signed(kind) and self.complex_mean and dtypes.is_complex(leaf)
        return dtypes.working(leaf) if asked is None or keep else asked


def of_dtypes(mu_dtype: DTypeLike | None, nu_dtype: DTypeLike | None, seed: Seed = 0) -> Floats:
    """The storage for `mu_dtype` and `nu_dtype`; None means the parameter's, at least float32."""
    mu, nu = _checked("mu_dtype", mu_dtype), _checked("nu_dtype", nu_dtype)
    if nu == jnp.float16:
        raise ValueError("`nu_dtype` must not be float16: squares below 6e-8 are 0 in it")
    if mu is None and nu is None:
        return float32()
    shown = [f"{k}={v}" for k, v in (("mu_dtype", mu), ("nu_dtype", nu)) if v is not None]
    return Floats(", ".join(shown), mu, nu, seed if jnp.bfloat16 in (mu, nu) else None)


def float32() -> Floats:
    """Moments in float32, or in the parameter's dtype if that is wider.

    Example:
      >>> import adamx
      >>> opt = adamx.adamw(1e-3, storage=float32())  # as without `storage`
    """
    return Floats("float32")


def bfloat16(seed: Seed = 0) -> Floats:
    """Moments in bfloat16, squares rounded stochastically; means of complex leaves stay complex.

    Example:
      >>> import adamx
      >>> opt = adamx.adamw(1e-3, storage=bfloat16())  # 4 bytes per parameter for both moments
    """
    dtype = jnp.dtype(jnp.bfloat16)
    return Floats("bfloat16", dtype, dtype, seed, complex_mean=True)


def stochastic(x: jax.Array, bits: jax.Array) -> jax.Array:
    """`x` rounded stochastically to bfloat16, with expectation `x`.

    bfloat16 is the upper half of a float32: adding 16 random bits to the lower half carries into
    the upper half with the right probability. inf stays inf, NaN stays NaN.
    """
    word = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
    word = (word + lax.shift_right_logical(bits, np.int32(16))) & ~0xFFFF
    rounded = lax.bitcast_convert_type(word, jnp.float32)
    return jnp.where(jnp.isnan(x), jnp.nan, rounded).astype(jnp.bfloat16)


def _real_unless_signed(x: jax.Array, kind: Kind) -> jax.Array:
    return x if is_signed(kind) else x.real


def _checked(name: str, dtype: DTypeLike | None) -> jnp.dtype | None:
    if dtype is None:
        return None
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.inexact) or dtype.itemsize < 2:
        raise ValueError(
            f"`{name}` must be a floating dtype of at least 16 bits, got {dtype}; "
            "for fewer bits use `storage`"
        )
    return dtype
