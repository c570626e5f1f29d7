# SPDX-License-Identifier: Apache-2.0
"""The device, the versions, the date."""

import jax
import jaxlib

from adamx.cli.bench.machine import machine


def main() -> None:
    """Prints a line for each."""
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit")
    print(f"- {machine()}")
    print(f"- jaxlib {jaxlib.__version__}, {device.client.platform_version.splitlines()[0]}")
    print(f"- memory for JAX: {f'{limit / 1e9:.1f} GB' if limit else 'not told by this device'}")


if __name__ == "__main__":
    main()
