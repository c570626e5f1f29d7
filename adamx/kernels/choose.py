# SPDX-License-Identifier: Apache-2.0
"""Whether a leaf can be stepped by a loop in C++, and by which."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamx.core import dtypes, kernel_use
from adamx.core.rule import Rule, is_signed
from adamx.core.shards import Shape
from adamx.kernels import library, twins
from adamx.kernels.primitive import Loop
from adamx.storage.compact import PACKED, Compact
from adamx.storage.floats import Floats

# The order of `enum Storage` in csrc/work.h: by the dtypes of means and of other moments.
_STORAGES = {
    ("float32", "float32"): 0,
    ("bfloat16", "bfloat16"): 1,
    ("bfloat16", "float32"): 2,
    ("float32", "bfloat16"): 3,
}
_INT8, _INT4 = 4, 5
_MAX_DIMS = 8  # kMaxDims


def loop(
    rule: Rule, storage: Any, stored: Mapping[str, Any], gradient: Any, whole: Shape | None
) -> Loop | None:
    """The loop that makes the direction of a leaf, or None."""
    found = twins.of(rule.formula) if library.used() else None
    if found is None or not _fits(gradient, whole):
        return None
    number = _storage(rule, storage, stored)
    if number is None or not laid_alike(gradient, *stored.values()):
        return None
    return Loop(found.rule, number, whole=whole, in_place=kernel_use.now().in_place)


def laid_alike(*arrays: Any) -> bool:
    """Whether the types of arrays, in an Explicit mesh, say that they are cut alike."""
    specs = {getattr(jax.typeof(x).sharding, "spec", None) for x in arrays}
    return len(specs) == 1


def pays_alone(loop: Loop) -> bool:
    """Whether a loop that makes directions alone is faster than XLA.

    Moments in float32 XLA steps as fast, together with whatever becomes of the direction; of others
    it makes copies.
    """
    return loop.storage > 0


def vector(rule: Rule, scalars: Mapping[str, Any], own: tuple[Any, ...] = (0,) * 4) -> Any:
    """All scalars of a step: those of the rule, then rate, decay strength and the two factors of
    the gradient."""
    found: Any = twins.of(rule.formula)
    mine = [scalars.get(name, _ABSENT.get(name, 0)) for name in found.scalars]
    filled = [*mine, *[0] * (_SCALARS - len(mine) - len(own)), *own]
    if all(isinstance(x, int | float | np.generic) for x in filled):
        return np.asarray(filled, np.float32)
    return jnp.stack([jnp.asarray(x).astype(jnp.float32) for x in filled])


_SCALARS = 20  # kMaxScalars
_ABSENT = {"bound": np.inf}  # what leaves a formula without an optional scalar; others are 0


def _fits(gradient: Any, whole: Any) -> bool:
    half_or_float = dtypes.of(gradient) in (jnp.float32, jnp.bfloat16)
    return half_or_float and (whole is None or len(whole) <= _MAX_DIMS)


def _storage(rule: Rule, storage: Any, stored: Mapping[str, Any]) -> int | None:
    if type(storage) is Compact:
        codes = all(a.dtype in (jnp.int8, jnp.uint8) for a in stored.values())
        packed = PACKED in stored
        fits = codes and (not packed or len(stored) == 1)
        return (_INT4 if packed else _INT8) if fits else None
    if type(storage) is not Floats:
        return None
    means = {str(stored[k].dtype) for k, kind in rule.moments.items() if is_signed(kind)}
    others = {str(stored[k].dtype) for k, kind in rule.moments.items() if not is_signed(kind)}
    if len(means) > 1 or len(others) > 1:
        return None
    return _STORAGES.get((*means, *(others or means)))  # pyright: ignore[reportArgumentType]
