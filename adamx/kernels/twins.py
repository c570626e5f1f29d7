# SPDX-License-Identifier: Apache-2.0
"""Which formula of `optimizers/` has a twin in `csrc/formulas.h`."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from adamx.core import values

F = TypeVar("F", bound=Callable[..., Any])

# In the order of `enum Rule` in csrc/work.h.
_RULES: tuple[str, ...] = tuple(
    "adam atan2 amsgrad radam adamax adabelief yogi lion adopt adan".split()
)


class Twin(NamedTuple):
    """The C++ form of a formula, for the values of its bound arguments in `only`."""

    rule: int
    scalars: tuple[str, ...]
    only: dict[str, tuple[Any, ...]]


def twin(name: str, **only: tuple[Any, ...]) -> Callable[[F], F]:
    """Declares that a formula has a twin in C++: of the same name, with its scalars in its order.

    There is one for these values of the arguments that are no scalars.
    """

    def declare(formula: F) -> F:
        parameters = inspect.signature(formula).parameters.values()
        keywords = (p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        scalars = tuple(k for k in keywords if k not in only)
        _TWINS.setdefault(formula, []).append(Twin(_RULES.index(name), scalars, only))
        return formula

    return declare


def of(formula: Callable[..., Any]) -> Twin | None:
    """The twin of a formula, if there is one for its bound arguments."""
    function, bound = values.parts(formula)
    for found in _TWINS.get(function, ()):
        covered = all(bound.get(k) in some for k, some in found.only.items())
        if covered and set(bound) <= set(found.only):
            return found
    return None


_TWINS: dict[Callable[..., Any], list[Twin]] = {}
