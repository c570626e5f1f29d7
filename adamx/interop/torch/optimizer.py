# SPDX-License-Identifier: Apache-2.0
"""The optimizer of ours that a torch optimizer's groups describe."""

from collections.abc import Mapping, Sequence
from typing import Any

import optax

from adamx.core import paths
from adamx.interop.torch.classes import CLASSES
from adamx.interop.torch.groups import Group

FROZEN = "frozen"


def build(
    groups: Sequence[Group], labels: Mapping[str, str], rates: Any, ours: Mapping[str, Any]
) -> optax.GradientTransformationExtraArgs:
    """One recipe for one group, `optax.partition` for several, or where leaves are frozen.

    `rates` is a learning rate or schedule in place of torch's, or one for each group, or None;
    `ours` are other arguments of the recipes.
    """
    if isinstance(rates, Sequence) and len(rates) != len(groups):
        raise ValueError(
            f"`learning_rate` must be one or as many as there are groups, which is {len(groups)}, "
            f"got {len(rates)}"
        )
    used = set(labels.values())
    made: dict[Any, Any] = {}
    for i, group in enumerate(groups):
        rate = rates[i] if isinstance(rates, Sequence) else rates
        arguments = group.arguments | ({} if rate is None else {"lr": rate})
        if group.label in used:
            made[group.label] = CLASSES[group.kind].build(**arguments, **ours)
    if len(used) == 1 and made:
        return next(iter(made.values()))
    if FROZEN in used:
        made[FROZEN] = optax.set_to_zero()
    return optax.partition(made, lambda tree: paths.mapped(lambda name, _: labels[name], tree))
