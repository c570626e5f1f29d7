# SPDX-License-Identifier: Apache-2.0
"""The optimizers that have a name, by library, and what their arguments are called there."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, NamedTuple

import optax
import optax.contrib

from adamx.explain.subject import COMMON, Setting, Subject
from adamx.interop.names import check_arguments, nearest
from adamx.interop.register import original
from adamx.optimizers.recipe import TABLE

RATE = 1e-3  # where a library has no default


class Known(NamedTuple):
    """An optimizer with a name.

    Attributes:
      build: makes it of its library's own arguments.
      names: its library's names of the common hyperparameters.
      more: arguments that its signature does not list, with their defaults.
    """

    build: Callable[..., optax.GradientTransformation]
    names: Mapping[str, str]
    more: Mapping[str, Any]

    @property
    def defaults(self) -> dict[str, Any]:
        """Its arguments; those without a default have `inspect.Parameter.empty`."""
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        found = inspect.signature(self.build).parameters.values()
        return {p.name: p.default for p in found if p.kind not in kinds} | dict(self.more)


def subject(name: str, args: tuple[Any, ...] = (), /, **given: Any) -> Subject:
    """The optimizer of this name, with these arguments by the names of its library."""
    full = find(name)
    known = all_known()[full]
    placed = dict(zip(known.defaults, args, strict=False))
    if len(args) > len(placed):
        raise TypeError(f"{full} takes at most {len(placed)} arguments, got {len(args)}")
    for argument in given:
        if argument in placed:
            raise TypeError(f"{full} got `{argument}` twice, by place and by name")
    given = placed | given
    check_arguments(full, given, (*known.defaults, *_IGNORED))
    given = {k: v for k, v in given.items() if k in known.defaults}
    theirs = {v: k for k, v in known.names.items()}
    settings: dict[str, Setting] = {}
    for argument, default in known.defaults.items():
        is_given = argument in given
        value: Any = given.get(argument, default)
        source = "given" if is_given else "default"
        if value is inspect.Parameter.empty:
            value, source = RATE, "taken"
        if argument == "betas":
            if not isinstance(value, tuple | list) or len(value) != 2:
                raise ValueError(f"{full}: `betas` must be a pair of numbers, got {value!r}")
            settings |= {"b1": Setting(value[0], source), "b2": Setting(value[1], source)}
        elif argument not in _SILENT:
            settings[theirs.get(argument, argument)] = Setting(value, source)

    if "use_ema" in settings and not settings["use_ema"].value:  # then these change nothing
        settings = {k: v for k, v in settings.items() if not k.startswith("ema_")}

    def build(**common: Any) -> optax.GradientTransformation:
        return known.build(**_translated(known, given, settings, common))

    return Subject(full, settings, build)


def find(name: str) -> str:
    """The full name that `name` stands for, or an error with the nearest ones."""
    short = name
    for long, prefix in _PREFIXES.items():
        if short.startswith(long):
            short = prefix + short.removeprefix(long)
            break
    folded = {known.lower(): known for known in all_known()}
    if short.lower() not in folded:
        raise ValueError(f"no optimizer is called {name!r}; the nearest: {_like(short, folded)}")
    return folded[short.lower()]


def _like(name: str, folded: Mapping[str, str]) -> str:
    """The names like a whole name, and those whose last word is like its last."""
    last = {known: known.rpartition(".")[2] for known in folded}
    words = nearest(name.lower().rpartition(".")[2], set(last.values())).split(", ")
    whole = nearest(name.lower(), folded, most=6).split(", ")
    found = [k for word in words[:1] for k in folded if last[k] == word] if "." not in name else []
    found += [k for k in whole if k in folded]
    found += [k for word in words for k in folded if last[k] == word]
    shown = [folded[k] for k in dict.fromkeys(found)][:6]
    return ", ".join(shown) or f"names begin with {', '.join(LIBRARIES)}"


@functools.cache
def all_known() -> dict[str, Known]:
    """Every optimizer that has a name, by its full name."""
    found = {}
    around = importlib.import_module("adamx.interop.keras.arguments").Around._field_defaults
    for title, recipe in importlib.import_module("adamx.interop.keras.configured").RECIPES.items():
        found[f"keras.{title}"] = Known(recipe, _KERAS, around)
    for title in ("Adam", "Nadam", "Adamax"):
        recipe = getattr(importlib.import_module("adamx.interop.keras.legacy"), title.lower())
        more = {k: None for k in _LEGACY if title != "Nadam" or k != "decay"}
        found[f"tf.keras.legacy.{title}"] = Known(recipe, _KERAS, more)
    for kind in importlib.import_module("adamx.interop.torch.classes").CLASSES.values():
        found[f"torch.{kind.name}"] = Known(kind.build, _TORCH, {})
    for name, entry in TABLE.items():
        found[f"adamx.{name}"] = Known(entry.build, _OURS, {})
    for home in (optax.contrib, optax):
        for name in dir(home):
            build = original(home, name)
            if not name.startswith(("_", "scale_by")) and _takes_a_rate(build):
                found[f"optax.{name}"] = Known(build, _OURS, {})
    return found


def _takes_a_rate(build: Callable[..., Any]) -> bool:
    if not isinstance(build, FunctionType | functools.partial):
        return False
    parameters = iter(inspect.signature(build).parameters)
    return next(parameters, None) == "learning_rate"


def _translated(
    known: Known, given: Mapping[str, Any], settings: Mapping[str, Setting], common: Mapping
) -> dict[str, Any]:
    """The arguments of a call, with some common hyperparameters changed."""
    rate = known.names["learning_rate"]
    args = {rate: settings["learning_rate"].value, **given}
    if not set(common) <= set(COMMON):
        raise TypeError(f"only {', '.join(COMMON)} can be changed, got {', '.join(common)}")
    if "betas" in known.defaults and {"b1", "b2"} & set(common):
        args["betas"] = tuple(common.get(b, settings[b].value) for b in ("b1", "b2"))
    for name, value in common.items():
        if name in known.names and known.names[name] in known.defaults:
            args[known.names[name]] = value
    return args


_OURS = {name: name for name in COMMON}
_TORCH = {"learning_rate": "lr", "eps": "eps", "weight_decay": "weight_decay"}
_KERAS = {
    "learning_rate": "learning_rate",
    "b1": "beta_1",
    "b2": "beta_2",
    "eps": "epsilon",
    "weight_decay": "weight_decay",
}
_LEGACY = ("decay", "clipvalue", "clipnorm", "global_clipnorm")
_OURS_ALONE = ("mask", "storage", "landing", "mu_dtype", "nu_dtype")
_IGNORED = ("foreach", "fused", "capturable", "differentiable", *_OURS_ALONE)
_SILENT = ("name", "mask", "params")
_PREFIXES = {
    "torch.optim.": "torch.",
    "tf.keras.optimizers.legacy.": "tf.keras.legacy.",
    "tf.keras.optimizers.": "keras.",
    "keras.optimizers.": "keras.",
    "optax.contrib.": "optax.",
}
LIBRARIES = ("torch.", "keras.", "tf.keras.legacy.", "optax.", "adamx.")
