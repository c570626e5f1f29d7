# SPDX-License-Identifier: Apache-2.0
"""Compiles `adamx/kernels/csrc` when the package is built or installed.

Where that fails, the package is pure Python, with the reason in `adamx.kernels.available()`.
"""

import importlib.util
import os
import pathlib
import sysconfig
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Kernels(BuildHookInterface):
    """Builds the library into the source tree, from where wheels and editable installs take it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        folder = pathlib.Path(self.root) / "adamx" / "kernels"
        library, reason = folder / "_native.so", folder / "_native.txt"
        library.unlink(missing_ok=True)
        reason.unlink(missing_ok=True)
        try:
            if os.environ.get("ADAMX_KERNELS") == "0":
                raise RuntimeError("ADAMX_KERNELS=0 was set when adamx was installed")
            _builder(folder / "build.py").build(folder)
        except Exception as e:
            self.app.display_warning(f"adamx without loops in C++: {e}")
            reason.write_text(f"{e}\n")
        else:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().translate(_WHEEL)}"
        build_data["artifacts"] += [f"/adamx/kernels/{p.name}" for p in (library, reason)]


_WHEEL = str.maketrans("-.", "__")


def _builder(path: pathlib.Path) -> Any:
    """The module at `path`, without the package around it, which needs JAX."""
    spec: Any = importlib.util.spec_from_file_location("build", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
