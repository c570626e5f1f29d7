# SPDX-License-Identifier: Apache-2.0
"""A description of the machine, for the head of a benchmark."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import jax


def machine() -> str:
    """One line: processor or accelerator, cores, versions, date."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return host()
    return f"{jax.device_count()} x {device.device_kind}; {host()}"


def host() -> str:
    """The same without the accelerator; starts no device."""
    versions = [
        f"{name} {version}" for name in ("jax", "optax", "torch") if (version := _version(name))
    ]
    parts = [f"{_processor()}, {_cores()} cores", f"Python {platform.python_version()}"]
    return "; ".join([*parts, ", ".join(versions), datetime.date.today().isoformat()])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
