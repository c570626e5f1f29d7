# SPDX-License-Identifier: Apache-2.0
"""ADOPT: Taniguchi et al., 2024, arXiv 2411.02853. Converges with any b2.

The gradient is divided by the mean square of the steps *before* it, then averaged. The first step
only fills the mean square and moves nothing.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, complement, lerp, magnitude, ratio, root, times
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Kind, Rule


def fourth_root(count: jax.Array) -> jax.Array:
    """The paper's bound on a normalised gradient, `count^(1/4)`."""
    return count**0.25


def adopt(
    b1: Hyper = 0.9,
    b2: Hyper = 0.9999,
    eps: Hyper = 1e-6,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], jax.Array] | None = None,
) -> Rule:
    """A mean of gradients, each normalised by its past and bounded by `clip_value_fn(t - 1)`."""
    hyperparameters.check(b1=b1, b2=b2, eps=eps)
    bound_at = clip_value_fn or fourth_root

    def at(t, b1, b2, eps):
        first = t == 1
        scalars = {
            "c1": jnp.where(first, 0, complement(b1, t)),
            "c2": jnp.where(first, 1, complement(b2, t)),
            "eps": eps,
        }
        return scalars | ({"bound": bound_at(t - 1)} if use_clipping else {})

    def formula(g, mu, nu, *, c1, c2, eps, bound=None):
        x = ratio(g, jnp.maximum(root(nu), eps))
        if bound is not None:
            x = _bounded(x, bound)
        mu = lerp(mu, x, c1)
        u = lerp(mu, x, c1) if nesterov else mu
        return u, {"mu": mu, "nu": lerp(nu, abs_sq(g), c2)}

    values = {"b1": b1, "b2": b2, "eps": eps}
    moments: dict[str, Kind] = {"mu": "normalised", "nu": "squared"}
    return Rule("adopt", optax.ScaleByAdamState, moments, values, at, formula)


def _bounded(x: jax.Array, bound: jax.Array) -> jax.Array:
    if not jnp.iscomplexobj(x):
        return jnp.where(jnp.isinf(x), x, lax.clamp(-bound, x, bound))
    size = magnitude(x)
    return times(jnp.where(size > bound, bound / jnp.where(size == 0, 1, size), 1), x)
