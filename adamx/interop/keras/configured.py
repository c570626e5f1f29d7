# SPDX-License-Identifier: Apache-2.0
"""Our recipe for a Keras optimizer, from the configuration that Keras itself writes of it."""

import warnings
from collections.abc import Mapping
from typing import Any

from adamx.interop.keras import recipes
from adamx.interop.names import nearest
from adamx.optimizers.recipe import Optimizer

RECIPES = {
    "Adam": recipes.adam,
    "AdamW": recipes.adamw,
    "Nadam": recipes.nadam,
    "Adamax": recipes.adamax,
    "Lamb": recipes.lamb,
}


def of_config(config: Mapping[str, Any], **ours: Any) -> Optimizer:
    """The recipe that goes on where a Keras optimizer stopped.

    Args:
      config: `keras.optimizers.serialize(optimizer)`: `class_name` and `config`.
      **ours: what our recipes add, and what is to be another than there: `storage="int8"`,
        `learning_rate=schedule`.

    Example:
      >>> from adamx.interop import keras
      >>> opt = keras.of_config({"class_name": "Adam", "config": {"beta_1": 0.8}}, storage="int8")
    """
    name = class_of(config)
    if name not in RECIPES:
        raise ValueError(f"keras.{name} has no recipe here; the nearest: {nearest(name, RECIPES)}")
    arguments = {**config.get("config", {}), **ours}
    if isinstance(arguments.get("learning_rate"), Mapping):
        kind = arguments["learning_rate"].get("class_name", "a schedule")
        raise ValueError(
            f"keras.{name}: its learning rate is {kind}; give `learning_rate` as a number or as a "
            "function of the step"
        )
    return RECIPES[name](**arguments)


def class_of(config: Mapping[str, Any]) -> str:
    """The class that a configuration names."""
    if "class_name" not in config:
        raise ValueError(
            "a configuration of Keras has a `class_name`, as `keras.optimizers.serialize` writes "
            f"it; this one has {', '.join(map(str, config)) or 'nothing'}"
        )
    return str(config["class_name"]).rpartition(">")[2]


def config_of(optimizer: Any) -> dict[str, Any]:
    """What Keras writes of a live optimizer."""
    with warnings.catch_warnings():  # NumPy's, about Keras' arrays
        warnings.simplefilter("ignore", DeprecationWarning)
        return {"class_name": _class(type(optimizer)), "config": optimizer.get_config()}


def _class(kind: Any) -> str:
    """Keras' class, also of one that inherits its step."""
    for base in kind.__mro__:
        same = getattr(base, "update_step", None) is getattr(kind, "update_step", None)
        if base.__module__.startswith("keras.") and same:
            return base.__name__
    return f"{kind.__module__}.{kind.__name__}"
