# SPDX-License-Identifier: Apache-2.0
"""Recipes with torch's argument names, defaults and arithmetic, each one of ours underneath.

In float64 they follow `torch.optim` to 1e-9 of a step. Three things are not torch's: complex
parameters (torch takes a complex number for two real ones), torch's rounding in float32 where ours
is more exact, and the product of betas in `NAdam`, which torch keeps in float32 unless its default
dtype is float64.
"""

from typing import Any, TypeAlias

import optax

from adamx.core.hyperparameters import Hyper
from adamx.interop.torch.arguments import ascending, ignored, number, pull, two
from adamx.landing import LandingLike
from adamx.optimizers.adam import adam as our_adam
from adamx.optimizers.adamax import adamax as our_adamax
from adamx.optimizers.amsgrad import amsgrad as our_amsgrad
from adamx.optimizers.nadam import nadam as our_nadam
from adamx.optimizers.radam import radam as our_radam
from adamx.storage import StorageLike
from adamx.transforms.weight_decay import Mask

Optimizer: TypeAlias = optax.GradientTransformationExtraArgs


def adam(
    lr: Hyper = 1e-3,
    betas: tuple[Hyper, Hyper] = (0.9, 0.999),
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
    mask: Mask | None = None,
    **rest: Any,
) -> Optimizer:
    """`torch.optim.Adam`: `adamx.adam`, or `adamx.amsgrad` with the maximum of raw squares.

    Args:
      lr: a number, a schedule, an array, or a torch tensor of one element, as all that follow.
      betas: how slowly the mean of gradients and the mean of squares forget.
      eps: added to the corrected root.
      weight_decay: added to the gradient, times the parameter; 0 for none.
      amsgrad: whether the largest mean square so far takes the place of the mean square.
      maximize: whether to go uphill.
      decoupled_weight_decay: whether the decay is that of AdamW.
      storage, landing: how moments are stored and steps are written: see `adamx.adam`.
      mask: which leaves decay: see `adamx.adam`.
      **rest: `foreach`, `fused`, `capturable` and `differentiable`, which change no formula.

    Example:
      >>> from adamx import interop
      >>> opt = interop.torch.adam(lr=1e-3, betas=(0.9, 0.95), amsgrad=True, fused=True)
      >>> interop.torch.adam(learning_rate=1e-3)
      Traceback (most recent call last):
      ...
      TypeError: torch.adam has no argument `learning_rate`; the nearest is `lr`
    """
    ignored("adam", rest, (*_SHARED, "amsgrad", "decoupled_weight_decay"))
    (b1, b2), eps, form = two(betas), number(eps), pull(weight_decay, decoupled_weight_decay)
    ours = {"weight_decay": form, "mask": mask, "storage": storage, "landing": landing}
    if amsgrad:
        opt = our_amsgrad(number(lr), b1, b2, eps, max_of="raw", **ours)
    else:
        opt = our_adam(number(lr), b1, b2, eps, **ours)
    return ascending(opt, maximize)


def adamw(
    lr: Hyper = 1e-3,
    betas: tuple[Hyper, Hyper] = (0.9, 0.999),
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
    mask: Mask | None = None,
    **rest: Any,
) -> Optimizer:
    """`torch.optim.AdamW`: as `adam`, with decay that the root does not divide, 1e-2 by default.

    Example:
      >>> from adamx import interop
      >>> opt = interop.torch.adamw(lr=3e-4, weight_decay=0.1, storage="int8", mask="*/kernel")
    """
    ignored("adamw", rest, (*_SHARED, "amsgrad"))
    ours = {"storage": storage, "landing": landing, "mask": mask, "maximize": maximize}
    return adam(lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay=True, **ours)


def nadam(
    lr: Hyper = 2e-3,
    betas: tuple[Hyper, Hyper] = (0.9, 0.999),
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0,
    momentum_decay: Hyper = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
    mask: Mask | None = None,
    **rest: Any,
) -> Optimizer:
    """`torch.optim.NAdam`: `adamx.nadam` whose b1 warms up; other arguments as in `adam`.

    Args:
      momentum_decay: how fast b1 warms up.

    Example:
      >>> from adamx import interop
      >>> opt = interop.torch.nadam(weight_decay=0.01, decoupled_weight_decay=True)
    """
    ignored("nadam", rest, (*_SHARED, "momentum_decay", "decoupled_weight_decay"))
    (b1, b2), form = two(betas), pull(weight_decay, decoupled_weight_decay)
    ours = {"weight_decay": form, "mask": mask, "storage": storage, "landing": landing}
    rate = number(momentum_decay)
    opt = our_nadam(number(lr), b1, b2, number(eps), momentum_decay=rate, **ours)
    return ascending(opt, maximize)


def radam(
    lr: Hyper = 1e-3,
    betas: tuple[Hyper, Hyper] = (0.9, 0.999),
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
    mask: Mask | None = None,
    **rest: Any,
) -> Optimizer:
    """`torch.optim.RAdam`: `adamx.radam` with epsilon at the uncorrected root; otherwise as `adam`.

    Example:
      >>> from adamx import interop
      >>> opt = interop.torch.radam(lr=1e-3, betas=(0.9, 0.98))
    """
    ignored("radam", rest, (*_SHARED, "decoupled_weight_decay"))
    (b1, b2), form = two(betas), pull(weight_decay, decoupled_weight_decay)
    ours = {"weight_decay": form, "mask": mask, "storage": storage, "landing": landing}
    opt = our_radam(number(lr), b1, b2, number(eps), threshold=5.0, eps_mode="hat", **ours)
    return ascending(opt, maximize)


def adamax(
    lr: Hyper = 2e-3,
    betas: tuple[Hyper, Hyper] = (0.9, 0.999),
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0,
    *,
    maximize: bool = False,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
    mask: Mask | None = None,
    **rest: Any,
) -> Optimizer:
    """`torch.optim.Adamax`: `adamx.adamax`; arguments as in `adam`.

    Example:
      >>> from adamx import interop
      >>> opt = interop.torch.adamax(lr=2e-3)
    """
    ignored("adamax", rest, _SHARED)
    (b1, b2), form = two(betas), pull(weight_decay, decoupled=False)
    ours = {"weight_decay": form, "mask": mask, "storage": storage, "landing": landing}
    return ascending(our_adamax(number(lr), b1, b2, number(eps), **ours), maximize)


_SHARED = ("lr", "betas", "eps", "weight_decay", "maximize")
