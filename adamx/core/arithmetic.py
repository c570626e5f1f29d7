# SPDX-License-Identifier: Apache-2.0
"""The few operations that rules are written in, each safe where the plain one is not.

All work on real and complex arrays; scalars have the real dtype of the arrays.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from adamx.core.hyperparameters import Split


def weights(b: ArrayLike | Split, t: jax.Array) -> tuple[Any, Any]:
    """`b` and `1 - b` in the dtype of `t`, each with all its digits.

    `1 - b` is subtracted in double precision where `b` is a Python number. A rate that was rounded
    to 1 by a cast to half precision (0.999 in bfloat16) is replaced by the last number before 1.
    This gives a plain average of all gradients instead of 0 / 0.
    """
    if isinstance(b, int | float):
        return t.dtype.type(b), t.dtype.type(1.0 - b)
    if isinstance(b, Split):
        return b.high + b.low, (1 - b.high) - b.low
    b = jnp.minimum(jnp.asarray(b, t.dtype), 1 - _last_gap(t))
    return b, 1 - b


def correction(c: jax.Array, t: jax.Array) -> jax.Array:
    """`1 - (1 - c)^t`, the total weight of t steps in an average with rate `1 - c`.

    `-expm1(t log(1 - c))` keeps digits that `1 - b**t` loses: at `b = 1 - 1e-7` the plain form is
    off by 9% in float32.
    """
    return -jnp.expm1(t * log_rate(c))


def log_rate(c: jax.Array) -> jax.Array:
    """`log(1 - c)`, with a finite value and derivative at `c = 1` too."""
    return jnp.log1p(-jnp.minimum(c, 1 - _last_gap(c)))


def _last_gap(x: jax.Array) -> float:
    """The distance from 1 to the number before it, in the dtype of `x`."""
    return float(jnp.finfo(x.dtype).epsneg)


def lerp(average: jax.Array, x: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """`b average + c x` for `b + c = 1`, computed from the smaller weight, which has more digits.

    The larger weight's part is whole: `average + c (x - average)` loses an `x` that is small beside
    the average where `c` is near 1, and all of it at `b = 0`.
    """
    if isinstance(b, np.generic) and isinstance(c, np.generic):
        return x + times(b, average - x) if b < c else average + times(c, x - average)
    start, end = jnp.where(b < c, x, average), jnp.where(b < c, average, x)
    weight = jnp.where(b < c, b, c)  # of `minimum`, two derivatives would cancel at b = 1/2
    return start + times(weight, end - start)


def times(scalar: jax.Array, x: jax.Array) -> jax.Array:
    """`scalar * x` for a real scalar and a real or complex `x`."""
    return scalar.astype(x.dtype) * x


def abs_sq(x: jax.Array) -> jax.Array:
    """`|x|^2`, real."""
    return x.real**2 + x.imag**2 if jnp.iscomplexobj(x) else x * x


def saturated(g: jax.Array, narrowest: Any) -> jax.Array:
    """`g` with finite values held within the root of the narrowest dtype's range; inf becomes NaN.

    The square of a float32 gradient of 1e20 is inf, and inf in a moment is for ever. Held at 2^62
    (2^510 if all is float64), squares and three-fold sums of squares stay finite, and a coordinate
    that met one wild gradient moves again as soon as b2 has forgotten it.
    """
    if jnp.iscomplexobj(g):
        return lax.complex(saturated(g.real, narrowest), saturated(g.imag, narrowest))
    most = jnp.asarray(2.0 ** (jnp.finfo(narrowest).maxexp // 2 - 2), g.dtype)
    return lax.clamp(-most, g, most) + 0 * g  # inf * 0 is NaN: an infinite gradient stays visible


def magnitude(x: jax.Array) -> jax.Array:
    """`|x|`, real, with derivative 0 at 0."""
    return root(abs_sq(x)) if jnp.iscomplexobj(x) else jnp.abs(x)


@jax.custom_jvp
def root(x: jax.Array) -> jax.Array:
    """`sqrt(x)` with derivative 0 at 0, where the true one is infinite and 0 * inf is NaN."""
    return jnp.sqrt(x)


@root.defjvp
def _root_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    y = root(x)
    return y, jnp.where(x > 0, 0.5 / jnp.where(x > 0, y, 1), 0) * dx


@jax.custom_jvp
def straight(rounded: jax.Array, plain: jax.Array) -> jax.Array:
    """`rounded` with the derivative of `plain` (straight-through), as rounding itself has none."""
    return rounded


@straight.defjvp
def _straight_jvp(primals, tangents):
    return primals[0], tangents[1].astype(primals[0].dtype)


def ratio(top: jax.Array, bottom: jax.Array, eps: Any = 0.0) -> jax.Array:
    """`top / (bottom + eps)`; `top` itself, which is only underflow, where the divisor is 0."""
    bottom = bottom + eps
    if not (isinstance(eps, np.generic) and float(eps) > 0):  # else it is known not to be 0
        bottom = jnp.where(bottom == 0, 1, bottom)
    if jnp.iscomplexobj(top):
        return lax.complex(top.real / bottom, top.imag / bottom)
    return top / bottom
