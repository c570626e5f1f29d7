# SPDX-License-Identifier: Apache-2.0
"""The recipes and storages that the commands offer, ours and Optax's, by name."""

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


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Declares `--recipe`."""
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default="adamw",
        metavar="NAME",
        help=f"one of {', '.join(RECIPES)} (default: adamw)",
    )


def ours(recipe: str, **settings: Any) -> optax.GradientTransformationExtraArgs:
    """`adamx.<recipe>(**settings)`; a value that it does not take is refused in its own words."""
    try:
        return getattr(adamx, recipe)(**settings)
    except ValueError as error:
        raise UsageError(str(error)) from error


def theirs(recipe: str, **settings: Any) -> optax.GradientTransformationExtraArgs:
    """Optax's recipe of the same name; an argument that it lacks is refused."""
    for name in settings:
        if name not in arguments_of_optax(recipe):
            flag = name.replace("_", "-")
            raise UsageError(
                f"optax.{recipe} has no {name}; leave --{flag} out or add --compare none"
            )
    return _theirs(recipe)(**settings)


def arguments_of_optax(recipe: str) -> frozenset[str]:
    """What Optax's recipe of that name takes."""
    return frozenset(inspect.signature(_theirs(recipe)).parameters)


def _theirs(recipe: str) -> Callable[..., optax.GradientTransformationExtraArgs]:
    return getattr(optax, recipe, None) or getattr(optax.contrib, recipe)
