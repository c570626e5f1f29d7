# SPDX-License-Identifier: Apache-2.0
"""Compiles the loops when the package is built or installed: a hook of hatchling.

Once for each set of vector units; at run time the best that the processor has is taken. Without a
C++ compiler the package is pure Python, and `adamx.kernels.available()` says why.
"""

import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from typing import Any

SOURCES = pathlib.Path(__file__).resolve().parent / "csrc"
FLAGS = (
    "-std=c++17 -O3 -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math -ffp-contract=off"
).split()
UNITS = {
    "avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma".split(),
    "avx2": "-mavx2 -mfma".split(),
    "baseline": [],
}


def build(into: pathlib.Path) -> pathlib.Path:
    """Compiles the library into a folder.

    Raises:
      RuntimeError: with a sentence on what is missing.
    """
    if sys.platform != "linux":
        raise RuntimeError(f"the loops are built on Linux only, not on {sys.platform}")
    target = into / "_native.so"
    with tempfile.TemporaryDirectory() as folder:
        calls, made = f"{folder}/step.o", f"{folder}/_native.so"
        step = [*_compiler(), *FLAGS, f"-I{_headers()}", "-c", f"{SOURCES}/step.cc", "-o", calls]
        objects = compile_loops(folder, more=[step])
        _all([[*_compiler(), "-shared", "-s", calls, *objects, "-o", made, "-lpthread"]])
        shutil.move(made, target)
    return target


def compile_loops(folder: str, flags: tuple[str, ...] = (), more: Any = ()) -> list[str]:
    """Compiles the loops for each set of vector units, with `more` commands beside.

    Returns:
      The paths of the object files in `folder`.
    """
    x86 = platform.machine() in ("x86_64", "AMD64")
    units = UNITS if x86 else {"baseline": []}
    objects, commands = [f"{folder}/{name}.o" for name in units], [*more]
    for (name, own), target in zip(units.items(), objects, strict=True):
        named = [f"-DADAMX_UNITS={name}", "-c", f"{SOURCES}/loops.cc", "-o", target]
        commands.append([*_compiler(), *FLAGS, *flags, *own, *named])
    _all(commands)
    return objects


def _compiler() -> list[str]:
    found = (
        shlex.split(os.environ.get("CXX", ""))
        or [path for path in map(shutil.which, ("c++", "g++")) if path][:1]
    )
    if not found:
        raise RuntimeError("there was no C++ compiler: install g++ or clang and install adamx anew")
    return found


def _headers() -> str:
    try:
        import jaxlib
    except ImportError as e:
        raise RuntimeError("jaxlib, whose headers are needed, was not installed") from e
    return str(pathlib.Path(jaxlib.__file__).parent / "include")


def _all(commands: list[list[str]]) -> None:
    """Runs commands side by side, and raises with what the first that fails has printed."""
    pipe = subprocess.PIPE
    started = [subprocess.Popen(c, stdout=pipe, stderr=subprocess.STDOUT) for c in commands]
    outputs = [process.communicate()[0].decode(errors="replace") for process in started]
    for command, process, output in zip(commands, started, outputs, strict=True):
        if process.returncode:
            said = " ".join(output.split())[:300] or f"exit status {process.returncode}"
            raise RuntimeError(f"`{command[0]}` failed: {said}")
