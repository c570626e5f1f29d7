# SPDX-License-Identifier: Apache-2.0
"""Waits until all processes are there, before JAX does, which cannot be told what to do if not.

The first process listens on the coordinator's port, the others connect and say their numbers. When
all have come it says so to each, and the port is free for JAX.
"""

import contextlib
import socket
import time

_HELLO, _GO = b"adamx process ", b"go"
_PAUSE = 0.1  # seconds between two attempts to connect


def meet(coordinator: str, processes: int, process: int, timeout: float) -> None:
    """Returns when all processes have called it; raises `RuntimeError` after `timeout` seconds."""
    host, colon, port = coordinator.rpartition(":")
    if not (colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(f"the coordinator must be HOST:PORT, got {coordinator!r}")
    end = time.monotonic() + timeout
    if process == 0:
        missing = _receive(int(port), set(range(1, processes)), end)
        if missing:
            names = ", ".join(map(str, sorted(missing)))
            raise RuntimeError(f"waited {timeout:g} s in vain for process {names} of {processes}")
    elif not _arrive((host.strip("[]"), int(port)), process, end):
        raise RuntimeError(
            f"process {process} of {processes} waited {timeout:g} s in vain for the others at "
            f"{coordinator}"
        )


def _receive(port: int, missing: set[int], end: float) -> set[int]:
    """Waits for the processes in `missing`, and returns those that have not come."""
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    dual = family == socket.AF_INET6
    try:
        server = socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as error:
        raise RuntimeError(f"cannot listen on port {port}: {error.strerror}") from error
    with server, contextlib.ExitStack() as links:
        come: list[socket.socket] = []
        while missing and (left := end - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(OSError, ValueError):
                link = links.enter_context(server.accept()[0])
                link.settimeout(1)
                number = int(link.recv(64).removeprefix(_HELLO))
                if number in missing:
                    missing = missing - {number}
                    come.append(link)
        if not missing:
            for link in come:
                with contextlib.suppress(OSError):
                    link.sendall(_GO)
                    link.recv(1)  # the other end closes first, so that the port is free at once
    return missing


def _arrive(address: tuple[str, int], process: int, end: float) -> bool:
    """Says that this process is there; returns whether all others are."""
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=left) as link:
            link.settimeout(left)
            link.sendall(_HELLO + str(process).encode())
            if link.recv(len(_GO)) == _GO:
                return True
        time.sleep(min(_PAUSE, max(0.0, end - time.monotonic())))
    return False
