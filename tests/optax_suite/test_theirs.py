# SPDX-License-Identifier: Apache-2.0
"""Optax's own tests, taken from its installed package, with our functions in Optax's modules.

Their modules are imported under the swap, as their tables of cases hold functions, and each of
their tests runs under it. Their other settings are theirs, too: standard promotion, warnings
that pass. All of that ends with the test. They need flax and scikit-learn beside what JAX and
Optax bring.
"""

import contextlib
import importlib
import os
import re
import unittest
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import optax
import pytest

from adamx.optimizers.recipe import TABLE

from . import reach
from .deviations import DEVIATIONS, LEFT_OUT, Deviation
from .swap import SHARED, swapped

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@contextlib.contextmanager
def _their_settings() -> Iterator[None]:
    """What Optax's tests are written for, and an end to what they leave behind."""
    x64, flags, version = jax.config.jax_enable_x64, os.environ.get("XLA_FLAGS"), jax.__version__
    jax.__version__ = "0.9"  # they compare strings: "0.10" < "0.7.2" skips tests of sharding
    try:
        with swapped(), jax.numpy_dtype_promotion("standard"):
            yield
    finally:
        jax.__version__ = version
        jax.config.update("jax_enable_x64", x64)
        os.environ.pop("XLA_FLAGS", None)
        os.environ.update({} if flags is None else {"XLA_FLAGS": flags})


@pytest.fixture(autouse=True)
def _ours_in_place_of_theirs() -> Iterator[None]:
    with _their_settings():
        yield


def _collect() -> Iterator[tuple[str, type]]:
    """Optax's test classes, with the tests that reach us."""
    for module in _modules():
        for theirs in list(vars(module).values()):
            own = isinstance(theirs, type) and theirs.__module__ == module.__name__
            if own and issubclass(theirs, unittest.TestCase):
                name = f"{module.__name__.removeprefix('optax.')}.{theirs.__name__}"
                tests = dict(_tests(theirs, name))
                if any(tests.values()):
                    yield name, type(theirs)(theirs.__name__, (theirs,), _PLAIN | tests)


def _modules() -> Iterator[ModuleType]:
    """Optax's test modules, imported under the swap."""
    package = Path(optax.__file__).parent
    for path in sorted(package.rglob("*_test.py")):
        dotted = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        with _their_settings(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(dotted)
        yield module


def _tests(theirs: type, case: str) -> Iterator[tuple[str, Any]]:
    """Attributes for a subclass: tests by their title, None in place of those left out."""
    for name in unittest.defaultTestLoader.getTestCaseNames(theirs):
        yield name, None
        test = getattr(theirs, name)
        title = reach.title(test)
        full = f"{case}.{title}"
        if not reach.reaches(theirs, name) or any(re.search(p, full) for p in LEFT_OUT):
            continue
        if full in _TITLES:
            raise ValueError(f"two tests are called {full}")
        _TITLES.add(full)
        deviation = DEVIATIONS.get(full)
        yield title, test if deviation is None else _must_fail(test, deviation)
        if deviation is not None and deviation.passes_in_double:
            yield f"{title}_in_double", _in_double(test)


def _must_fail(test: Any, deviation: Deviation) -> Any:
    def run(self: Any) -> None:
        test(self)

    mark = pytest.mark.xfail(
        reason=deviation.reason, raises=deviation.raises, strict=deviation.strict
    )
    return mark(run)


def _in_double(test: Any) -> Any:
    def run(self: Any) -> None:
        with jax.enable_x64(True):
            self.setUp()
            test(self)

    return run


# The first subtest that fails is the test's failure, so that an expected one counts as such.
_PLAIN = {"__module__": __name__, "subTest": lambda self, *a, **k: contextlib.nullcontext()}
_TITLES: set[str] = set()
globals().update(_collect())


def test_every_recipe_is_reached_by_some_test_of_optax() -> None:
    recipes = {name for name in SHARED if name in TABLE}
    assert recipes
    assert {n for n in recipes if not any(f"'{n}'" in title for title in _TITLES)} == set()


def test_every_deviation_is_a_test_of_optax() -> None:
    assert DEVIATIONS.keys() <= _TITLES
