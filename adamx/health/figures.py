# SPDX-License-Identifier: Apache-2.0
"""The figures of a run's health, each a scalar, computed from the statistics of the leaves.

grad_norm, update_norm, param_norm  with `_rms` instead, divided by sqrt(number of elements)
update_ratio    norm of the update / norm of the parameters; about 1e-3 is usual
cosine          of gradient and mean: near 0 the mean is noise, near 1 steps could be longer
noise_scale     variance of gradients / their squared mean; times the batch size, the batch size
                above which larger batches help less (McCandlish et al., arXiv 1812.06162)
rate_p10, rate_p50, rate_p90  quantiles over elements of |update| / |mean of gradients|
under_epsilon   share of elements, idle ones excluded, with a root below epsilon: steps shrink
idle            share of elements without a gradient for a long time, as in dead rows and units
lost            share of updates that are lost to rounding in the parameter's dtype
at_floor, at_ceiling  share of second moments at the smallest or largest value of their format

A figure is NaN where it is unknown: those of moments with any optimizer that is not adamx's, such
as `optax.adamw`, and those of mean squares with a rule that has none, such as Lion's.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from adamx.core import norms
from adamx.health.leaf_stats import Leaf

NAMES = (
    *("grad_norm", "grad_rms", "update_norm", "update_rms", "param_norm", "param_rms"),
    *("update_ratio", "cosine", "noise_scale", "rate_p10", "rate_p50", "rate_p90"),
    *("under_epsilon", "idle", "lost", "at_floor", "at_ceiling"),
)


def of(leaves: Sequence[Leaf]) -> dict[str, jax.Array]:
    """The figures of a group of leaves, keyed by `NAMES`."""
    if not leaves:
        return dict.fromkeys(NAMES, jnp.full([], jnp.nan, jnp.float32))
    size = max(1, sum(leaf.size for leaf in leaves))
    grad, update, param, mean, root = (
        _norm([getattr(leaf, k) for leaf in leaves])
        for k in ("grad", "update", "param", "mean", "root")
    )
    moved, lost, squares, under, idle, floor, ceiling = (
        jnp.sum(jnp.stack([getattr(leaf, k) for leaf in leaves]))
        for k in ("moved", "lost", "squares", "under_epsilon", "idle", "at_floor", "at_ceiling")
    )
    rates = jnp.concatenate([leaf.rates for leaf in leaves])
    low, middle, high = jnp.nanquantile(rates, jnp.array([0.1, 0.5, 0.9], jnp.float32))
    scale = size**0.5
    figures = (
        *(grad, grad / scale, update, update / scale, param, param / scale),
        *(_over(update, param), _cosine(leaves, grad, mean), _noise_scale(leaves, mean, root)),
        *(low, middle, high),
        *(
            _over(under, squares),
            _over(idle, squares),
            _over(lost, moved),
            _over(floor, squares),
            _over(ceiling, squares),
        ),
    )
    return dict(zip(NAMES, (jnp.float32(x) for x in figures), strict=True))


def _norm(parts: list[jax.Array]) -> jax.Array:
    return norms.safe_norm(jnp.stack([jnp.float32(x) for x in parts]), axis_name=())


def _over(part: jax.Array, whole: jax.Array) -> jax.Array:
    return jnp.where(whole == 0, jnp.nan, part / jnp.where(whole == 0, 1, whole))


def _cosine(leaves: Sequence[Leaf], grad: jax.Array, mean: jax.Array) -> jax.Array:
    """The group's cosine: the leaves' cosines, weighted by their shares of the group's norms."""
    parts = [_over(x.grad, grad) * _over(x.mean, mean) * x.cosine for x in leaves]
    known = (grad > 0) & (mean > 0)
    return jnp.where(known, jnp.nansum(jnp.stack(parts)), jnp.nan)


def _noise_scale(leaves: Sequence[Leaf], mean: jax.Array, root: jax.Array) -> jax.Array:
    """Variance over squared mean, from E root^2 = mean^2 + variance and E m^2 = mean^2 + share
    x variance."""
    share = jnp.max(jnp.stack([leaf.mean_share for leaf in leaves]))
    ratio = jnp.square(_over(mean, root))
    known = jnp.where(
        ratio > share, (1 - ratio) / jnp.where(ratio > share, ratio - share, 1), jnp.inf
    )
    return jnp.where(root == 0, jnp.nan, known)
