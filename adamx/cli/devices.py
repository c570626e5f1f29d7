# SPDX-License-Identifier: Apache-2.0
"""Sets up the devices and processes that a command's flags ask for."""

import contextlib
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType

from adamx.cli.flags import UsageError
from adamx.parallel import processes

HOWS = ("jit", "shard_map", "pmap")


def prepare(args: Any) -> None:
    """Creates the devices and joins the processes; call it before anything asks JAX for devices."""
    given = [args.coordinator, args.processes, args.process]
    if any(x is not None for x in given) and not (args.distributed and None not in given):
        raise UsageError("--coordinator, --processes and --process go together, with --distributed")
    if args.process is not None and args.process >= args.processes:
        raise UsageError(f"--process must be below --processes, got {args.process}")
    if args.devices:
        _ask_for(args.devices)
    if args.distributed:
        try:
            processes.join(*given, timeout=args.timeout)
        except (RuntimeError, ValueError) as e:
            raise UsageError(f"--distributed: {e}") from e
    if args.devices:
        _check_devices(args.devices)


def make_devices(count: int) -> None:
    """Creates `count` virtual devices on a CPU; elsewhere the machine must have that many."""
    _ask_for(count)
    _check_devices(count)


def _ask_for(count: int) -> None:
    with contextlib.suppress(RuntimeError):  # JAX has started already; checked later
        jax.config.update("jax_num_cpu_devices", count)


def _check_devices(count: int) -> None:
    if count > jax.local_device_count():
        found = jax.local_device_count()
        raise UsageError(f"--devices {count}: this process has {found}")


def count(args: Any) -> int:
    """The number of devices that a batch is spread over."""
    alone = args.devices and jax.process_count() == 1
    return args.devices if alone else jax.device_count()


def check_batch(args: Any, size: int) -> None:
    """Raises `UsageError` if a batch does not divide over the devices, with what does."""
    number = count(args)
    if size % number:
        fits = -(-size // number) * number
        fewer = max(n for n in range(1, number) if size % n == 0)
        raise UsageError(
            f"--batch-size {size} does not divide over {number} devices: take --batch-size {fits} "
            f"or --devices {fewer}"
        )


def over(args: Any) -> dict[str, Any]:
    """The keyword arguments of `adamx.parallel.data_parallel`."""
    devices = jax.devices()[: count(args)]
    mesh = jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)
    return {"mesh": mesh, "how": args.how, "zero": args.zero}


def own_part(batch: Any) -> Any:
    """This process's share of a batch that every process has drawn in full."""
    count, index = jax.process_count(), jax.process_index()

    def one(x: Any) -> Any:
        if len(x) % count:
            raise UsageError(f"--batch-size must divide by {count} processes, got {len(x)}")
        return np.split(np.asarray(x), count)[index]

    return batch if count == 1 else jax.tree.map(one, batch)


def is_first() -> bool:
    """Whether this is the first process, the one that prints and logs."""
    return jax.process_index() == 0
