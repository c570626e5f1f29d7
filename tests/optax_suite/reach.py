# SPDX-License-Identifier: Apache-2.0
"""Which of Optax's tests come to one of the swapped functions, told from their code.

A test does if a name of ours stands in its code, in a helper of its module that it calls, in its
parameters, or at the end of its name. Parameters may also name an Optax function that builds on
ours, as `muon` does on `adamw`; the rest of muon's tests are about muon. Links that stand in any
recipe, `GENERIC`, do not count there: 10,000 steps of `sgd` would say nothing about Adam.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from .swap import SHARED

GENERIC = {"scale_by_learning_rate", "scale_by_trust_ratio", "add_decayed_weights"} | {
    name for name in SHARED if "clip" in name
}


def reaches(case: type, name: str) -> bool:
    """Whether the test `name` of the class `case` comes to a swapped function."""
    test = getattr(case, name)
    code = _words(test, case) | _words(case.setUp, case)
    parameters = set(re.findall(r"\w+", _parameters(test)))
    ends = any(name.endswith(f"_{n}") for n in BUILT_ON_OURS)
    return ends or not code.isdisjoint(SHARED) or not parameters.isdisjoint(BUILT_ON_OURS)


def title(test: Any) -> str:
    """A test's name with its parameters, where it has no name of its own: `test_x(opt='adam')`."""
    numbered = hasattr(test, "__x_params_repr__")
    return re.sub(r" at 0x[0-9a-f]+", "", _parameters(test)) if numbered else test.__name__


def _parameters(test: Any) -> str:
    """What absl writes into a parameterized test's docstring: `test_x(opt='adam')`."""
    return (test.__doc__ or "").partition("\n")[0]


def _words(function: Any, case: type) -> set[str]:
    """The names in a function's code and in that of its module's and class' helpers."""
    words, todo = set(), [function]
    while todo:
        function = inspect.unwrap(todo.pop())
        if not isinstance(function, FunctionType):  # a test that is parameterized twice
            continue
        new = _names(function.__code__) - words
        words |= new
        for name in new:
            helper = function.__globals__.get(name, getattr(case, name, None))
            if isinstance(helper, FunctionType) and helper.__module__ == case.__module__:
                todo.append(helper)
    return words


def _names(code: CodeType) -> set[str]:
    inner = [_names(c) for c in code.co_consts if isinstance(c, CodeType)]
    return set(code.co_names).union(*inner)


def _built_on_ours() -> set[str]:
    """The swapped names, and those of Optax's functions whose code comes to one of them."""
    functions = dict(_functions())
    found, new = set(), set(SHARED) - GENERIC
    while new:
        found |= new
        new = {n for n, code in functions.items() if not new.isdisjoint(_names(code))} - found
    return found | set(SHARED)


def _functions() -> Iterator[tuple[str, CodeType]]:
    for key, module in list(sys.modules.items()):
        if key.partition(".")[0] == "optax" and not key.endswith("_test"):
            for name, value in vars(module).items():
                if isinstance(value, FunctionType) and value.__module__ == key:
                    yield name, value.__code__


BUILT_ON_OURS = _built_on_ours()
