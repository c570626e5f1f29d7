# SPDX-License-Identifier: Apache-2.0
"""The layout explains itself: few rooms, imports that go downwards, short files, one table."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import adamx
from adamx.cli import build_parser
from adamx.cli.bench.torch_step import CLASSES
from adamx.cli.compare.sweep import OPTIMIZERS
from adamx.optimizers.recipe import SHARED, TABLE

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "adamx"

# From the ground up. A file may import from its own row and from the rows above it here.
LAYERS = (
    {"core"},
    {"storage", "landing"},
    {"kernels"},
    {"moments", "transforms"},
    {"optimizers"},
    {"rules", "health", "footprint", "describe", "knobs"},
    {"checkpoints", "interop", "parallel"},
    {"explain"},
    {""},  # adamx itself
    {"cli"},
    {"__main__"},
)


def files():
    return sorted(p for p in PACKAGE.rglob("*.py"))


def module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """The modules of ours that a file imports when it is imported itself."""
    known = {module(p) for p in files()}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{a.name}" for a in node.names]
            names = [n if n in known else node.module for n in names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        yield from (n for n in names if n == "adamx" or n.startswith("adamx."))


def room(name):
    return [*name.split("."), ""][1]


def layer(name):
    return next(i for i, rooms in enumerate(LAYERS) if room(name) in rooms)


def test_no_file_imports_from_a_higher_layer():
    for path in files():
        for other in imports(path):
            assert layer(other) <= layer(module(path)), f"{module(path)} imports {other}"


def test_no_two_rooms_of_a_layer_import_each_other():
    seen = {(room(module(p)), room(other)) for p in files() for other in imports(p)}
    for here, there in seen:
        assert here == there or (there, here) not in seen, f"{here} and {there}"


def test_no_file_is_part_of_a_circle():
    edges = {module(p): set(imports(p)) - {module(p)} for p in files()}
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, " -> ".join([*open_, name])
        if name in done or name not in edges:
            return
        open_.append(name)
        for other in edges[name]:
            # A package's __init__ collects its files: that a file is in it is no circle.
            if not name.startswith(other + "."):
                visit(other)
        open_.pop()
        done.add(name)

    for name in edges:
        visit(name)


def test_there_are_few_rooms_and_no_long_file():
    rooms = {p.name for p in PACKAGE.iterdir() if not p.name.startswith("__pycache__")}
    assert len(rooms) <= 20, sorted(rooms)
    for path in files():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path


def test_every_recipe_and_link_explains_the_arguments_that_it_shares():
    for name, entry in TABLE.items():
        assert getattr(adamx, name) is entry.build
        for build in (entry.build, entry.link):
            assert getattr(adamx, build.__name__) is build
            for argument in inspect.signature(build).parameters:
                assert argument in SHARED or f"  {argument}: " in build.__doc__, (name, argument)
                assert f"  {argument}: " in build.__doc__, (name, argument)


def test_the_command_line_knows_the_recipes_of_the_table():
    def choices(command, flag):
        parser = build_parser()._subparsers._group_actions[0].choices[command]
        return next(a for a in parser._actions if flag in a.option_strings)

    assert tuple(choices("train", "--recipe").choices) == tuple(TABLE)
    assert set(OPTIMIZERS) >= set(TABLE)
    assert set(CLASSES) <= set(TABLE)


def test_importing_starts_no_backend_and_loads_no_part_that_a_training_may_not_need():
    code = """
import sys, jax, optax
before = set(sys.modules)
import adamx
from jax._src import xla_bridge
assert not xla_bridge._backends
optional = {"matplotlib", "orbax", "sklearn", "rich", "torch", "flax", "keras", "h5py"}
assert not optional & set(sys.modules), optional & set(sys.modules)
later = ["adamx." + part for part in ("health", "interop", "parallel", "checkpoints", "cli")]
later += ["adamx.explain.objects", "jax.experimental.multihost_utils"]
new = set(sys.modules) - before
found = [m for m in new if any(f"{m}.".startswith(f"{part}.") for part in later)]
assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_what_is_imported_when_it_is_used_is_there():
    code = """
import sys, adamx
later = ["health", "interop", "parallel", "checkpoints", "Checkpoints", "register"]
assert set(later) <= set(dir(adamx)) and set(later) - {"checkpoints"} <= set(adamx.__all__)
assert not hasattr(adamx, "adamv")
from adamx import *
assert health is sys.modules["adamx.health"] and interop.optax and parallel.zero
assert Checkpoints is adamx.checkpoints.Checkpoints is vars(adamx)["Checkpoints"]
assert callable(register) and callable(explain) and adamw is adamx.adamw
import adamx.explain.objects
assert callable(adamx.explain)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").exists()
