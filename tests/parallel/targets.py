# SPDX-License-Identifier: Apache-2.0
"""Devices that compile and cannot run: NVIDIA's H100 and Google's TPU v5e, for programs to look at.

XLA's compilers for both come as wheels and need no chip:

    pip install libtpu jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12

The plugin's version is that of jaxlib.
"""

import os
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""What XLA asks a GPU about itself."""

ON_NO_MACHINE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_ID": "0",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
"""What libtpu else asks Google's cloud about the machine."""


def h100s(count: int = 8) -> Mesh:
    """H100s of one host, along one axis `data`."""
    made = topologies.get_topology_desc("", "cuda", target_config=H100, topology=f"1x1x{count}")
    return Mesh(np.array(made.devices), ("data",))


def v5es() -> Mesh:
    """A slice of 2 x 2 chips, along one axis `data`."""
    for name, value in ON_NO_MACHINE.items():
        os.environ.setdefault(name, value)
    made = topologies.get_topology_desc("v5e:2x2", "tpu")
    return Mesh(np.array(made.devices), ("data",))


TARGETS: dict[str, Callable[[], Mesh]] = {"8 H100": h100s, "4 TPU v5e": v5es}


def found(target: str) -> Mesh | None:
    """The mesh of a target; None if its compiler is not installed."""
    try:
        return TARGETS[target]()
    except jax.errors.JaxRuntimeError:
        raise
    except (NotImplementedError, RuntimeError):
        return None
