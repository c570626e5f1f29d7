# SPDX-License-Identifier: Apache-2.0
"""All processes meet, or each says in vain for whom it waited."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from adamx.parallel.meeting import meet
from tests.parallel.test_processes import free_port


def test_all_meet_in_any_order_and_leave_the_port_free():
    port = free_port()
    for order in ((2, 1, 0), (0, 2, 1)):
        with ThreadPoolExecutor() as pool:
            waits = []
            for process in order:
                waits.append(pool.submit(meet, f"localhost:{port}", 3, process, 20))
                time.sleep(0.2)
            assert [wait.result() for wait in waits] == 3 * [None]
    with socket.create_server(("", port)):  # as JAX does next
        pass


def test_a_stranger_is_no_process():
    port = free_port()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(meet, f"127.0.0.1:{port}", 2, 0, 1.0)
        time.sleep(0.3)
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(RuntimeError, match="waited 1 s in vain for process 1 of 2"):
            first.result()


def test_who_does_not_come_is_named():
    with pytest.raises(RuntimeError, match=r"waited 0.2 s in vain for process 1, 2 of 3"):
        meet(f"127.0.0.1:{free_port()}", 3, 0, 0.2)
    with pytest.raises(RuntimeError, match=r"process 2 of 3 waited 0.2 s in vain for the others"):
        meet(f"127.0.0.1:{free_port()}", 3, 2, 0.2)


def test_a_port_that_is_taken_or_none_is_named():
    with (
        socket.create_server(("", 0)) as server,
        pytest.raises(RuntimeError, match=r"cannot listen on port .*: Address already in use"),
    ):
        meet(f"127.0.0.1:{server.getsockname()[1]}", 2, 0, 0.2)
    with pytest.raises(ValueError, match="must be HOST:PORT, got 'here'"):
        meet("here", 2, 0, 0.2)
