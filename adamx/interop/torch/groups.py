# SPDX-License-Identifier: Apache-2.0
"""What the state dict of a torch optimizer says: its class, its groups, moments and step counts.

torch numbers parameters by their position; `naming.py` says which is which.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from adamx.core.rule import Kind
from adamx.interop.names import Problems
from adamx.interop.torch.arguments import IGNORED
from adamx.interop.torch.checked import check_optimizer, of_settings, plain, unknown
from adamx.interop.torch.classes import CLASSES
from adamx.interop.torch.naming import Order, names_of


class Group(NamedTuple):
    """A parameter group.

    Attributes:
      label: `group0`, `group1` …
      names, keys: torch's names of its parameters, and what the state dict calls these.
      kind, arguments: a key of `CLASSES`, and the arguments of the recipe.
      states: by name, what torch keeps of a parameter; empty where it never had a gradient.
      order: where the names come from.
    """

    label: str
    names: tuple[str, ...]
    keys: tuple[Any, ...]
    kind: str
    arguments: dict[str, Any]
    states: dict[str, Mapping[str, Any]]
    order: str

    @property
    def resting(self) -> frozenset[str]:
        """The parameters that never had a gradient, as those of a frozen layer: torch leaves them
        alone, decay included."""
        return frozenset(name for name in self.names if not self.states.get(name))

    @property
    def moments(self) -> dict[str, str]:
        """Our names of the moments, to torch's."""
        extra = {"nu_max": "max_exp_avg_sq"} if self.arguments.get("amsgrad") else {}
        return {**CLASSES[self.kind].moments, **extra}

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each moment."""
        known: dict[str, Kind] = {**CLASSES[self.kind].kinds, "nu_max": "maximum"}
        return {name: known[name] for name in self.moments}


def read_groups(
    optimizer: Any,
    weights: Mapping[str, Any],
    order: Order,
    kind: str | None,
    problems: Problems,
    taken: Collection[str] | None = None,
) -> list[Group]:
    """The groups of an optimizer's state dict, see `from_torch`; for `taken` see `names_of`."""
    if kind is not None and kind not in CLASSES:
        raise ValueError(f"`kind` must be one of {', '.join(map(repr, CLASSES))}, got {kind!r}")
    check_optimizer(optimizer)
    listed, groups = optimizer["param_groups"], []
    named, source = names_of(listed, weights, order, problems, taken)
    for i, (group, names) in enumerate(zip(listed, named, strict=True)):
        label, states = f"group{i}", {}
        for key, name in zip(group["params"], names, strict=False):
            if name in states:
                problems.add(f"{name}: {label} has this parameter twice")
            states[name] = optimizer["state"].get(key, {})
        found = kind or _kind(group, states)
        if found is None:
            problems.add(
                f"{label}: cannot tell its optimizer from its settings "
                f"({', '.join(sorted(set(group) - {'params', 'param_names'}))}): give `kind`, one "
                f"of {', '.join(map(repr, CLASSES))}"
            )
            continue
        known = CLASSES[found].arguments
        if "correct_bias" in group:
            problems.add(
                f"{label}: `correct_bias` is of the AdamW of transformers, whose arithmetic has no "
                "recipe here: train some steps with torch.optim.AdamW first"
            )
        elif rest := unknown(group, known):
            problems.add(
                f"{label}: no recipe here has the settings {', '.join(rest)} of its optimizer "
                "(delete from the group what changes no step)"
            )
        arguments = {k: plain(group[k]) for k in known if k in group}
        for wrong in of_settings(arguments):
            problems.add(f"{label}: {wrong}")
        keys = tuple(group["params"])
        groups.append(Group(label, tuple(names), keys, found, arguments, states, source))
    return groups


def _kind(group: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The optimizer that has such settings and such a state; None if several have."""
    held = {key for state in states.values() for key in state}
    if not {"betas", "eps"} <= group.keys() or "bias_correction" in group:
        return None
    if "momentum_decay" in group:
        return "nadam"
    if "amsgrad" in group:
        if "decoupled_weight_decay" in group:
            return "adamw" if group["decoupled_weight_decay"] else "adam"
        return "adam" if group.get("weight_decay") == 0 else None
    if "decoupled_weight_decay" in group:
        return "radam"
    if "exp_inf" in held:
        return "adamax"
    if "weight_decay" not in group:
        return "sparse_adam" if not set(IGNORED) & group.keys() else None
    return "adamax" if not held and "foreach" in group else None
