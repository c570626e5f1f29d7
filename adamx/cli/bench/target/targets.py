# SPDX-License-Identifier: Apache-2.0
"""The accelerators that `bench --target` knows, and the wheels that hold their compilers."""

import contextlib
import importlib.metadata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adamx.cli.flags import UsageError

INSTALL = 'run: pip install "adamx[targets]"'


@dataclass(frozen=True)
class Target:
    """One accelerator: how JAX finds its compiler, and how that describes the chip."""

    name: str
    chip: str
    wheels: tuple[str, ...]
    """The names of wheels that hold the compiler; one of them is enough."""
    platform: str
    topology: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)

    def devices(self, count: int = 1) -> list[Any]:
        """Up to `count` devices; programs can be compiled for them, but not run."""
        from jax.experimental import topologies

        options = self.topology | {"topology": f"1x1x{count}"} if self.is_gpu else self.topology
        made = topologies.get_topology_desc(platform=self.platform, **options)
        return list(made.devices[:count])

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU, as many of which form a topology as are asked for."""
        return self.platform == "cuda"

    def check_wheels(self) -> None:
        """Raises `UsageError` if none of the wheels is installed."""
        if self.wheel() is None:
            raise UsageError(f"--target {self.name}: {self.wheels[0]} is not installed; {INSTALL}")

    def wheel(self) -> str | None:
        """The wheel that holds the compiler, with its version; None if there is none."""
        for name in self.wheels:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                return f"{name} {importlib.metadata.version(name)}"
        return None


H100 = Target(
    "h100",
    "NVIDIA H100",
    ("jax-cuda13-plugin", "jax-cuda12-plugin"),
    "cuda",
    {"target_config": Path(__file__).with_name("h100.txtpb").read_text(encoding="utf-8")},
)
TPU_V5E = Target(
    "tpu-v5e",
    "TPU v5e",
    ("libtpu",),
    "tpu",
    {"topology_name": "v5e:2x2"},
    {
        # libtpu asks the cloud's metadata server for all that is not set here.
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_ID": "0",
        "TPU_WORKER_HOSTNAMES": "localhost",
        # Several processes may compile at once, as nobody holds a chip.
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_LOG_DIR": "disabled",
    },
)
TARGETS = {target.name: target for target in (H100, TPU_V5E)}
