# SPDX-License-Identifier: Apache-2.0
"""Compiles `adamx/kernels/csrc` when the package is built or installed.

Where that fails, the package is pure Python, with the reason in `adamx.kernels.available()`.
`ADAMX_KERNELS=0` makes the pure wheel, for any platform; with `ADAMX_KERNELS=1` a failure to
compile is an error.
"""

import importlib.util
import os
import pathlib
import sysconfig
import tempfile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Kernels(BuildHookInterface):
    """Adds the library to a wheel; an editable install finds it in the source tree."""

    def dependencies(self) -> list[str]:
        """The headers of a jaxlib that is no newer than the one the loops will run with."""
        return [] if _wanted() == "0" else ["jaxlib>=0.10,<0.11"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        source = pathlib.Path(self.root) / "adamx" / "kernels"
        self._made = None if version == "editable" else tempfile.TemporaryDirectory()
        target = pathlib.Path(self._made.name) if self._made else source
        library, reason = target / "_native.so", target / "_native.txt"
        library.unlink(missing_ok=True)
        reason.unlink(missing_ok=True)
        try:
            if _wanted() == "0":
                raise RuntimeError("this adamx was built with ADAMX_KERNELS=0, for any platform")
            made = _builder(source / "build.py").build(target)
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().translate(_WHEEL)}"
        except Exception as e:
            if _wanted() == "1":
                raise
            self.app.display_warning(f"adamx without loops in C++: {e}")
            reason.write_text(f"{e}\n")
            made = reason
        if version != "editable":
            build_data["force_include"][str(made)] = f"adamx/kernels/{made.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._made:
            self._made.cleanup()


_WHEEL = str.maketrans("-.", "__")


def _wanted() -> str:
    return os.environ.get("ADAMX_KERNELS", "")


def _builder(path: pathlib.Path) -> Any:
    """The module at `path`, without the package around it, which needs JAX."""
    spec: Any = importlib.util.spec_from_file_location("build", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
