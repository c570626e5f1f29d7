# SPDX-License-Identifier: Apache-2.0
"""torch's optimizers: their recipes here, their settings, and the names of their moments."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from adamx.core.rule import Kind
from adamx.interop.torch import recipes
from adamx.interop.torch.lazy_rows import sparse_adam


class Class(NamedTuple):
    """An optimizer of torch's.

    Attributes:
      name: of the class.
      build: the recipe.
      arguments: of the recipe, as groups have them.
      moments: our names of moments to torch's.
      kinds: of these moments.
    """

    name: str
    build: Callable[..., Any]
    arguments: tuple[str, ...]
    moments: Mapping[str, str]
    kinds: Mapping[str, Kind]


_SHARED = ("lr", "betas", "eps", "weight_decay", "maximize")
_TWO = {"mu": "exp_avg", "nu": "exp_avg_sq"}
_INF = {"mu": "exp_avg", "nu": "exp_inf"}
_KINDS: Mapping[str, Kind] = {"mu": "signed", "nu": "squared"}
_INF_KINDS: Mapping[str, Kind] = {"mu": "signed", "nu": "magnitude"}

CLASSES: dict[str, Class] = {
    "adam": Class(
        "Adam", recipes.adam, (*_SHARED, "amsgrad", "decoupled_weight_decay"), _TWO, _KINDS
    ),
    "adamw": Class("AdamW", recipes.adamw, (*_SHARED, "amsgrad"), _TWO, _KINDS),
    "nadam": Class(
        "NAdam", recipes.nadam, (*_SHARED, "momentum_decay", "decoupled_weight_decay"), _TWO, _KINDS
    ),
    "radam": Class("RAdam", recipes.radam, (*_SHARED, "decoupled_weight_decay"), _TWO, _KINDS),
    "adamax": Class("Adamax", recipes.adamax, _SHARED, _INF, _INF_KINDS),
    "sparse_adam": Class(
        "SparseAdam", sparse_adam, ("lr", "betas", "eps", "maximize"), _TWO, _KINDS
    ),
}
