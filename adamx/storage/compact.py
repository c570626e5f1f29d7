# SPDX-License-Identifier: Apache-2.0
"""Moments in one byte each (`int8`), or a mean and its square in one byte together (`int4`).

The state is arrays of the parameter's shape and nothing else. Squares are stored as a code of their
fourth root, means as a ratio to the stored root. Both are rounded stochastically and without bias;
rounded to nearest, slow averages would stand still. The last code is for non-finite values.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from adamx.core import dtypes, random_bits
from adamx.core.random_bits import Seed
from adamx.core.rule import Kind, is_signed
from adamx.core.values import value
from adamx.storage.means import Alone, Ratios
from adamx.storage.pair import Pair
from adamx.storage.squares import Sizes, Squares
from adamx.storage.storage import Arrays, Kinds

# A root below 2^-28 = 4e-9 is small against the default epsilon. Above 2^8 both moments are clipped
# by the same factor, which keeps their ratio, the step. Half of the ratio codes are below 1/4.
SQUARES, RATIOS, ALONE = Squares(254, -28, 8), Ratios(127, 0.25), Alone(127, -32, 8)
# Roots 2.5 octaves apart, ratios from 0.08 to 8: 13 x 19 codes plus one for NaN.
PAIR = Pair(Squares(13, -26, 4), Ratios(9, 0.7, 0.8))

PACKED = "packed"


def int8(seed: Seed = 0) -> "Compact":
    """One byte per moment: 2 bytes per parameter for Adam's two; 3 for AdaBelief's."""
    return Compact("int8", None, seed)


def int4(seed: Seed = 0) -> "Compact":
    """One byte for a mean and its square together, one byte for each other moment.

    Rules with a maximum (Adamax, AMSGrad) or without a bound on the mean (AdaBelief) are stored as
    by `int8`: one byte would be too coarse for them.
    """
    return Compact("int4", PAIR, seed)


@value
class Compact:
    """Moments as small integers; means of complex leaves stay complex.

    Attributes:
      name: its name in error messages.
      pair: the coarser codes of a square and a mean that share a byte; None for a byte each.
      seed: the seed of the rounding noise.
    """

    name: str
    pair: Pair | None = None
    seed: Seed = 0

    def fields(self, kinds: Kinds) -> tuple[str, ...]:
        shared = self._shared(kinds)
        return (PACKED, *(k for k in kinds if k not in shared)) if shared else tuple(kinds)

    def init(self, like: ArrayLike, kinds: Kinds, start: Mapping) -> Arrays:
        books = self._books(kinds)
        codes: Arrays = {
            k: jnp.int32(0 if is_signed(kind) else books[k].nearest(start.get(k, 0)))
            for k, kind in kinds.items()
        }
        arrays = {}
        for name, code in self._joined(codes, kinds).items():
            dtype = self._dtype(name, kinds, dtypes.of(like))
            value = start.get(name, 0) if dtypes.is_complex(dtype) else code
            arrays[name] = jnp.full_like(like, value, dtype=dtype)
        return arrays

    def decode(self, arrays: Arrays, kinds: Kinds) -> Arrays:
        books, codes, anchor = self._books(kinds), self._split(arrays, kinds), _anchor(kinds)
        root = books[anchor].root(codes[anchor]) if anchor else None
        return {
            k: books[k].decode(code, _scale(kinds[k], root)) if _is_code(code) else code
            for k, code in codes.items()
        }

    def encode(self, moments: Arrays, kinds: Kinds, old: Arrays, key: random_bits.Key) -> Arrays:
        books, before, anchor = self._books(kinds), self._split(old, kinds), _anchor(kinds)
        codes, root = {}, None
        for draw, name in enumerate(sorted(kinds, key=lambda k: is_signed(kinds[k]))):
            moment = _narrow(moments[name], kinds[name])
            bits = random_bits.bits(key, moment.shape, draw)
            bits = self._noise(name, kinds, moment, before[name], bits)
            beside = _scale(kinds[name], root) if is_signed(kinds[name]) else before[name]
            coded = _is_code(before[name])
            codes[name] = books[name].encode(moment, beside, bits) if coded else moment
            if name == anchor:
                root = books[name].scale(codes[name], moment)
        return {k: dtypes.cast(a, old[k].dtype) for k, a in self._joined(codes, kinds).items()}

    def ends(self, arrays: Arrays, kinds: Kinds) -> tuple[jax.Array | float, jax.Array | float]:
        name = next((k for k, kind in kinds.items() if not is_signed(kind)), None)
        if name is None:
            return 0.0, 0.0
        code = self._split(arrays, kinds)[name]
        return code == 1, code == self._books(kinds)[name].nan - 1

    def complaint(self, arrays: Arrays, kinds: Kinds, gradient: jnp.dtype) -> str:
        for name, array in arrays.items():
            if array.dtype != (want := self._dtype(name, kinds, array.dtype)):
                return f"the state's `{name}` is {array.dtype}, storage {self.name!r} has {want}"
            real_mean = name == PACKED or (is_signed(kinds[name]) and not jnp.iscomplexobj(array))
            if dtypes.is_complex(gradient) and real_mean:
                return f"gradient is {gradient}, the state's `{name}` is real ({array.dtype})"
        return ""

    def _books(self, kinds: Kinds) -> dict[str, Any]:
        """The code of each moment."""
        shared, anchor = self._shared(kinds), _anchor(kinds)
        books = {}
        for name, kind in kinds.items():
            squares, ratios = self.pair if self.pair and name in shared else (SQUARES, RATIOS)
            if is_signed(kind):
                books[name] = ratios if anchor or kind == "normalised" else ALONE
            else:
                books[name] = Sizes(squares) if kind == "magnitude" else squares
        return books

    def _noise(self, name: str, kinds: Kinds, moment: jax.Array, old: Any, bits: Any) -> Any:
        """The bits to round by: a new maximum is rounded to nearest, or its chances add up."""
        if kinds[name] == "maximum":
            return jnp.full_like(bits, _HALF)
        if kinds[name] == "magnitude":
            return jnp.where(moment > self._books(kinds)[name].decode(old), _HALF, bits)
        return bits

    def _shared(self, kinds: Kinds) -> tuple[str, ...]:
        """The names of the square and the mean that share a byte; empty if none do."""
        square = next((k for k, kind in kinds.items() if kind == "squared"), None)
        mean = next((k for k, kind in kinds.items() if is_signed(kind)), None)
        # The largest of many coarse roundings would be far too large.
        fits = self.pair and square and mean and "maximum" not in kinds.values()
        return (square, mean) if fits and square and mean else ()

    def _joined(self, codes: Arrays, kinds: Kinds) -> Arrays:
        if not self.pair or not (shared := self._shared(kinds)):
            return codes
        alone = {k: code for k, code in codes.items() if k not in shared}
        return {PACKED: self.pair.join(*(codes[k] for k in shared)), **alone}

    def _split(self, arrays: Arrays, kinds: Kinds) -> Arrays:
        codes = {
            k: a.astype(jnp.int32) if _is_code(a) else dtypes.widen(a) for k, a in arrays.items()
        }
        if not self.pair or not (shared := self._shared(kinds)):
            return codes
        codes |= zip(shared, self.pair.split(codes.pop(PACKED)), strict=True)
        return {k: codes[k] for k in kinds}

    def _dtype(self, name: str, kinds: Kinds, leaf: jnp.dtype) -> jnp.dtype:
        if name == PACKED and dtypes.is_complex(leaf):
            raise TypeError(f"storage {self.name!r} has no room for complex means: use 'int8'")
        if name == PACKED or not is_signed(kinds[name]):
            return jnp.dtype(jnp.uint8)
        if "spread" in kinds.values() and not dtypes.is_complex(leaf):
            return jnp.dtype(jnp.bfloat16)  # 8 bits of a mean would lose the distance from it
        return dtypes.working(leaf) if dtypes.is_complex(leaf) else jnp.dtype(jnp.int8)


def _is_code(array: jax.Array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.integer)


_HALF = np.uint32(1 << 31)


def _narrow(moment: jax.Array, kind: Kind) -> jax.Array:
    """A float64 moment as float32, clipped to the range of moments of float32 gradients."""
    if moment.dtype != jnp.float64:
        return moment
    small = is_signed(kind) or kind == "magnitude"
    most = jnp.asarray(2.0**62 if small else 2.0**124, moment.dtype)
    held = jnp.where(jnp.isinf(moment), moment, lax.clamp(-most, moment, most))
    return held.astype(jnp.float32)


def _anchor(kinds: Kinds) -> str | None:
    """The name of the square or maximum whose root bounds means and is the unit of their codes."""
    return next((k for k, kind in kinds.items() if kind in ("squared", "magnitude")), None)


def _scale(kind: Kind, root: jax.Array | None) -> Any:
    return jnp.float32(1) if kind == "normalised" else root
