# SPDX-License-Identifier: Apache-2.0
"""What Keras does around an optimizer's step, as transformations around a recipe.

    loss scale -> accumulation -> clip -> recipe -> average of the parameters

Each appears only where it is asked for: a recipe without any of them has our recipe's own state.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import optax

from adamx.interop.keras.arguments import Around
from adamx.interop.keras.average import averaged
from adamx.optimizers.recipe import Optimizer
from adamx.transforms.clipping import clip, clip_by_global_norm, clip_by_leaf_norm

_CLIPS: dict[str, Callable[[Any], Optimizer]] = {
    "clipvalue": clip,
    "clipnorm": clip_by_leaf_norm,
    "global_clipnorm": clip_by_global_norm,
}


def wrapped(opt: Optimizer, around: Around) -> Optimizer:
    """`opt` with what Keras does around it."""
    recipe = opt
    clips = [clip(bound) for k, clip in _CLIPS.items() if (bound := getattr(around, k))]
    if clips:
        opt = optax.chain(*clips, opt)
    steps = around.gradient_accumulation_steps
    if steps:
        opt = accumulated(opt, steps)
    if around.loss_scale_factor is not None:
        opt = optax.chain(optax.scale(1 / around.loss_scale_factor), opt)
    if around.use_ema:
        opt = averaged(opt, around.ema_momentum, around.ema_overwrite_frequency, steps or 1)
    if opt is recipe:
        return opt
    return optax.GradientTransformationExtraArgs(opt.init, Wrapped(opt.update, recipe, around))


@dataclasses.dataclass(frozen=True, eq=False)
class Wrapped:
    """An `update` that says what it is made of: our recipe, and what is around it."""

    call: Callable[..., Any]
    recipe: Optimizer
    around: Around

    def __call__(
        self, updates: Any, state: Any, params: Any = None, **extra: Any
    ) -> tuple[Any, Any]:
        return self.call(updates, state, params, **extra)


def accumulated(opt: Optimizer, steps: int) -> Optimizer:
    """`opt` that moves at every `steps`-th gradient, by the mean of them."""
    # None: in each parameter's own dtype, as Keras.
    many = optax.MultiSteps(opt, steps, accumulator_dtype=None)  # pyright: ignore
    return many.gradient_transformation()  # pyright: ignore


def schedule_of(learning_rate: Any, around: Around) -> Any:
    """The learning rate as a schedule of steps; Keras' are schedules of gradients."""
    steps = around.gradient_accumulation_steps
    if not callable(learning_rate) or not steps:
        return learning_rate
    return lambda count: learning_rate((count + 1) * steps - 1)
