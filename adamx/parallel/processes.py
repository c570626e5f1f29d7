# SPDX-License-Identifier: Apache-2.0
"""Joins several processes into one run, and detects at once when one of them dies.

JAX's own heartbeats detect it after a minute or two, and end the process with a stack trace. Here
every process keeps a connection to the first; the operating system closes it when a process dies.
"""

import contextlib
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from adamx.parallel.meeting import meet

EXIT_CODE = 3
_BYE, _ERROR = b"bye", b"err"
_GRACE = 2.0  # seconds for an error that all processes raise to be raised here, too
_PATIENCE = 60.0  # seconds to wait for the connections of all processes


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    timeout: int = 60,
) -> None:
    """Joins this process to the others; call it before anything else asks JAX for devices.

    Args:
      coordinator: `host:port` of the first process. None reads all three from the environment, as
        Slurm, Open MPI, Kubernetes and TPU pods set it.
      processes: the number of processes.
      process: the number of this process, from 0.
      timeout: how many seconds to wait for the others, and how many seconds a machine may be silent
        before the run ends.

    Raises:
      RuntimeError: if the others do not come. JAX itself ends the process with a stack trace then,
        as it still does if the three come from the environment.
    """
    if coordinator is not None and processes is not None and process is not None:
        meet(coordinator, processes, process, timeout)
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        initialization_timeout=timeout,
        heartbeat_timeout_seconds=timeout,
    )


@contextlib.contextmanager
def watched(tell: Callable[[], str] = str) -> Iterator[None]:
    """Ends this process with a message and exit code 3 if another process dies.

    Without it the next collective would wait for the dead process.

    Args:
      tell: returns text to add to the message, such as where the last checkpoint is.
    """
    if jax.process_count() == 1:
        yield
        return
    links = _serve() if jax.process_index() == 0 else _connect()
    leaving = threading.Event()
    for process, link in links.items():
        args = (process, link, tell, leaving)
        threading.Thread(target=_watch, args=args, daemon=True).start()
    said = b""
    try:
        yield
        multihost_utils.sync_global_devices("all processes are done")
        said = _BYE
    except Exception as error:
        said = _ERROR  # no goodbye, so that the others end, too
        # If another process has died, `_watch` ends this one now.
        time.sleep(_GRACE + 1 if isinstance(error, jax.errors.JaxRuntimeError) else 1)
        raise
    finally:
        leaving.set()
        for link in links.values():
            with contextlib.suppress(OSError):
                link.sendall(said)
                link.shutdown(socket.SHUT_RDWR)  # close alone sends nothing while a thread reads


def _watch(
    process: int, link: socket.socket, tell: Callable[[], str], leaving: threading.Event
) -> None:
    last = _read(link, len(_BYE))
    if last == _BYE or leaving.wait(_GRACE if last == _ERROR else 0):
        return
    here, count = jax.process_index(), jax.process_count()
    advice = ""
    try:
        with contextlib.suppress(Exception):  # `tell` may fail, such as on an unreadable folder
            advice = tell()
        lost = f"process {here} of {count} stops: lost process {process}. {advice}"
        sys.stdout.flush()
        print(f"\n{lost.rstrip()}", file=sys.stderr, flush=True)
    finally:
        os._exit(EXIT_CODE)


def _read(link: socket.socket, count: int) -> bytes:
    """`count` bytes, fewer if the connection ends before."""
    said = b""
    with contextlib.suppress(OSError):
        while len(said) < count and (more := link.recv(count - len(said))):
            said += more
    return said


def _serve() -> dict[int, socket.socket]:
    """In the first process: a connection from each of the others."""
    with socket.create_server(("", 0)) as server:
        token = secrets.randbits(31)
        _share(_address(), server.getsockname()[1], token)
        server.settimeout(_PATIENCE)
        links: dict[int, socket.socket] = {}
        while len(links) < jax.process_count() - 1:
            link, _ = server.accept()
            link.settimeout(_PATIENCE)
            said = _read(link, 8)
            if len(said) == 8 and int.from_bytes(said[:4], "big") == token:
                link.settimeout(None)
                links[int.from_bytes(said[4:], "big")] = link
    return links


def _connect() -> dict[int, socket.socket]:
    """In every other process: a connection to the first."""
    *address, port, token = _share("0.0.0.0", 0, 0)
    link = socket.create_connection((".".join(map(str, address)), port), _PATIENCE)
    link.settimeout(None)
    link.sendall(token.to_bytes(4, "big") + jax.process_index().to_bytes(4, "big"))
    return {0: link}


def _share(address: str, port: int, token: int) -> list[int]:
    """Sends the first process's address, port and token to all processes."""
    numbers = np.array([*map(int, address.split(".")), port, token], np.int32)
    return [int(x) for x in multihost_utils.broadcast_one_to_all(numbers)]


def _address() -> str:
    """The address at which other machines reach this one."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing, only selects the interface
        return probe.getsockname()[0]
    return "127.0.0.1"
