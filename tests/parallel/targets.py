# SPDX-License-Identifier: Apache-2.0
"""Meshes of devices that compile and cannot run, for programs to look at."""

import os
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from adamx.cli.bench.target.targets import H100, TPU_V5E


def h100s(count: int = 8) -> Mesh:
    """H100s of one host, along one axis `data`."""
    return Mesh(np.array(H100.devices(count)), ("data",))


def v5es() -> Mesh:
    """A slice of 2 x 2 chips, along one axis `data`."""
    for name, value in TPU_V5E.environment.items():
        os.environ.setdefault(name, value)
    return Mesh(np.array(TPU_V5E.devices(4)), ("data",))


TARGETS: dict[str, Callable[[], Mesh]] = {"8 H100": h100s, "4 TPU v5e": v5es}


def found(target: str) -> Mesh | None:
    """The mesh of a target; None if its compiler is not installed."""
    try:
        return TARGETS[target]()
    except jax.errors.JaxRuntimeError:
        raise
    except (NotImplementedError, RuntimeError):
        return None
