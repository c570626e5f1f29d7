# SPDX-License-Identifier: Apache-2.0
"""The arguments that all of Keras' optimizers share, and those that our recipes add to them."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict

from jax.typing import DTypeLike

from adamx.interop.names import check_arguments
from adamx.landing import LandingLike
from adamx.storage import StorageLike
from adamx.transforms.weight_decay import Mask


class Shared(TypedDict, total=False):
    """What every recipe here takes by name; the first ten are Keras'.

    Attributes:
      clipnorm: the largest norm of a leaf's gradient. At most one of the three clips is given.
      clipvalue: the largest size of an element of the gradient.
      global_clipnorm: the largest norm of the whole gradient.
      use_ema: whether to keep a running average of the parameters: see `averaged`.
      ema_momentum: how slowly that average forgets, 0.99 by default.
      ema_overwrite_frequency: every so many steps the parameters become their average.
      loss_scale_factor: by which the loss was multiplied, and gradients are divided.
      gradient_accumulation_steps: the number of gradients, at least 2, that make one step.
      name: ignored.
      mask: the leaves that decay, as in our recipes; Keras has `exclude_from_weight_decay`.
      storage, landing, mu_dtype, nu_dtype: as in our recipes.
    """

    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None
    name: str | None
    mask: Mask | None
    storage: StorageLike | None
    landing: LandingLike
    mu_dtype: DTypeLike | None
    nu_dtype: DTypeLike | None


OURS = ("mask", "storage", "landing", "mu_dtype", "nu_dtype")


class Around(NamedTuple):
    """What stands around a recipe, with Keras' names and defaults."""

    clipnorm: float | None = None
    clipvalue: float | None = None
    global_clipnorm: float | None = None
    use_ema: bool = False
    ema_momentum: float = 0.99
    ema_overwrite_frequency: int | None = None
    loss_scale_factor: float | None = None
    gradient_accumulation_steps: int | None = None
    name: str | None = None


def split(shared: Mapping[str, Any]) -> tuple[dict[str, Any], Around]:
    """Arguments of our recipes, and of what stands around them; others are an error."""
    check_arguments("Keras' optimizer", shared, (*Around._fields, *OURS))
    ours = {k: v for k, v in shared.items() if k in OURS and v is not None}
    around = Around(**{k: v for k, v in shared.items() if k not in OURS})
    _check(around, ours.get("landing", "nearest"))
    return ours, around


def _check(around: Around, landing: LandingLike) -> None:
    clips = {k: getattr(around, k) for k in ("clipnorm", "clipvalue", "global_clipnorm")}
    given = [f"{k}={v}" for k, v in clips.items() if v is not None]
    if len(given) > 1:
        raise ValueError(f"only one of the three clips may be given, got {', '.join(given)}")
    steps, every = around.gradient_accumulation_steps, around.ema_overwrite_frequency
    if steps and not (isinstance(steps, int) and steps >= 2):
        raise ValueError(f"`gradient_accumulation_steps` must be an integer >= 2, got {steps}")
    if not around.use_ema:
        return
    if not 0 <= around.ema_momentum <= 1:
        raise ValueError(f"`ema_momentum` must be in [0, 1], got {around.ema_momentum}")
    if every and not (isinstance(every, int) and every >= 1):
        raise ValueError(f"`ema_overwrite_frequency` must be an integer >= 1, got {every}")
    if every and landing != "nearest":
        raise ValueError(
            "`ema_overwrite_frequency` needs `landing='nearest'`, got "
            f"{landing!r}: a landing's remainder belongs to the parameters that it left"
        )
