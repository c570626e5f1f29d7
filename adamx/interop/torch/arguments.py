# SPDX-License-Identifier: Apache-2.0
"""torch's arguments in our words: numbers out of tensors, two betas, and what changes no number."""

from collections.abc import Mapping
from typing import Any

import optax

from adamx.core.hyperparameters import Hyper
from adamx.interop.names import check_arguments
from adamx.transforms import weight_decay as decay

# How torch computes, not what; in `differentiable` and `capturable` runs it rounds differently.
IGNORED = ("foreach", "fused", "capturable", "differentiable")

# What every recipe here takes beyond torch's own arguments.
OURS = ("storage", "landing", "mask")


def number(x: Any) -> Any:
    """A torch tensor of one element as a Python number; anything else as it is."""
    is_tensor = type(x).__module__.split(".")[0] == "torch"
    return x.item() if is_tensor else x


def two(betas: Any) -> tuple[Any, Any]:
    """Both betas as numbers."""
    found = tuple(betas) if isinstance(betas, tuple | list) else (betas,)
    if len(found) != 2:
        raise ValueError(f"`betas` must be a pair of numbers, got {betas!r}")
    return number(found[0]), number(found[1])


def pull(strength: Any, decoupled: bool) -> Hyper | decay.Decay | None:
    """torch's weight decay as one of ours: None for 0, as torch skips it then."""
    strength = number(strength)
    if isinstance(strength, int | float) and strength == 0:
        return None
    return decay.decoupled(strength) if decoupled else decay.l2(strength)


def ascending(
    opt: optax.GradientTransformationExtraArgs, maximize: bool
) -> optax.GradientTransformationExtraArgs:
    """`opt`, or `opt` of the negated gradient, as torch's `maximize` does it: before the decay."""
    return optax.chain(optax.scale(-1.0), opt) if maximize else opt


def ignored(who: str, rest: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raises where `rest` has more than arguments that change no number."""
    check_arguments(f"torch.{who}", rest, (*known, *OURS, *IGNORED), _SYNONYMS)


_SYNONYMS = {"learning_rate": "lr", "b1": "betas", "b2": "betas", "epsilon": "eps"}
