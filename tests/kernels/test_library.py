# SPDX-License-Identifier: Apache-2.0
"""Whether there are loops, and what says why not; what the calls check before they run."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx import kernels
from adamx.kernels import build, library

needs_loops = pytest.mark.skipif(not kernels.available(), reason=str(kernels.available()))


def test_a_variable_turns_the_loops_off(monkeypatch):
    monkeypatch.setenv("ADAMX_KERNELS", "0")
    assert not kernels.available()
    assert str(kernels.available()) == "ADAMX_KERNELS=0 turns them off"
    opt, x = adamx.adam(0.1), jnp.ones(3)
    assert "adamx_step" not in adamx.jit_step(opt).lower(x, opt.init(x), x).as_text()


def test_a_library_that_was_not_built_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    library._loaded.cache_clear()
    try:
        assert "was not installed by pip" in str(library._loaded())
        library._loaded.cache_clear()
        (tmp_path / "_native.txt").write_text("there was no C++ compiler\n")
        assert str(library._loaded()) == "_native.so was not built: there was no C++ compiler"
        library._loaded.cache_clear()
        (tmp_path / "_native.so").write_bytes(b"not a library")
        assert "cannot be used" in str(library._loaded())
    finally:
        library._loaded.cache_clear()


@needs_loops
def test_a_library_for_a_newer_jaxlib_is_not_loaded(monkeypatch):
    monkeypatch.setattr(library, "_ffi_version", lambda: 0)
    library._loaded.cache_clear()
    try:
        assert not library._loaded()
        assert "headers of a newer jaxlib than the one that is installed" in str(library._loaded())
    finally:
        library._loaded.cache_clear()


def test_the_compiler_may_have_a_prefix(monkeypatch):
    monkeypatch.setenv("CXX", "ccache g++")
    assert build._compiler() == ["ccache", "g++"]


def test_without_a_compiler_building_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"no C\+\+ compiler: install g\+\+ or clang"):
        build.build(tmp_path)


def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(RuntimeError, match="`false` failed"):
        build.build(tmp_path)


@needs_loops
def test_importing_adamx_starts_no_backend_and_loads_no_library():
    code = "import adamx, jax; from jax._src import xla_bridge as x; assert not x._backends"
    code += "; from adamx.kernels import library; assert not library._loaded.cache_info().currsize"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


GOOD = {"rule": 0, "storage": 0, "landing": 0, "decay": 0, "scales": 0}


def direct(shapes, results, **attributes):
    """The custom call itself, with operands and results of these dtypes and shapes."""
    args = [jnp.ones(shape, dtype) for dtype, shape in shapes]
    out = [jax.ShapeDtypeStruct(shape, dtype) for dtype, shape in results]
    found = {k: np.int32(v) for k, v in (GOOD | attributes).items() if k != "whole"}
    whole = np.array(attributes.get("whole", ()), np.int64)
    call = jax.ffi.ffi_call(library.DIRECTION, out)
    return jax.block_until_ready(jax.jit(lambda *a: call(*a, **found, whole=whole))(*args))


F = ("float32", (4,))
NUMBERS = [("uint32", ())] * 7
OPERANDS = [F, F, F, ("float32", (20,)), *NUMBERS]
RESULTS = [F, F, F]


@needs_loops
@pytest.mark.parametrize(
    "operands, results, attributes, said",
    [
        (OPERANDS, RESULTS, {"rule": 99}, "an attribute"),
        (OPERANDS, RESULTS, {"rule": -1}, "an attribute"),
        (OPERANDS, RESULTS, {"storage": 99}, "an attribute"),
        (OPERANDS, RESULTS, {"landing": 99}, "an attribute"),
        (OPERANDS, RESULTS, {"rule": 5, "storage": 4}, "the storage"),
        (OPERANDS, RESULTS, {"storage": 4}, "a moment"),
        (OPERANDS, RESULTS, {"whole": (8, 8)}, "the shape"),
        ([F, ("float32", (3,)), *OPERANDS[2:]], RESULTS, {}, "a moment"),
        ([F, F, ("int32", (4,)), *OPERANDS[3:]], RESULTS, {}, "the gradient"),
        ([F, F, ("float32", (5,)), *OPERANDS[3:]], RESULTS, {}, "the gradient"),
        ([*OPERANDS[:3], ("float32", (19,)), *NUMBERS], RESULTS, {}, "the scalars"),
        (OPERANDS[:-1], RESULTS, {}, "a number of the noise"),
        ([*OPERANDS, F], RESULTS, {}, "the number of arrays"),
        (OPERANDS, [F, F], {}, "a moment"),
        (OPERANDS, [F, F, ("float32", (3,))], {}, "a moment"),
        (OPERANDS, [("bfloat16", (4,)), F, F], {}, "the direction"),
        ([], RESULTS, {}, "the first operand"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_anything_is_read(
    operands, results, attributes, said
):
    with pytest.raises(Exception, match=f"adamx: {said} does not fit"):
        direct(operands, results, **attributes)


@needs_loops
def test_arrays_that_fit_are_taken():
    assert len(direct(OPERANDS, RESULTS)) == 3


def test_sources_name_rules_and_storages_in_the_same_order():
    """The numbers that Python passes are those of the enumerations in C++."""
    from adamx.kernels import twins

    text = pathlib.Path(build.SOURCES, "work.h").read_text()
    rules = text.split("enum Rule {")[1].split("}")[0].replace(",", " ").split()
    assert [r[1:].lower().removeprefix("adam") for r in rules[:-1]] == [
        name.removeprefix("adam") for name in twins._RULES
    ]
