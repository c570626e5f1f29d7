# SPDX-License-Identifier: Apache-2.0
"""Arrays that are kept in the host's memory, where no computation of a device reaches them."""

from typing import Any

import jax


def is_on_host(x: Any) -> bool:
    """Whether an array, or one under a trace, is in the host's memory."""
    return jax.typeof(x).memory_space == jax.memory.Space.Host


def on_device(tree: Any) -> Any:
    """Arrays where computations can reach them."""
    return jax.tree.map(
        lambda x: jax.device_put(x, jax.memory.Space.Device) if is_on_host(x) else x, tree
    )


def on_host(x: Any) -> Any:
    """An array in the host's memory."""
    return jax.device_put(x, jax.memory.Space.Host)
