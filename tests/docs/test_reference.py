# SPDX-License-Identifier: Apache-2.0
"""Every public name of adamx, and of its public modules, has a place in the API reference."""

import inspect

import pytest

import adamx
from adamx.optimizers.recipe import TABLE
from docs.hooks import api

PAGES = api.pages()
DOCUMENTED = {name for page in PAGES.values() for name in page.names}


def test_every_recipe_and_its_link_is_documented():
    for name, entry in TABLE.items():
        assert f"adamx.{name}" in DOCUMENTED
        assert f"adamx.{entry.link.__name__}" in DOCUMENTED


@pytest.mark.parametrize("name", TABLE)
def test_every_recipe_has_a_formula_and_an_example(name):
    told = inspect.getdoc(TABLE[name].build) or ""
    assert ".. math::" in told
    assert ">>> " in told


def test_every_name_in_adamx_is_documented():
    names = [name for name in vars(adamx) if not name.startswith("_")]
    others = [name for name in names if not inspect.ismodule(getattr(adamx, name))]
    assert len(others) > 40
    assert [name for name in others if f"adamx.{name}" not in DOCUMENTED] == []


@pytest.mark.parametrize("name", api.public_modules())
def test_every_name_of_a_public_module_is_documented(name):
    module = api.public_modules()[name]
    for part in getattr(module, "__all__", []):
        value = getattr(module, part)
        full = f"{name}.{part}"
        assert full in (api.public_modules() if inspect.ismodule(value) else DOCUMENTED)


def test_every_public_module_is_found():
    known = "storage landing decay health parallel interop kernels knobs rules"
    found = {name for name in api.public_modules() if name.count(".") == 1}
    assert found == {f"adamx.{name}" for name in known.split()}
    assert {"adamx.interop.torch", "adamx.interop.keras"} <= set(api.public_modules())


def test_every_rule_is_documented():
    for entry in (entry for entry in TABLE.values() if entry.elementwise):
        stem = entry.build.__module__.rpartition(".")[2]
        has_one = hasattr(adamx.rules, stem)  # not LAMB, whose rule is Adam's
        assert (f"adamx.rules.{stem}" in DOCUMENTED) == has_one


def test_every_function_has_a_docstring():
    for page in PAGES.values():
        for name in page.names:
            value = api.value_of(name)
            named = inspect.isroutine(value) or inspect.isclass(value)
            assert not named or inspect.getdoc(value), name
