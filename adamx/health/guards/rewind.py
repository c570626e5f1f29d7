# SPDX-License-Identifier: Apache-2.0
"""Goes back to the last good parameters when the loss has diverged."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from adamx.core.host_memory import on_device, on_host
from adamx.core.hyperparameters import check_choice, check_count
from adamx.core.instances import instances
from adamx.core.snapshots import Snapshot
from adamx.health.running_stats import Usual, learned, usual
from adamx.health.states import LossScaleState, RewindState, SkipState, check_own, nodes
from adamx.landing import LandingState

DECAY = 0.98  # of the loss statistics: some 50 steps
WARMUP = 20  # the number of first losses that only update the statistics
HOST = "pinned_host"
_LARGEST = float(jnp.finfo(jnp.float32).max)


def rewind(
    opt: optax.GradientTransformation,
    every: int = 500,
    patience: int = 5,
    z_max: float = 6.0,
    max_skipped: int = 20,
    step_scale: float = 0.5,
    slow_steps: int = 500,
    max_tries: int | None = 5,
    memory: str = "device",
) -> optax.GradientTransformationExtraArgs:
    """`opt` that goes back to its last good snapshot when the loss has diverged.

    A snapshot is taken at the first step, then every `every` steps when the loss is normal. A loss
    is bad if it is not finite, or more than `z_max` deviations above the recent mean. After
    `patience` bad losses in a row, or `max_skipped` steps in a row that guards in `opt` have
    skipped, parameters and state become those of the snapshot. The next `slow_steps` steps are
    `step_scale` times as long, multiplied by `step_scale` again each time the run goes back to the
    same snapshot.

    Counts of guards in `opt` since the snapshot are lost with the rest of the state.

    `adamx.step` and `data_parallel` restore parameters bit for bit, even from NaN;
    `optax.apply_updates` restores them within rounding, if they are finite.

    Args:
      opt: any Optax transformation, a whole optimizer.
      every: the number of steps between snapshots.
      patience: how many bad losses in a row make the run go back.
      z_max: how many deviations above the mean a loss may be.
      max_skipped: how many skipped steps in a row make the run go back. Loss scaling needs fewer
        to find its scale.
      step_scale: the factor for steps after going back.
      slow_steps: how many steps are shortened.
      max_tries: how often it may go back to one snapshot. After that it trains on, and
        `health.check` raises; None for any number.
      memory: where the snapshot is stored, `"device"` or `"pinned_host"`.

    Returns:
      A transformation whose `update` needs the parameters and `value=loss`.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> from adamx import health
      >>> opt, params = rewind(adamx.adam(0.1), every=1, patience=1), jnp.ones(2)
      >>> state = opt.init(params)
      >>> for loss in [1.0] * 30 + [1e6]:
      ...     before = params
      ...     params, state = adamx.step(opt, params, state, params, value=loss)
      >>> print(health.read(state)["rewinds"])
      1.0
    """
    check_count(every=every, patience=patience, slow_steps=slow_steps, max_skipped=max_skipped)
    if not z_max > 0:
        raise ValueError(f"`z_max` must be > 0, got {z_max}")
    if not 0 < step_scale <= 1:
        raise ValueError(f"`step_scale` must be in (0, 1], got {step_scale}")
    if max_tries is not None:
        check_count(max_tries=max_tries)
    check_choice("memory", memory, ("device", HOST))
    opt = optax.with_extra_args_support(opt)

    def copied(tree: Any) -> Any:
        return jax.tree.map(lambda x: on_host(x) if memory == HOST else jnp.array(x), tree)

    def init(params: optax.Params) -> RewindState:
        inner, no = opt.init(params), jnp.zeros([], bool)
        age, *counts = (jnp.zeros([], jnp.int32) for _ in range(6))  # one buffer for each
        kept = Snapshot(*copied((params, inner)), due=no)
        return RewindState(inner, kept, age, usual(), *counts, stuck=jnp.array(no))

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        **extra: Any,
    ) -> tuple[optax.Updates, RewindState]:
        if params is None or value is None:
            what = "the parameters" if params is None else "the loss"
            raise ValueError(
                f"rewind needs {what}: call `update(grads, state, params, value=loss)`"
            )
        check_own("rewind", state, RewindState)
        loss = jnp.asarray(value).astype(jnp.float32)
        off = (loss - state.loss.mean) / _spread(state.loss)
        warm = state.loss.looks >= WARMUP
        is_bad = ~jnp.isfinite(loss) | (warm & (off > z_max))
        renew = ~is_bad & (off <= 1) & (state.age >= every) & (state.slow == 0)
        renew &= state.skipped == 0
        # At the first step: `inner` may be half trained, where `init` kept a new one.
        renew |= state.age == 0

        kept = lax.cond(
            renew,
            lambda: copied((params, state.inner)),
            lambda: (state.kept.params, state.kept.state),
        )
        scale = jnp.where(
            state.slow > 0, jnp.power(jnp.float32(step_scale), state.tries.astype(jnp.float32)), 1
        )
        steps, inner = _shortened(
            opt, updates, state.inner, params, scale, extra | {"value": value}
        )

        bad = jnp.where(is_bad, state.bad + 1, 0)
        skipped = jnp.where(_skips(inner) > _skips(state.inner), state.skipped + 1, 0)
        wanted = (bad >= patience) | (skipped >= max_skipped)
        may = jnp.asarray(max_tries is None or state.tries < max_tries)
        back, stuck = wanted & may, wanted & ~may

        def gone_back() -> tuple[Any, Any]:
            held, inner = on_device(kept)
            return jax.tree.map(_difference, held, params, steps), inner

        steps, inner = lax.cond(back, gone_back, lambda: (steps, inner))
        tries = jnp.where(renew, 0, state.tries) + back.astype(jnp.int32)
        # A bad loss is clipped to half the allowed deviation: a lasting change becomes normal.
        most = state.loss.mean + z_max / 2 * _spread(state.loss)
        return steps, RewindState(
            inner,
            Snapshot(*kept, due=back),
            jnp.where(renew | back, 0, state.age) + 1,
            learned(state.loss, loss, jnp.where(warm, most, _LARGEST), DECAY),
            jnp.where(back, 0, bad),
            jnp.where(back, 0, skipped),
            state.total + back.astype(jnp.int32),
            tries,
            jnp.where(back, slow_steps, jnp.maximum(state.slow - 1, 0)),
            stuck,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _skips(state: Any) -> Any:
    """The number of steps that all guards in a state have skipped together."""
    counts = [
        node.total if isinstance(node, SkipState) else node.overflows
        for node in nodes(state)
        if isinstance(node, SkipState | LossScaleState)
    ]
    return sum(counts, jnp.zeros([], jnp.int32))


def _spread(loss: Usual) -> jax.Array:
    """The deviation of losses, at least 2% of their mean: full-batch losses have almost none."""
    return jnp.maximum(jnp.sqrt(loss.variance), jnp.maximum(0.02 * jnp.abs(loss.mean), 1e-30))


def _shortened(
    opt: Any, updates: Any, state: Any, params: Any, scale: jax.Array, extra: dict[str, Any]
) -> tuple[Any, Any]:
    """The steps of `opt` times `scale`; a landing other than nearest applies the factor itself,
    before it rounds."""
    if instances(state, LandingState):
        return opt.update(updates, state, params, **extra, step_scale=scale)
    steps, state = opt.update(updates, state, params, **extra)
    return jax.tree.map(lambda u: u * scale.astype(u.dtype), steps), state


def _difference(held: jax.Array, now: jax.Array, step: jax.Array) -> jax.Array:
    return held.astype(step.dtype) - now.astype(step.dtype)
