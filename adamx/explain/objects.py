# SPDX-License-Identifier: Apache-2.0
"""Optimizers given as objects: torch's, Keras' and their configurations, recipes, transformations.

torch and Keras are not imported: an object of theirs is known by the module of its class.
"""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.explain.libraries import RATE, all_known, subject
from adamx.explain.stored import parts, recipe_of
from adamx.explain.subject import Setting, Subject
from adamx.explain.written import read
from adamx.interop.names import Problems
from adamx.moments.scale_by import ScaleBy
from adamx.transforms.learning_rate import Descend
from adamx.transforms.masked import Masked
from adamx.transforms.weight_decay import Pull


def recognised(x: Any, position: str) -> Subject:
    """What `x` is, or an error that says what may be given. `position` is `"a"` or `"b"`."""
    if isinstance(x, Subject):
        return x
    if isinstance(x, str):
        return read(x)
    if isinstance(x, Mapping):
        return _of_config(x, position)
    if _is_of(x, "torch.optim"):
        return _of_torch(x)
    if _is_of(x, "keras"):
        config = importlib.import_module("adamx.interop.keras.configured").config_of(x)
        return _of_keras(config["class_name"], config["config"])
    if callable(getattr(x, "init", None)) and callable(getattr(x, "update", None)):
        return _of_ours(x, position) or _opaque(x, position)
    raise TypeError(
        f"`{position}` must be a name such as 'torch.AdamW', an optimizer of torch or Keras, its "
        f"configuration, or a gradient transformation, got {type(x).__name__}"
    )


def _is_of(x: Any, module: str) -> bool:
    return any(c.__module__.startswith(module) for c in type(x).__mro__)


def _of_torch(x: Any) -> Subject:
    kind = next(c for c in type(x).__mro__ if c.__module__.startswith("torch.optim"))
    if inspect.unwrap(type(x).step) is not inspect.unwrap(kind.step):  # torch wraps it in hooks
        raise ValueError(
            f"{type(x).__name__} has a `step` of its own, not that of torch.{kind.__name__}: what "
            "it computes is not known here"
        )
    groups = [{k: v for k, v in group.items() if k != "params"} for group in x.param_groups]
    return _of_torch_group(kind.__name__, groups)


def _of_torch_group(name: str, groups: Sequence[Mapping[str, Any]]) -> Subject:
    """The optimizer of the first group, named so that it is said if there are others."""
    known = all_known()
    full = f"torch.{name}"
    arguments = known[full].defaults if full in known else groups[0]
    kept = {k: _number(v) for k, v in groups[0].items() if k in arguments}
    found = subject(full, **kept)
    if all(dict(group) == dict(groups[0]) for group in groups):
        return found
    return Subject(f"{full} (the first of {len(groups)} groups)", found.settings, found.build)


def _of_keras(name: str, config: Mapping[str, Any]) -> Subject:
    known = all_known().get(f"keras.{name}")
    arguments = known.defaults if known else config
    kept = {k: _number(v) for k, v in config.items() if k in arguments and k != "name"}
    if isinstance(kept.get("learning_rate"), Mapping):
        schedule = kept["learning_rate"].get("class_name", "a schedule")
        raise ValueError(
            f"keras.{name}: its learning rate is {schedule}; give a number instead, as in "
            f"'keras.{name}(learning_rate=0.001)'"
        )
    return subject(f"keras.{name}", **kept)


def _of_config(x: Mapping[str, Any], position: str) -> Subject:
    """A configuration: of `keras.optimizers.serialize`, of `get_config`, or torch's state dict."""
    if "param_groups" in x:
        groups = [{k: v for k, v in g.items() if k != "params"} for g in x["param_groups"]]
        return _of_torch_group(_torch_class(x, position), groups)
    if "class_name" in x:
        return _of_keras(str(x["class_name"]).rpartition(">")[2], x.get("config", {}))
    if {"name", "learning_rate"} <= set(x):
        stem = str(x["name"]).rstrip("0123456789").rstrip("_").replace("_", "").lower()
        titles = [k.removeprefix("keras.") for k in all_known() if k.startswith("keras.")]
        for title in titles:
            if title.lower() == stem:
                return _of_keras(title, x)
    raise ValueError(
        f"`{position}` is a mapping, but not torch's `state_dict()`, nor Keras' `get_config()` or "
        f"`serialize`; its keys are {', '.join(map(str, x))}"
    )


def _torch_class(x: Mapping[str, Any], position: str) -> str:
    """The class of the first group of a state dict, which torch does not save."""
    if not x["param_groups"]:
        raise ValueError(f"`{position}` is a state dict of torch without parameter groups")
    first = {"params": [], **x["param_groups"][0]}
    held = {"state": x.get("state", {}), "param_groups": [first]}
    names = [str(i) for i, _ in enumerate(first["params"])]
    read = importlib.import_module("adamx.interop.torch.groups").read_groups
    groups = read(held, names, names, None, Problems("explain"))
    if not groups:
        raise ValueError(
            f"`{position}` is a state dict of torch whose settings do not tell the optimizer "
            f"({', '.join(sorted(set(first) - {'params'}))}): give the optimizer itself"
        )
    return importlib.import_module("adamx.interop.torch.classes").CLASSES[groups[0].kind].name


def _of_ours(opt: Any, position: str) -> Subject | None:
    """A recipe of ours says what it is."""
    chain = recipe_of(opt)
    if chain is None:
        return None
    settings: dict[str, Setting] = {}
    for part in parts(chain):
        if isinstance(part, ScaleBy):
            settings |= {k: Setting(v, "given") for k, v in part.rule.hyper.items()}
        part = part.link if isinstance(part, Masked) else part
        if isinstance(part, Descend):
            settings["learning_rate"] = Setting(part.learning_rate, "given")
        if isinstance(part, Pull):
            settings["weight_decay"] = Setting(part.decay.strength, "given")
    name = chain.name
    for change in chain.changes:
        name = f"{change}({name})"
    return Subject(f"{position}: {name}", settings, _fixed(opt))


def _opaque(opt: Any, position: str) -> Subject:
    """A transformation that says nothing: one step tells its rates, as far as its state shows."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        one, nothing = jnp.ones(1), jnp.zeros(1)
        made: Any = optax.with_extra_args_support(opt).update(one, opt.init(nothing), nothing)
    size, state = abs(float(made[0][0])), made[1]
    settings = {"learning_rate": Setting(float(f"{size:.7g}") or RATE, "measured")}
    name = f"{position}: an unnamed transformation"
    for node in jax.tree.leaves(state, is_leaf=_has_mean):
        if _has_mean(node):
            name = f"{position}: a transformation with {type(node).__name__}"
            first = jax.tree.leaves(node.mu)[0]
            settings["b1"] = Setting(round(1 - float(first[0]), 12), "measured")
            second = jax.tree.leaves(getattr(node, "nu", ()))
            rate = round(1 - float(second[0][0]), 12) if second else -1
            if 0 <= rate < 1:
                settings["b2"] = Setting(rate, "measured")
            break
    return Subject(name, settings, _fixed(opt))


def _has_mean(x: Any) -> bool:
    """Whether a node of a state has a mean of gradients that is stored as it is."""
    mean = jax.tree.leaves(getattr(x, "mu", ()))
    return bool(mean) and all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in mean)


def _fixed(opt: Any) -> Any:
    def build(**common: Any) -> Any:
        if common:
            raise TypeError("the hyperparameters of a transformation cannot be changed")
        return opt

    return build


def _number(x: Any) -> Any:
    """A number as it was written: 0.001 also where it was kept in float32."""
    x = x.item() if hasattr(x, "item") else x
    if isinstance(x, float) and float(np.float32(x)) == x:
        return float(str(np.float32(x)))
    return x
