# SPDX-License-Identifier: Apache-2.0
"""The recipes (ours and Optax's) and the storages that the commands offer, by name."""

import argparse
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import optax
import optax.contrib

import adamx
from adamx.cli.flags import UsageError
from adamx.optimizers.recipe import TABLE

RECIPES = tuple(TABLE)
STORAGES = tuple(adamx.storage.NAMED)
LANDINGS = tuple(adamx.landing.NAMED)


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Declares `--recipe`."""
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default="adamw",
        metavar="NAME",
        help=f"the optimizer: one of {', '.join(RECIPES)} (default: adamw)",
    )


def ours(recipe: str, **settings: Any) -> optax.GradientTransformationExtraArgs:
    """`adamx.<recipe>(**settings)`; what it refuses or does not take raises a `UsageError`.

    Methods that are not elementwise may have no storage or no landing: these are left out where
    they are what is there anyway.
    """
    build, elementwise = TABLE[recipe].build, TABLE[recipe].elementwise
    given = {k: v for k, v in settings.items() if elementwise or v != _USUAL.get(k)}
    for name in given:
        if name not in inspect.signature(build).parameters:
            flag = name.replace("_", "-")
            raise UsageError(f"adamx.{recipe} has no {name}: leave --{flag} out")
    try:
        return build(**given)
    except ValueError as error:
        raise UsageError(str(error)) from error


_USUAL = {"storage": "float32", "landing": "nearest"}


def offered(recipe: str, argument: str, chosen: Sequence[str]) -> list[str]:
    """Of the storages or landings of a table, those that a recipe has; all if some were chosen.

    What was chosen and is not there is an error when it is built.
    """
    everything = {"storage": STORAGES, "landing": LANDINGS}[argument]
    if tuple(chosen) != everything:
        return list(chosen)

    def has(choice: str) -> bool:
        try:
            ours(recipe, learning_rate=1e-3, **{argument: choice})
        except UsageError:
            return False
        return True

    return [choice for choice in chosen if has(choice)]


def theirs(recipe: str, **settings: Any) -> optax.GradientTransformationExtraArgs:
    """Optax's recipe of the same name; an argument that it lacks raises `UsageError`."""
    build = _theirs(recipe)
    if build is None:
        raise UsageError(f"Optax has no {recipe}: add --compare none")
    for name in settings:
        if name not in inspect.signature(build).parameters:
            flag = name.replace("_", "-")
            raise UsageError(
                f"optax.{recipe} has no {name}; leave --{flag} out or add --compare none"
            )
    return build(**settings)


def reference(recipe: str) -> str:
    """The recipe of Optax beside which ours is measured: its own, or AdamW if Optax has none."""
    return "adamw" if _theirs(recipe) is None else recipe


def usual_arguments(recipe: str) -> frozenset[str]:
    """The argument names of Optax's recipe of that name, or of ours if Optax has none."""
    build = _theirs(recipe) or TABLE[recipe].build
    return frozenset(inspect.signature(build).parameters)


def _theirs(recipe: str) -> Callable[..., optax.GradientTransformationExtraArgs] | None:
    return getattr(optax, recipe, None) or getattr(optax.contrib, recipe, None)
