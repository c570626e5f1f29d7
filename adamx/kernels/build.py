# SPDX-License-Identifier: Apache-2.0
"""Compiles the loops when the package is built or installed: a hook of hatchling.

Once for each set of vector units; at run time the best that the processor has is taken. Without a
C++ compiler the package is pure Python, and `adamx.kernels.available()` says why.
"""

import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).resolve().parent
FLAGS = (
    "-std=c++17 -O3 -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math -ffp-contract=off"
).split()
UNITS = {
    "avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma".split(),
    "avx2": "-mavx2 -mfma".split(),
    "baseline": [],
}


def build(into: pathlib.Path, flags: list[str] | None = None) -> pathlib.Path:
    """Compiles the library into a folder.

    Args:
      into: the folder.
      flags: more flags of the compiler, such as those of a sanitizer.

    Raises:
      RuntimeError: with a sentence on what is missing.
    """
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if not compiler:
        raise RuntimeError("there was no C++ compiler: install g++ or clang and install adamx anew")
    if sys.platform != "linux":
        raise RuntimeError(f"the loops are built on Linux only, not on {sys.platform}")
    more, source = [*(flags or [])], FOLDER / "csrc"
    x86 = platform.machine() in ("x86_64", "AMD64")
    units = UNITS if x86 else {"baseline": []}
    with tempfile.TemporaryDirectory() as folder:
        objects = [f"{folder}/{name}.o" for name in (*units, "step")]
        commands = [
            [compiler, *FLAGS, *more, *own, f"-DADAMX_UNITS={name}", "-c", f"{source}/loops.cc"]
            for name, own in units.items()
        ]
        headers = f"-I{_headers()}"
        commands.append([compiler, *FLAGS, *more, headers, "-c", f"{source}/step.cc"])
        _all([[*c, "-o", o] for c, o in zip(commands, objects, strict=True)])
        target = into / "_native.so"
        made = f"{folder}/_native.so"
        _all([[compiler, "-shared", *more, *objects, "-o", made, "-lpthread"]])
        shutil.move(made, target)
    return target


def _headers() -> str:
    try:
        import jaxlib
    except ImportError as e:
        raise RuntimeError("jaxlib, whose headers are needed, was not installed") from e
    return str(pathlib.Path(jaxlib.__file__).parent / "include")


def _all(commands: list[list[str]]) -> None:
    """Runs commands side by side."""
    started = [
        subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for c in commands
    ]
    for command, process in zip(commands, started, strict=True):
        output = process.communicate()[0]
        if process.returncode:
            raise RuntimeError(f"`{command[0]}` failed: {output.strip().splitlines()[:3]}")
