# SPDX-License-Identifier: Apache-2.0
"""The recipes (ours and Optax's) and the storages that the commands offer, by name."""

import argparse
import inspect
from collections.abc import Callable
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
    """`adamx.<recipe>(**settings)`; a `ValueError` becomes a `UsageError` with the same message."""
    try:
        return getattr(adamx, recipe)(**settings)
    except ValueError as error:
        raise UsageError(str(error)) from error


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


def usual_arguments(recipe: str) -> frozenset[str]:
    """The argument names of Optax's recipe of that name, or of ours if Optax has none."""
    build = _theirs(recipe) or TABLE[recipe].build
    return frozenset(inspect.signature(build).parameters)


def _theirs(recipe: str) -> Callable[..., optax.GradientTransformationExtraArgs] | None:
    return getattr(optax, recipe, None) or getattr(optax.contrib, recipe, None)
