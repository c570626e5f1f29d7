# SPDX-License-Identifier: Apache-2.0
"""Skips bad steps: they change neither the parameters nor the optimizer's state."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core.hyperparameters import check_count
from adamx.core.norms import scaled
from adamx.health.guards.verdict import Verdict, finite, nothing, unless
from adamx.health.running_stats import Usual, deviation, learned, usual
from adamx.health.states import LossScaleState, RewindState, SkipState, check_inside, check_own


def skip_nonfinite(
    opt: optax.GradientTransformation, max_consecutive: int | None = 100
) -> optax.GradientTransformationExtraArgs:
    """`opt` that skips a step if a gradient, the update or the new state is not finite.

    A skipped step leaves parameters and state unchanged and is counted. After more than
    `max_consecutive` skips in a row `health.check` raises and names the first bad leaf. A NaN is
    never applied, however many there are.

    Args:
      opt: any Optax transformation.
      max_consecutive: how many steps in a row may be skipped before `health.check` raises; None
        for any number.

    Example:
      >>> import adamx, jax.numpy as jnp, optax
      >>> opt = skip_nonfinite(adamx.adam(0.1), max_consecutive=1)
      >>> params = {"kernel": jnp.ones(2)}
      >>> grads = {"kernel": jnp.array([1.0, jnp.nan])}
      >>> updates, state = opt.update(grads, opt.init(params), params)
      >>> print(updates["kernel"], state.total)
      [0. 0.] 1
    """

    def judge(
        grads: list, steps: Any, inner: Any, before: Any, known: None, extra: Any
    ) -> tuple[Verdict, None]:
        return finite(grads, steps, inner, before), None

    return guard("skip_nonfinite", opt, max_consecutive, lambda leaves: None, judge)


DECAY = 0.97  # as in ZClip: some 30 steps
LEAST = 0.2  # the least deviation assumed for a log norm: e^(6 x 0.2) is a factor of 3


def skip_spikes(
    opt: optax.GradientTransformation,
    z_max: float = 6.0,
    warmup: int = 25,
    max_consecutive: int | None = 100,
) -> optax.GradientTransformationExtraArgs:
    r"""`opt` that skips a step if the gradient of a leaf is suddenly far too large.

    .. math:: \log \|g_i\| > \mu_i + z \max(\sigma_i, 0.2)

    with the running mean and deviation of each leaf's own :math:`\log \|g_i\|`. A spike in one
    leaf, which a clip by the global norm may let pass, stalls that leaf for some 1 / (1 - b2)
    steps. Gradients that stay larger are accepted after a while, as the statistics follow them.

    `adamx.clip_by_zscore` and `adamx.clip_by_percentile` shrink such gradients instead.

    Args:
      opt: any Optax transformation.
      z_max: how many deviations above its mean a log norm may be.
      warmup: the number of first steps that only update the statistics.
      max_consecutive: as for `skip_nonfinite`.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> from adamx import health
      >>> opt, params = skip_spikes(adamx.adam(0.1), warmup=3), {"kernel": jnp.ones(2)}
      >>> state = opt.init(params)
      >>> for size in (1.0, 1.1, 0.9, 1e6):
      ...     updates, state = opt.update({"kernel": jnp.full(2, size)}, state, params)
      >>> print(updates["kernel"], health.read(state)["spikes"])
      [0. 0.] 1.0
    """
    if not z_max > 0:
        raise ValueError(f"`z_max` must be > 0, got {z_max}")
    check_count(warmup=warmup)

    # Compiled, so that its infinities are never results that `jax_debug_infs` looks at.
    @jax.jit
    def looked(grads: list, known: Usual) -> tuple[Verdict, Usual]:
        sizes = [root / factor for root, factor in scaled.leaf_norms(grads)]
        sizes = jnp.log(jnp.stack([size.astype(jnp.float32) for size in sizes]))
        off = jnp.where(known.looks >= warmup, deviation(known, sizes, LEAST), -jnp.inf)
        skip = jnp.any(off > z_max)
        # A spike is clipped to half the allowed deviation: a lasting change becomes normal.
        enough = known.mean + z_max / 2 * jnp.maximum(jnp.sqrt(known.variance), LEAST)
        most = jnp.where(known.looks >= warmup, enough, jnp.inf)
        return Verdict(skip, jnp.argmax(off)), learned(known, sizes, most, DECAY)

    def judge(
        grads: list, steps: Any, inner: Any, before: Any, known: Usual, extra: Any
    ) -> tuple[Verdict, Usual]:
        return looked(grads, known) if grads else (nothing(), known)

    return guard("skip_spikes", opt, max_consecutive, lambda leaves: usual((leaves,)), judge)


def guard(
    name: str,
    opt: optax.GradientTransformation,
    max_consecutive: int | None,
    begin: Callable[[int], Any],
    judge: Callable[..., tuple[Verdict, Any]],
) -> optax.GradientTransformationExtraArgs:
    """A guard that skips as `judge` decides.

    `begin` makes its statistics for a number of leaves. `judge` gets the gradients, the steps, the
    states after and before the step, the statistics and extra arguments; it gives a verdict and
    new statistics.
    """
    if max_consecutive is not None:
        check_count(0, max_consecutive=max_consecutive)
    opt = optax.with_extra_args_support(opt)

    def init(params: optax.Params) -> Any:
        def scalar(value: int) -> jax.Array:
            return jnp.full([], value, jnp.int32)

        inner = opt.init(params)
        check_inside(name, inner, LossScaleState, RewindState)
        limit = scalar(-1 if max_consecutive is None else max_consecutive)
        leaves = len(jax.tree.leaves(params))
        return SkipState(inner, scalar(0), scalar(0), scalar(-1), limit, begin(leaves))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        check_own(name, state, SkipState)
        steps, inner = opt.update(updates, state.inner, params, **extra)
        grads = jax.tree.leaves(updates)
        verdict, known = judge(grads, steps, inner, state.inner, state.usual, extra)
        steps, inner = unless(verdict.skip, steps, inner, state.inner)
        return steps, SkipState(
            inner,
            state.total + verdict.skip.astype(jnp.int32),
            jnp.where(verdict.skip, state.in_a_row + 1, 0),
            jnp.where(verdict.skip, verdict.leaf.astype(jnp.int32), state.first_bad),
            state.limit,
            known,
        )

    return optax.GradientTransformationExtraArgs(init, update)
