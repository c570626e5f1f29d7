# SPDX-License-Identifier: Apache-2.0
"""Nesterov's momentum in Adam: Dozat, 2016, openreview OM0jvwB8jIp57ZJjtNEZ.

Instead of the corrected mean, a rule uses `am * mu + ag * g`. There are two forms: a constant b1
(Dozat's summary; Optax), and a b1 that warms up (Dozat's algorithm; torch):

    mu_t = b1 (1 - 0.96^(t psi) / 2),   P_t = mu_1 mu_2 ... mu_t
    am = mu_{t+1} / (1 - P_{t+1}),      ag = (1 - mu_t) / (1 - P_t)
"""

import jax
import jax.numpy as jnp

from adamx.core.arithmetic import correction, log_rate


def mean_weights(
    t: jax.Array,
    b1: jax.Array,
    c1: jax.Array,
    nesterov: bool,
    momentum_decay: float | jax.Array | None = None,
) -> dict[str, jax.Array]:
    """The weight `am` of the mean, and with Nesterov's momentum also `ag` of the gradient."""
    if not nesterov:
        return {"am": 1 / correction(c1, t)}
    if momentum_decay is None:
        return {"am": b1 / correction(c1, t + 1), "ag": c1 / correction(c1, t)}
    psi = jnp.asarray(momentum_decay, t.dtype)
    now, ahead = b1 * _warmth(t, psi), b1 * _warmth(t + 1, psi)
    return {
        "am": ahead / -jnp.expm1(_log_product(t + 1, c1, psi)),
        "ag": (1 - now) / -jnp.expm1(_log_product(t, c1, psi)),
    }


def _log_q(psi: jax.Array) -> jax.Array:
    return psi * jnp.log(jnp.asarray(0.96, psi.dtype))


def _warmth(t: jax.Array, psi: jax.Array) -> jax.Array:
    return 1 - jnp.exp(t * _log_q(psi)) / 2


def _log_product(t: jax.Array, c1: jax.Array, psi: jax.Array) -> jax.Array:
    """`log P_t` in closed form, so that the state needs no running product.

    With q = 0.96^psi, log(1 - q^i / 2) is a power series in q^i; summed over i = 1 .. t first, each
    power is a geometric series:  - sum_k 2^-k / k * q^k (1 - q^(kt)) / (1 - q^k).
    """
    k = jnp.arange(1, 60, dtype=t.dtype)
    step = k * jnp.minimum(_log_q(psi), -(jnp.finfo(t.dtype).tiny ** 0.5))
    series = 2.0**-k / k * jnp.exp(step) * jnp.expm1(t * step) / jnp.expm1(step)
    return t * log_rate(c1) - jnp.sum(series)
