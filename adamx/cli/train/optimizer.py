# SPDX-License-Identifier: Apache-2.0
"""Builds the optimizer from the flags: recipe, schedule, clip, observer and guards."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import adamx
from adamx import health
from adamx.cli import names
from adamx.cli.tasks import Defaults
from adamx.cli.train.settings import Settings
from adamx.core import paths

WARMUP = 20  # a schedule warms up over 1 / WARMUP of the steps


def schedule(args: Settings, defaults: Defaults, steps: int) -> Any:
    """The learning rate: a number, or a function of the step."""
    rate = defaults.learning_rate if args.learning_rate is None else args.learning_rate
    name = args.schedule or defaults.schedule
    if name == "constant":
        return rate
    rise = max(1, steps // WARMUP)
    fall = max(1, steps - rise)
    falls = {
        "cosine": lambda: optax.cosine_decay_schedule(rate, fall, 0.05),
        "linear": lambda: optax.linear_schedule(rate, 0.05 * rate, fall),
    }
    return optax.join_schedules([optax.linear_schedule(0, rate, rise), falls[name]()], [rise])


def optimizers(args: Settings, defaults: Defaults, steps: int) -> dict[str, Any]:
    """Our optimizer by name, and Optax's too if `--compare` asks for it."""
    # The task's defaults apply where the recipe usually has the argument; flags always apply.
    known = names.usual_arguments(args.recipe)
    settings = {k: v for k, v in defaults.settings if k in known}
    settings["learning_rate"] = schedule(args, defaults, steps)
    if args.weight_decay is not None:
        settings["weight_decay"] = args.weight_decay
    clip = defaults.clip if args.clip is None else args.clip
    # A landing does nothing for float32 parameters, and would say so again.
    landing = "nearest" if args.dtype == "float32" else args.landing
    ours = names.ours(args.recipe, storage=args.storage, landing=landing, **settings)
    found = {f"adamx.{args.recipe}": guarded(args, clipped(clip, ours))}
    if args.compare == "optax":
        if "mask" in settings:
            settings["mask"] = paths.mask(settings["mask"])
        theirs = names.theirs(args.recipe, **settings)
        if clip:
            theirs = optax.chain(optax.clip_by_global_norm(clip), theirs)
        found[f"optax.{args.recipe}"] = theirs
    return found


def clipped(clip: float | None, opt: Any) -> Any:
    """Puts a counted clip before `opt`, unless `clip` is 0 or None."""
    return optax.chain(health.counted(adamx.clip_by_global_norm(clip)), opt) if clip else opt


def guarded(args: Settings, opt: Any) -> Any:
    """Wraps `opt` in the guards that the flags ask for, in the order below."""
    if args.skip_nonfinite:
        opt = health.skip_nonfinite(opt)
    if args.skip_spikes:
        opt = health.skip_spikes(opt)
    if args.watch:
        opt = health.observe(opt, every=args.watch, per_leaf=True)
    if args.loss_scale:
        opt = health.scale_loss(opt)
    if args.rewind:
        opt = health.rewind(opt)
    return opt


def in_dtype(params: Any, dtype: str) -> Any:
    """The parameters, cast to `dtype`."""
    return jax.tree.map(lambda p: jnp.asarray(p).astype(dtype), params)
