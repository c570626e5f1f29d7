# SPDX-License-Identifier: Apache-2.0
"""Statistics of one leaf at one step: sums over its elements, for the figures of health.

Under ZeRO (`adamx.core.shards`) sums are over the whole array. Norms never over- or underflow.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from adamx.core import arithmetic, dtypes, hyperparameters, norms, paths, shards
from adamx.core.explicit_axes import replicated
from adamx.core.norms import mapped_axes
from adamx.core.values import parts
from adamx.moments.find import is_moments, side, template

SAMPLES = 1024
IDLE = 1e-6  # of |mean| / root: with b1 = 0.9, after some 130 steps without a gradient


class Leaf(NamedTuple):
    """Statistics of one leaf: scalars, and a sample of its elements' rates.

    Attributes:
      size: the number of elements.
      grad, update, param: norms.
      mean: the norm of the bias-corrected mean of gradients; 0 if no moments are known.
      root: the norm of the root of the bias-corrected mean square; 0 if no moments are known.
      mean_share: the share of a gradient's variance that is left in the mean.
      cosine: the cosine of gradient and mean.
      moved: the number of elements with a nonzero update.
      lost: the number of those whose parameter does not change.
      squares: the number of known mean squares.
      under_epsilon: how many of their roots are below epsilon, idle ones excluded.
      idle: how many elements have no gradient, and a mean below `IDLE` times the root or both zero.
      at_floor, at_ceiling: how many are at the smallest or largest value of their format.
      rates: |update| / |mean| of some elements; NaN where the mean is zero.
    """

    size: int
    grad: jax.Array
    update: jax.Array
    param: jax.Array
    mean: jax.Array
    root: jax.Array
    mean_share: jax.Array
    cosine: jax.Array
    moved: jax.Array
    lost: jax.Array
    squares: jax.Array
    under_epsilon: jax.Array
    idle: jax.Array
    at_floor: jax.Array
    at_ceiling: jax.Array
    rates: jax.Array


class Known(NamedTuple):
    """What the optimizer stores for a leaf, decoded and bias-corrected."""

    mean: Any = None
    square: Any = None
    eps: Any = 0.0
    mean_share: Any = 0.0
    at_floor: Any = 0.0
    at_ceiling: Any = 0.0


def leaves(
    opt: optax.GradientTransformation, grads: Any, updates: Any, params: Any, state: Any
) -> dict[str, Leaf]:
    """The statistics of every leaf, by its name; `params` are from before the step."""
    known = remembered(opt, params, state)
    flat, treedef = paths.flatten(grads)
    rows = zip(flat, *map(treedef.flatten_up_to, (updates, params)), strict=True)
    return {
        (name := paths.name(path)): _leaf(name, g, u, p, known.get(name, Known()))
        for (path, g), u, p in rows
    }


def remembered(opt: optax.GradientTransformation, params: Any, state: Any) -> dict[str, Known]:
    """The moments of each leaf, by the leaf's name, from the first rule that has any."""
    marks, treedef = jax.tree.flatten(template(opt, params), is_leaf=is_moments)
    held = treedef.flatten_up_to(state)
    found: dict[str, Known] = {}
    for mark, moments in zip(marks, held, strict=True):
        rule = getattr(mark, "rule", None)
        if not is_moments(mark) or rule is None:
            continue
        here = side(mark, rule)
        count, rows = here.layout.stored(moments, moments, here.treedef)
        for name, storage, stored in zip(here.names, here.storages, rows, strict=True):
            if stored and name not in found:
                found[name] = _known(rule, storage, stored, count)
    return found


def _known(rule: Any, storage: Any, stored: dict, count: jax.Array) -> Known:
    moments = storage.decode(stored, rule.moments)
    mean = next((moments[k] for k, kind in rule.moments.items() if kind == "signed"), None)
    square = next(
        (moments[k] for k, kind in rule.moments.items() if kind in ("squared", "spread")), None
    )
    t = jnp.asarray(count).astype(jnp.float32)
    values = {k: hyperparameters.value_at(k, v, count - 1, {}) for k, v in rule.hyper.items()}
    values = {k: hyperparameters.exact(v, t.dtype) for k, v in values.items()}
    scalars = rule.at(t, **values)
    left = 1.0
    if mean is not None and "b1" in values:
        _, c1 = arithmetic.weights(values["b1"], t)
        weight = arithmetic.correction(c1, t)
        left = c1 * (2 - weight) / ((2 - c1) * weight)
        mean = mean / weight
    if square is not None:
        square = square * scalars.get("av", 1.0)
    ends = storage.ends(stored, rule.moments)
    return Known(mean, square, _epsilon(rule, scalars), left, *ends)


def _epsilon(rule: Any, scalars: dict[str, Any]) -> Any:
    """The root below which epsilon makes steps shorter."""
    if parts(rule.formula)[1].get("eps_mode") == "atan2":
        return 0.0
    inside = scalars.get("eps_root", 0.0) if "squared" in rule.moments.values() else 0.0
    return scalars.get("eps", 0.0) + jnp.sqrt(inside)


def _leaf(name: str, g: Any, u: Any, p: Any, known: Known) -> Leaf:
    g, u, p = (jnp.asarray(x) for x in (g, u, p))
    zero = jnp.float32(0)
    grad, mean = norms.leaf_norm(g), zero
    cosine, rates = jnp.float32(jnp.nan), jnp.full(1, jnp.nan, jnp.float32)
    if known.mean is not None:
        mean = norms.leaf_norm(known.mean)
        along = dtypes.widen(g) / _safe(grad) * jnp.conj(known.mean / _safe(mean))
        cosine = _total(along.real)
        rates = _sampled(jnp.abs(dtypes.widen(u)), jnp.abs(known.mean))
    root, squares, under, idle = zero, zero, zero, zero
    if known.square is not None:
        roots = jnp.sqrt(known.square)
        root, squares = norms.leaf_norm(roots), _total(jnp.ones_like(roots))
        silent = roots == 0 if known.mean is None else jnp.abs(known.mean) <= IDLE * roots
        padding = squares - math.prod(shards.whole(name, g.shape))  # padding is silent too
        # A short code rounds small means to zero, so the gradient has to be zero too.
        squares, idle = squares - padding, _total(silent & (g == 0)) - padding
        under = _total((roots < known.eps) & ~silent)
    with jax.numpy_dtype_promotion("standard"):
        stays = (p + u).astype(p.dtype) == p
    return Leaf(
        size=math.prod(shards.whole(name, g.shape)),
        grad=grad,
        update=norms.leaf_norm(u),
        param=norms.leaf_norm(p),
        mean=mean,
        root=root,
        mean_share=jnp.float32(known.mean_share),
        cosine=cosine,
        moved=_total(u != 0),
        lost=_total((u != 0) & stays),
        squares=squares,
        under_epsilon=under,
        idle=idle,
        at_floor=_total(jnp.asarray(known.at_floor)),
        at_ceiling=_total(jnp.asarray(known.at_ceiling)),
        rates=rates,
    )


def _total(x: jax.Array) -> jax.Array:
    """The sum of all elements, over all shards."""
    return norms.total(x.astype(jnp.float32))


def _safe(norm: jax.Array) -> jax.Array:
    return jnp.where(norm == 0, 1, norm)


def _sampled(update: jax.Array, mean: jax.Array) -> jax.Array:
    """update / mean of some elements, evenly spaced along each dimension; NaN where mean is 0."""
    steps = [1] * update.ndim
    counts = list(update.shape)
    while math.prod(counts) > SAMPLES:
        most = max(range(len(counts)), key=lambda i: counts[i])
        steps[most] *= 2
        counts[most] = -(-update.shape[most] // steps[most])
    window = tuple(slice(None, None, step) for step in steps)
    update, mean = (
        replicated(lambda x: x[window].astype(jnp.float32).reshape(-1), x) for x in (update, mean)
    )
    rates = jnp.where(mean > 0, update / jnp.where(mean > 0, mean, 1), jnp.nan)
    axis = shards.axis_name()
    if axis is None or not steps:  # a scalar is not sharded
        return rates
    tracked = axis in mapped_axes.varying(rates)
    return lax.all_gather(rates, axis, tiled=True, to="invarying" if tracked else "varying")
