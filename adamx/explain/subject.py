# SPDX-License-Identifier: Apache-2.0
"""An optimizer to be explained: what it is called, and what is known of its hyperparameters."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax

# Hyperparameters that libraries have under different names, as ours call them.
COMMON = ("learning_rate", "b1", "b2", "eps", "weight_decay")


class Setting(NamedTuple):
    """A hyperparameter, and where its value comes from: "given", "default", "measured", or "taken"
    where the library has no default."""

    value: Any
    source: str


@dataclasses.dataclass(frozen=True)
class Subject:
    """An optimizer, with what is known of it before it is run.

    Attributes:
      name: as it is called, such as `torch.AdamW`.
      settings: its hyperparameters: the common ones by our names, the others by its own.
      build: makes the optimizer, with other values of some common hyperparameters.
    """

    name: str
    settings: Mapping[str, Setting]
    build: Callable[..., optax.GradientTransformation]

    @functools.cached_property
    def opt(self) -> optax.GradientTransformation:
        """The optimizer with its own hyperparameters."""
        return self.build()

    def value(self, name: str, otherwise: Any = None) -> Any:
        """The value of a hyperparameter."""
        return self.settings[name].value if name in self.settings else otherwise

    def changed(self, settings: Mapping[str, Setting]) -> "Subject":
        """The same with other values of common hyperparameters; a `TypeError` if it has none."""
        values = {k: v.value for k, v in settings.items()}
        if values.get("weight_decay", 0.0) is None:
            values["weight_decay"] = 0.0
        opt = self.build(**values)
        return dataclasses.replace(
            self, settings={**self.settings, **settings}, build=lambda **common: opt
        )

    def at_rate_of(self, other: "Subject") -> "Subject":
        """The same with the other's learning rate, where its library has no default."""
        rate, theirs = self.settings.get("learning_rate"), other.settings.get("learning_rate")
        if not rate or not theirs or rate.source != "taken" or theirs.source == "taken":
            return self
        taken = Setting(theirs.value, "taken")
        found = dataclasses.replace(self, settings={**self.settings, "learning_rate": taken})
        return dataclasses.replace(
            found, build=lambda **common: self.build(**{"learning_rate": taken.value, **common})
        )

    @property
    def rate(self) -> float:
        """The learning rate; that of the first step where it is a schedule."""
        rate: Any = self.value("learning_rate", 1.0)
        first: Any = rate(0) if callable(rate) else rate
        return float(first) or 1.0
