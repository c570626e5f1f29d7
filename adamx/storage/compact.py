# SPDX-License-Identifier: Apache-2.0
"""Moments in one byte each (`int8`), or a mean and its square in one byte together (`int4`).

The state is arrays of the parameter's shape and nothing else. Squares are stored as the upper bits
of a float, means as a ratio to the stored root. Both are rounded stochastically and without bias;
rounded to nearest, slow averages would stand still. The last code of a square is for what is not
finite.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from adamx.core import dtypes, random_bits
from adamx.core.arithmetic import straight, times
from adamx.core.random_bits import Seed
from adamx.core.rule import Kind, is_signed
from adamx.core.values import value
from adamx.storage import pair
from adamx.storage.cuts import pick
from adamx.storage.floats import stochastic
from adamx.storage.means import ALONE, MEANS, Means
from adamx.storage.squares import MAGNITUDES, SQUARES, Squares, leaning
from adamx.storage.storage import Arrays, Kinds

PACKED = "packed"


def int8(seed: Seed = 0) -> "Compact":
    """One byte per moment: 2 bytes per parameter for Adam's two; 3 for AdaBelief's; two for a mean
    that forgets slowly: 4 for AdEMAMix's three."""
    return Compact("int8", False, seed)


def int4(seed: Seed = 0) -> "Compact":
    """One byte for a mean and its square together, one byte for each other moment.

    Rules with a maximum (Adamax, AMSGrad) or without a bound on the mean (AdaBelief) are stored as
    by `int8`: one byte would be too coarse for them.
    """
    return Compact("int4", True, seed)


@value
class Compact:
    """Moments as small integers; means of complex leaves stay complex.

    Attributes:
      name: its name in error messages.
      packs: whether a square and a mean share a byte.
      seed: the seed of the rounding noise.
    """

    name: str
    packs: bool = False
    seed: Seed = 0

    def fields(self, kinds: Kinds) -> tuple[str, ...]:
        shared = self._shared(kinds)
        return (PACKED, *(k for k in kinds if k not in shared)) if shared else tuple(kinds)

    def init(self, like: ArrayLike, kinds: Kinds, start: Mapping[str, Any]) -> Arrays:
        arrays = {}
        for name in self.fields(kinds):
            dtype, first = self._dtype(name, kinds, dtypes.of(like)), start.get(name, 0)
            if name == PACKED:
                first = pair.nearest(start.get(self._shared(kinds)[0], 0))
            elif not is_signed(kinds[name]):
                first = self._squares(kinds[name]).nearest(first)
            elif dtype == jnp.int8:
                first = 0
            arrays[name] = jnp.full_like(like, first, dtype=dtype)
        return arrays

    def decode(self, arrays: Arrays, kinds: Kinds) -> Arrays:
        moments, shared = {k: _wide(a) for k, a in arrays.items()}, self._shared(kinds)
        unit: Any = None
        bad: Any = None
        anchor = _anchor(kinds)
        if shared:
            byte = moments.pop(PACKED)
            unit, bad = pair.UNITS.number(byte >> 4), byte == pair.NAN
            square, mean = shared
            moments[square] = pair.square(byte)
            moments[mean] = pair.MEANS.decode(byte, _unit(kinds[mean], pair.MEANS, unit))
        elif anchor:
            book = self._squares(kinds[anchor])
            unit, bad = book.units.number(moments[anchor]), moments[anchor] > book.count
        for name in (k for k in kinds if k not in shared and _is_code(moments[k])):
            kind, code = kinds[name], moments[name]
            if not is_signed(kind):
                moments[name] = self._squares(kind).decode(code)
            elif anchor:
                moments[name] = MEANS.decode(code, _unit(kind, MEANS, unit))
            else:
                moments[name] = ALONE.decode(code)
        spoilt = [k for k in kinds if anchor and (is_signed(kinds[k]) or k in shared)]
        moments |= {k: pick(bad, jnp.nan, moments[k]) for k in spoilt}
        return {k: moments[k] for k in kinds}

    def encode(self, moments: Arrays, kinds: Kinds, old: Arrays, key: random_bits.Key) -> Arrays:
        moments = {k: _narrow(m, kinds[k]) for k, m in moments.items()}
        shared, anchor, unit = self._shared(kinds), _anchor(kinds), None
        for name in (k for k, kind in kinds.items() if kind == "normalised"):
            if anchor and _is_code(old[PACKED if name in shared else name]):
                moments[anchor] += 0 * moments[name]  # infinite by itself, where roots are tiny
        noise = random_bits.noise(key, next(iter(old.values())).shape)
        order = sorted(kinds, key=lambda k: is_signed(kinds[k]))
        bits = {name: noise.draw(i) for i, name in enumerate(order)}
        whole = [k for k in kinds if is_signed(kinds[k]) and k in old and not _is_code(old[k])]
        if shared:
            square, mean = shared
            code = pair.code(moments[square], bits[square])
            unit = pair.UNITS.number(code)
            own = _unit(kinds[mean], pair.MEANS, unit)
            moments[PACKED] = pair.join(code, pair.MEANS.encode(moments[mean], own, bits[mean]))
        for name in (k for k in order if k not in shared and _is_code(old[k])):
            kind, m = kinds[name], moments[name]
            if is_signed(kind) and anchor:
                moments[name] = MEANS.encode(m, _unit(kind, MEANS, unit), bits[name])
                continue
            if is_signed(kind):
                moments[name] = ALONE.encode(m, bits[name])
                continue
            book = self._squares(kind)
            code = book.encode(m, _rounding(kind, m, book, old[name], bits[name]))
            moments[name] = book.within(code)
            unit = book.units.number(code) if name == anchor else unit
            for k in whole if kind != "maximum" else ():
                moments[k] = _held_back(moments[k], book, code)
        for name in (k for k in whole if kinds[k] == "slow" and old[k].dtype == jnp.bfloat16):
            moments[name] = straight(stochastic(moments[name], bits[name]), moments[name])
        return {k: dtypes.cast(moments[k], old[k].dtype) for k in old}

    def ends(self, arrays: Arrays, kinds: Kinds) -> tuple[jax.Array | float, jax.Array | float]:
        if PACKED in arrays:
            byte = _wide(arrays[PACKED])
            return (byte > 0) & (byte < 16), (byte >= 15 << 4) & (byte < pair.NAN)
        name = next((k for k, kind in kinds.items() if not is_signed(kind)), None)
        if name is None:
            return 0.0, 0.0
        code = _wide(arrays[name])
        return code == 1, code == self._squares(kinds[name]).count

    def complaint(self, arrays: Arrays, kinds: Kinds, gradient: jnp.dtype) -> str:
        for name, array in arrays.items():
            if array.dtype != (want := self._dtype(name, kinds, array.dtype)):
                return f"the state's `{name}` is {array.dtype}, storage {self.name!r} has {want}"
            real_mean = name == PACKED or (is_signed(kinds[name]) and not jnp.iscomplexobj(array))
            if dtypes.is_complex(gradient) and real_mean:
                return f"gradient is {gradient}, the state's `{name}` is real ({array.dtype})"
        return ""

    def _squares(self, kind: Kind) -> Squares:
        """The code of a moment without a sign."""
        return MAGNITUDES if kind == "magnitude" else SQUARES

    def _shared(self, kinds: Kinds) -> tuple[str, ...]:
        """The names of the square and the mean that share a byte; empty if none do."""
        square = next((k for k, kind in kinds.items() if kind == "squared"), None)
        mean = next((k for k, kind in kinds.items() if kind in ("signed", "normalised")), None)
        # The largest of many coarse roundings would be far too large.
        fits = self.packs and square and mean and "maximum" not in kinds.values()
        return (square, mean) if fits and square and mean else ()

    def _dtype(self, name: str, kinds: Kinds, leaf: jnp.dtype) -> jnp.dtype:
        if name == PACKED and dtypes.is_complex(leaf):
            raise TypeError(f"storage {self.name!r} has no room for complex means: use 'int8'")
        if name == PACKED or not is_signed(kinds[name]):
            return jnp.dtype(jnp.uint8)
        # Of a slow mean no multiple of the root is a bound; beside a spread, 8 bits of a mean would
        # lose the distance from it.
        in_full = kinds[name] == "slow" or "spread" in kinds.values()
        if in_full and not dtypes.is_complex(leaf):
            return jnp.dtype(jnp.bfloat16)
        return dtypes.working(leaf) if dtypes.is_complex(leaf) else jnp.dtype(jnp.int8)


def _held_back(mean: jax.Array, book: Squares, code: jax.Array) -> jax.Array:
    """A mean that is stored as it is, clipped by the factor by which its root was."""
    factor = book.units.number(book.within(code)) / book.units.number(code)
    clipped = (code > book.count) & jnp.isfinite(factor)
    return times(pick(clipped, factor, jnp.ones_like(factor)), mean)


def _unit(kind: Kind, means: Means, unit: Any) -> Any:
    """The unit of a mean: `unit`, a part of the root, unless the root has divided it already."""
    return np.float32(means.part) if kind == "normalised" else unit


def _rounding(kind: Kind, moment: jax.Array, book: Squares, old: jax.Array, bits: jax.Array) -> Any:
    """The bits to round by: a new maximum is rounded to nearest, or its chances add up."""
    if kind == "maximum":
        return jnp.full_like(bits, _HALF)
    if kind == "magnitude":
        return jnp.where(moment > book.decode(_wide(old)), _HALF, bits)
    return leaning(bits)


_HALF = np.int32(-(2**31))  # as 32 bits, half of all that there are


def _anchor(kinds: Kinds) -> str | None:
    """The name of the square or maximum whose root bounds means and is the unit of their codes."""
    return next((k for k, kind in kinds.items() if kind in ("squared", "magnitude")), None)


def _is_code(array: jax.Array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.integer)


def _wide(array: jax.Array) -> jax.Array:
    """Codes in 32 bits, other arrays in their working dtype."""
    return array.astype(jnp.int32) if _is_code(array) else dtypes.widen(array)


def _narrow(moment: jax.Array, kind: Kind) -> jax.Array:
    """A float64 moment as float32, within the range of moments of float32 gradients."""
    return moment if moment.dtype != jnp.float64 else within_range(moment, kind).astype(jnp.float32)


def within_range(moment: jax.Array, kind: Kind) -> jax.Array:
    """A real moment whose finite values are held at the largest that float32 gradients make."""
    small = is_signed(kind) or kind == "magnitude"
    most = jnp.asarray(2.0**62 if small else 2.0**124, moment.dtype)
    return jnp.where(jnp.isinf(moment), moment, lax.clamp(-most, moment, most))


def fit_for_codes(moments: Arrays, kinds: Kinds) -> Arrays:
    """Moments as a step of ours makes them: finite squares within range, and one that is not finite
    where a mean beside it is not, whose code could not say so."""
    means = [m for k, m in moments.items() if is_signed(kinds[k])]
    bad = functools.reduce(jnp.logical_or, (~jnp.isfinite(m) for m in means), jnp.asarray(False))

    def fitting(name: str, x: Any) -> Any:
        if is_signed(kinds[name]):
            return x
        return jnp.where(bad, jnp.nan, within_range(x, kinds[name]))

    return {name: fitting(name, x) for name, x in moments.items()}
