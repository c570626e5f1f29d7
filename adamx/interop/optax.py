# SPDX-License-Identifier: Apache-2.0
"""Optax's own arithmetic, bit for bit, under the names and arguments of our recipes.

Ours are computed more exactly, so they part from Optax's in the last digits of float32. Where a run
has to repeat an old one to the last bit, `interop.optax.adamw` is Optax's own `adamw`: no copy of
its formulas, and its own state. It takes two arguments more: `landing`, as our recipes, with which
a bfloat16 model trains as Optax trains it in float32; and `storage`, which has to be `"float32"`,
since another format of the moments is another arithmetic.

Example:
  >>> import jax.numpy as jnp
  >>> from adamx.interop import optax as as_optax
  >>> opt = as_optax.adamw(1e-3, landing="exact")
  >>> opt.init(jnp.ones(2, jnp.bfloat16))[0][0].nu.dtype
  dtype('float32')
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
import optax.contrib

from adamx.core import dtypes
from adamx.interop.names import nearest
from adamx.interop.register import original
from adamx.landing import LandingLike, ending
from adamx.landing import choose as choose_landing
from adamx.optimizers.recipe import TABLE


def __getattr__(name: str) -> Callable[..., optax.GradientTransformationExtraArgs]:
    theirs = _theirs(name) if name in TABLE else None
    if theirs is None:
        raise AttributeError(
            f"module {__name__!r} has no {name!r}; the nearest are {nearest(name, NAMES)}"
        )

    @functools.wraps(theirs)
    def build(
        *args: Any, storage: str | None = None, landing: LandingLike = "nearest", **kwargs: Any
    ) -> optax.GradientTransformationExtraArgs:
        if storage not in (None, "float32"):
            raise ValueError(
                f"`storage` must be 'float32' for Optax's arithmetic, got {storage!r}: "
                f"`adamx.{name}` has others"
            )
        opt = optax.with_extra_args_support(theirs(*args, **kwargs))
        return opt if landing == "nearest" else ending([_whole(opt)], choose_landing(landing))

    return build


def _whole(opt: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """`opt` for float32 weights and gradients, whose state it makes for such too."""

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return opt.update(jax.tree.map(dtypes.widen, updates), state, params, **extra)

    return optax.GradientTransformationExtraArgs(
        lambda params: opt.init(jax.tree.map(dtypes.widen, params)), update
    )


def __dir__() -> list[str]:
    return [*globals(), *NAMES]


def _theirs(name: str) -> Callable[..., Any] | None:
    """Optax's function, also while ours is registered in its place."""
    return original(optax.contrib, name) or original(optax, name)


NAMES = tuple(name for name in TABLE if _theirs(name))
