# SPDX-License-Identifier: Apache-2.0
"""The rows of the tables: Optax's step and ours, in each storage and with each landing."""

from collections.abc import Sequence

from adamx.cli.bench.target.program import Step
from adamx.cli.shapes import Shapes

OPTAX = "Optax"
DTYPES = ("float32", "bfloat16")
"""The dtypes of parameters; each has a table of its own."""


def rows(
    recipe: str,
    dtype: str,
    storages: Sequence[str],
    landings: Sequence[str],
    tree: Shapes,
    repeats: int,
) -> dict[str, Step]:
    """The step of each row. Landings change nothing for float32 parameters."""
    found = {OPTAX: Step(recipe, dtype, None, "nearest", tree, repeats)}
    for storage in storages:
        if dtype == "float32":
            found[storage] = Step(recipe, dtype, storage, "nearest", tree, repeats)
            continue
        for landing in landings:
            found[f"{storage} {landing}"] = Step(recipe, dtype, storage, landing, tree, repeats)
    return found
