# SPDX-License-Identifier: Apache-2.0
"""Whether what is given has the form of torch's state dicts, before anything is read of it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adamx.interop.torch.arguments import IGNORED, number
from adamx.interop.torch.tensors import shape_of

# What groups have beside the arguments of recipes, which changes no number of a step. Schedulers
# add `initial_lr`, `max_lr` and others, whose effect is in `lr` and `betas` already.
HARMLESS = (
    *("params", "param_names", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"),
    *("name", "group_name", "lr_scale", "decoupled_weight_decay", *IGNORED),
)


def check_weights(weights: Any) -> None:
    """Raises a `TypeError` where this is no model's state dict."""
    if not isinstance(weights, Mapping):
        got = type(weights).__name__
        hint = ": give its `state_dict()`" if hasattr(weights, "state_dict") else ""
        raise TypeError(f"`weights` must be the state dict of a torch model, got a {got}{hint}")


def check_optimizer(optimizer: Any) -> None:
    """Raises a `ValueError` where this is no optimizer's state dict."""
    for complaint in _complaints(optimizer):
        raise ValueError(
            f"`optimizer` must be the state dict of a torch optimizer, with `state` and "
            f"`param_groups`; {complaint}"
        )


def _complaints(x: Any) -> Iterator[str]:
    if not isinstance(x, Mapping):
        has = " that has one: give its `state_dict()`" if hasattr(x, "state_dict") else ""
        yield f"it is a {type(x).__name__}{has}"
    elif not {"state", "param_groups"} <= x.keys():
        yield f"it has {list(x)[:5]}"
    elif not isinstance(x["state"], Mapping):
        yield f"its `state` is a {type(x['state']).__name__}, not a dictionary"
    elif not isinstance(x["param_groups"], list | tuple) or not x["param_groups"]:
        yield f"its `param_groups` must be a list of one or more, got {str(x['param_groups'])[:50]}"
    else:
        for i, group in enumerate(x["param_groups"]):
            yield from _of_group(f"group{i}", group)
        for key, state in x["state"].items():
            if not isinstance(state, Mapping):
                yield f"its state of parameter {key!r} is a {type(state).__name__}"


def _of_group(label: str, group: Any) -> Iterator[str]:
    if not isinstance(group, Mapping):
        yield f"{label} is a {type(group).__name__}, not a dictionary"
        return
    listed, names = group.get("params"), group.get("param_names")
    if not _is_list(listed, int | str):
        yield f"{label} must have `params`, a list of numbers or names, got {str(listed)[:50]}"
    elif names is not None and not (_is_list(names, str) and len(names) == len(listed or ())):
        yield f"{label} must have as many `param_names` as `params`, got {str(names)[:50]}"


def _is_list(x: Any, kind: Any) -> bool:
    return isinstance(x, list | tuple) and all(isinstance(item, kind) for item in x)


def of_settings(arguments: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the settings of a group."""
    for name, x in arguments.items():
        if name == "betas":
            if not isinstance(x, tuple) or len(x) != 2 or not all(map(_is_finite, x)):
                yield f"`betas` must be two numbers, got {_shown(x)}"
        elif not _is_finite(x):
            yield f"`{name}` must be one finite number, got {_shown(x)}"


def of_step(x: Any) -> str:
    """What is wrong with a count of steps; empty if nothing is."""
    is_one = math.prod(shape_of(x)) == 1 and not isinstance(x, str)
    x = number(x) if is_one else x
    is_number = is_one and _is_finite(x) and float(x) == int(x)
    if is_number and 0 <= int(x) < 2**31 - 1:
        return ""
    return f"step must be a whole number from 0 to {2**31 - 2:,}, got {_shown(x)}"


def plain(x: Any) -> Any:
    """A setting with its tensors of one element as numbers; other things as they are."""
    if isinstance(x, tuple | list):
        return tuple(map(plain, x))
    return number(x) if math.prod(shape_of(x)) == 1 and hasattr(x, "item") else x


def _is_finite(x: Any) -> bool:
    return isinstance(x, int | float) and math.isfinite(x)


def _shown(x: Any) -> str:
    shape = shape_of(x)
    return f"an array of shape {shape}" if shape else repr(x)[:60]


def unknown(group: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    """The settings of a group that no recipe has."""
    return sorted(str(key) for key in group if key not in (*known, *HARMLESS))
