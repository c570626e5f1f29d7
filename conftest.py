# SPDX-License-Identifier: Apache-2.0
"""Eight virtual devices, strict dtype promotion, and a compile cache where the run sets one."""

import os

import jax

jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
if jax.config.jax_platforms == "cpu":
    jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
