# SPDX-License-Identifier: Apache-2.0
"""Skips steps whose loss or gradient norm is far above those of the last steps."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core.hyperparameters import check_count
from adamx.core.norms import scaled
from adamx.health.guards.skip import guard
from adamx.health.guards.verdict import Verdict, anywhere, nothing
from adamx.health.states import Window

_ROUNDING = 4 * 2.0**-24  # of a float32 mean of equal values, and of the value itself


def skip_outliers(
    opt: optax.GradientTransformation,
    window: int = 128,
    sigmas: float = 6.0,
    max_consecutive: int | None = 100,
) -> optax.GradientTransformationExtraArgs:
    r"""`opt` that skips a step if its loss or its gradient's norm is an outlier.

    .. math:: x > \mu + k \, \sigma

    with the mean and deviation of the last `window` values, those of skipped steps included, so
    that what stays large becomes usual. A deviation below float32's rounding of the mean counts as
    that: equal values have none. Nothing is skipped before half a window of values. This is
    the rule of OLMo, Levanter and MaxText (`skip_step_on_spikes`); a value that is not finite is
    skipped too, and does not enter the window. `skip_spikes` looks at each leaf instead.

    Args:
      opt: any Optax transformation.
      window: how many of the last values count, at least 2.
      sigmas: how many deviations :math:`k` above the mean a value may be.
      max_consecutive: as for `skip_nonfinite`.

    Returns:
      A transformation whose `update` takes `loss=`, or `value=` as `rewind` does and
      `data_parallel` hands it in, and `grad_norm=`. Without a loss only the norm is looked at;
      without a norm it is computed.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> from adamx import health
      >>> opt, params = skip_outliers(adamx.adam(0.1), window=8), {"kernel": jnp.ones(2)}
      >>> state = opt.init(params)
      >>> for loss in (1.0, 1.2, 0.9, 1.1, 50.0):
      ...     updates, state = opt.update(params, state, params, loss=loss)
      >>> print(updates["kernel"], health.read(state)["spikes"])
      [0. 0.] 1.0
    """
    check_count(2, window=window)
    if not sigmas > 0:
        raise ValueError(f"`sigmas` must be > 0, got {sigmas}")

    def begin(leaves: int) -> Window:
        return Window(jnp.zeros(2, jnp.int32), jnp.zeros((2, window), jnp.float32))

    def judge(
        grads: list, steps: Any, inner: Any, before: Any, known: Window, extra: Any
    ) -> tuple[Verdict, Window]:
        if not grads:
            return nothing(), known
        sizes = [root / factor for root, factor in scaled.leaf_norms(grads)]
        norm = extra.get("grad_norm")
        if norm is None:
            root, factor = scaled.global_norm(grads)
            norm = root / factor
        loss = extra.get("value") if extra.get("loss") is None else extra["loss"]
        now = jnp.stack([_given("loss", 0.0 if loss is None else loss), _given("grad_norm", norm)])
        given = jnp.array([loss is not None, True])
        skip = anywhere(jnp.any(_is_outlier(known, now, sigmas) & given))
        largest = jnp.argmax(jnp.stack([_scalar(size) for size in sizes]))
        return Verdict(skip, largest), _entered(known, now, given)

    return guard("skip_outliers", opt, max_consecutive, begin, judge)


def _given(name: str, x: Any) -> jax.Array:
    if jnp.size(x) != 1:
        raise ValueError(f"`{name}` must be a scalar, got an array of shape {jnp.shape(x)}")
    return _scalar(jnp.reshape(jnp.asarray(x), ()))


def _scalar(x: Any) -> jax.Array:
    return jnp.asarray(x).astype(jnp.float32)


def _is_outlier(known: Window, now: jax.Array, sigmas: float) -> jax.Array:
    """For each number whether it is too far above the mean of its window, or not finite."""
    size = known.values.shape[1]
    there = jnp.arange(size) < known.looks[:, None]
    count = jnp.minimum(known.looks, size).astype(jnp.float32)
    mean = jnp.sum(jnp.where(there, known.values, 0), 1) / jnp.maximum(count, 1)
    off = jnp.where(there, known.values - mean[:, None], 0)
    deviation = jnp.sqrt(jnp.sum(off * off, 1) / jnp.maximum(count - 1, 1))
    # Values that are equal but for rounding have no deviation that says anything: a few float32
    # steps of the mean are then no spike. Where values do scatter, theirs is far larger.
    deviation = jnp.maximum(deviation, _ROUNDING * jnp.abs(mean))
    warm = known.looks + 1 >= max(3, size // 2)  # one value has no deviation
    return ~jnp.isfinite(now) | (warm & (now - mean > sigmas * deviation))


def _entered(known: Window, now: jax.Array, given: jax.Array) -> Window:
    """The window with these values, where they are given and finite."""
    enters = given & jnp.isfinite(now)
    place = known.looks % known.values.shape[1]
    rows = jnp.arange(2)
    new = jnp.where(enters, now, known.values[rows, place])
    return Window(known.looks + enters.astype(jnp.int32), known.values.at[rows, place].set(new))
