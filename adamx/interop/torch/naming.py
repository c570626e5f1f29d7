# SPDX-License-Identifier: Apache-2.0
"""The names of the parameters of each group of a torch optimizer.

torch numbers parameters by their position: group after group, in the order in which the optimizer
was given them. Names come with it if the optimizer was given `model.named_parameters()`, or are
the keys themselves (FSDP). Otherwise the order has to be known; with one group it is that of the
model's parameters, as far as the weights still tell it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from adamx.interop.names import Problems, nearest
from adamx.interop.torch.order import is_the_models, parameters_of
from adamx.interop.torch.wrappers import find

Order = Sequence[str] | Sequence[Sequence[str]] | None
Groups = Sequence[Mapping[str, Any]]
HOW = "order=[n for n, _ in model.named_parameters()]"
UNTRAINED = (
    ": if buffers or frozen parameters are among these, give `order`, such as [n for n, p in "
    "model.named_parameters() if p.requires_grad]"
)


def names_of(
    groups: Groups,
    weights: Mapping[str, Any],
    order: Order,
    problems: Problems,
    taken: Collection[str] | None = None,
) -> tuple[Sequence[Sequence[str]], str]:
    """The names of each group's parameters, and where they come from.

    `taken` are the names that leaves here take, if that is known: what no leaf takes and what is
    more than the optimizer has is a buffer.
    """
    sizes = [len(group["params"]) for group in groups]
    found, source = _found(groups, weights, order)
    found = found and [[find(name, weights) for name in names] for names in found]
    if found is not None and source == OWN and len(found[0]) > sizes[0] and taken is not None:
        rest = [name for name in found[0] if name in taken]
        found = [rest] if len(rest) == sizes[0] else found
    if found is None:
        problems.add(
            f"the optimizer has {len(groups)} groups and no names: give `order`, torch's names of "
            f"the parameters of each, {sizes} of them (on the command line in the --mapping)"
            if len(groups) > 1
            else "the optimizer has no names, and their order is in doubt, as the weights "
            f"are sorted, or arrays of a file that sorts them: give `{HOW}`"
        )
        return [[] for _ in groups], source
    if len(found) != len(groups):
        problems.add(f"`order` has {len(found)} lists, the optimizer {len(groups)} groups")
        return [[] for _ in groups], source
    if [len(names) for names in found] != sizes:
        problems.add(
            f"the groups of the optimizer have {sizes} parameters, "
            f"{'`order`' if source == GIVEN else source} names {[len(n) for n in found]}"
            f"{UNTRAINED if source == OWN else ''}"
        )
        if source == OWN:  # whose moments these are is not known, so nothing else is said of them
            return [[] for _ in groups], source
    for name in (name for names in found for name in names):
        if name not in weights:
            like = nearest(name, weights)
            problems.add(f"{name}: the optimizer trains it, the model lacks it; nearest: {like}")
    return found, source


GIVEN = "given"
OWN = "the weights' own"
NAMED = "torch's param_names"
KEYS = "torch's keys"


def _found(
    groups: Groups, weights: Mapping[str, Any], order: Order
) -> tuple[Sequence[Sequence[str]] | None, str]:
    if order is not None and all(isinstance(name, str) for name in order):
        sizes = [len(group["params"]) for group in groups]
        return _cut([str(name) for name in order], sizes), GIVEN
    if order is not None:
        return [list(names) for names in order], GIVEN
    if all("param_names" in group for group in groups):
        return [list(group["param_names"]) for group in groups], NAMED
    if all(isinstance(key, str) for group in groups for key in group["params"]):
        return [list(group["params"]) for group in groups], KEYS
    if len(groups) == 1 and is_the_models(weights):
        return [parameters_of(weights)], OWN
    return None, "unknown"


def _cut(names: list[str], sizes: list[int]) -> list[list[str]]:
    """The names of each group, the last one with all that are left."""
    found = []
    for size in sizes[:-1]:
        found.append(names[:size])
        names = names[size:]
    return [*found, names] if sizes else []
