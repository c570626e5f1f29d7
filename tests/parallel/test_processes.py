# SPDX-License-Identifier: Apache-2.0
"""Several processes on one machine, through the command line: one trajectory, and no hangs."""

import functools
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.cli.commands import without_plugin

ROOT = Path(__file__).parents[2]
TRAIN = [sys.executable, "-m", "adamx", "train", "--task", "digits", "--batch-size", "64"]


QUICK = ["--watch", 0]  # half of what is compiled is what watches


def start(*flags, process=None, processes=2, port=0, devices=4, timeout=60):
    command = [*TRAIN, *map(str, flags), "--devices", str(devices)]
    if process is not None:
        command += ["--distributed", "--coordinator", f"127.0.0.1:{port}"]
        command += ["--processes", str(processes), "--process", str(process)]
        command += ["--timeout", str(timeout)]
    return subprocess.Popen(
        command,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "default"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def end(process, timeout=240):
    """What a process has said until it ended, of its own accord or after the time is up."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return process.returncode, out, without_plugin(err)


def saved_in(run):
    """The steps of the checkpoints in a run's folder."""
    return [int(p.name) for p in run.glob("checkpoints/*") if p.name.isdecimal()]


def final_loss(out):
    return float(re.search(r"final loss +(\S+)", out)[1])


def alone(*flags, run):
    code, out, err = end(start(*flags, "--run", run))
    assert code == 0, err
    return out


@functools.cache
def loss_of_one(steps):
    """What one process ends with, on four devices."""
    with tempfile.TemporaryDirectory() as run:
        return final_loss(alone("--steps", steps, *QUICK, run=run))


@pytest.mark.slow
@pytest.mark.parametrize("how, zero", [("jit", False), ("shard_map", True), ("pmap", True)])
def test_two_processes_make_the_run_of_one(how, zero, tmp_path):
    watched = [] if how == "shard_map" else QUICK
    flags = ["--steps", 30, "--how", how, *["--zero"] * zero, *watched]
    port = free_port()
    run = tmp_path / "two"
    both = [start(*flags, "--run", run, "--save-every", 20, process=i, port=port) for i in (0, 1)]
    results = [end(p) for p in both]
    assert [code for code, _, _ in results] == [0, 0], results
    assert "loss" not in results[1][1]  # the first speaks for all
    assert final_loss(results[0][1]) == pytest.approx(loss_of_one(30), rel=1e-3)  # three digits
    # What two processes have saved, one goes on with, in another way and on fewer devices.
    code, out, err = end(start("--steps", 40, "--run", run, "--resume", devices=2))
    assert code == 0, err
    want = loss_of_one(40)
    assert final_loss(out) == pytest.approx(want, rel=1e-3)
    if how != "pmap":  # its state is the furthest from that of one process
        return
    # And what one has saved, two go on with.
    more, port = ["--steps", 45, "--run", run, "--resume"], free_port()
    both = [start(*more, process=i, port=port) for i in (0, 1)]
    results = [end(p) for p in both]
    assert [code for code, _, _ in results] == [0, 0], results
    assert final_loss(results[0][1]) < 1.1 * want


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_process_ends_the_others_with_a_sentence(victim, tmp_path):
    port = free_port()
    flags = ["--steps", 1_000_000, "--how", "shard_map", "--zero", "--run", tmp_path, *QUICK]
    both = [start(*flags, "--save-every", 5, process=i, port=port) for i in (0, 1)]
    try:
        deadline = time.monotonic() + 200
        while not saved_in(tmp_path):
            assert time.monotonic() < deadline
            assert all(p.poll() is None for p in both), [p.communicate() for p in both]
            time.sleep(0.05)
        both[victim].send_signal(signal.SIGKILL)
        began = time.monotonic()
        code, _, err = end(both[1 - victim], timeout=60)
        took = time.monotonic() - began
    finally:
        end(both[0], 1), end(both[1], 1)
    assert took < 30
    if victim == 0 and "another task died" in err:  # the first is JAX's own witness, and as quick
        assert code not in (0, -signal.SIGKILL)
    else:
        assert code == 3, err
        last = err.strip().splitlines()[-1]
        assert f"process {1 - victim} of 2 stops: lost process {victim}. Go on from step" in last
        assert "Traceback" not in err
    saved = max(saved_in(tmp_path))
    code, out, err = end(start("--steps", saved + 5, "--run", tmp_path, "--resume"))
    assert code == 0, err
    assert final_loss(out) > 0


@pytest.mark.slow
def test_a_process_that_never_comes_is_not_waited_for_for_ever(tmp_path):
    for here, said in ((0, "in vain for process 1 of 2"), (1, "process 1 of 2 waited 2 s in vain")):
        flags = ["--steps", 5, "--run", tmp_path]
        code, _, err = end(start(*flags, process=here, port=free_port(), timeout=2), 60)
        assert code == 2
        assert said in err
        assert err.count("\n") == 1


def test_importing_asks_for_no_device():
    """Or no process could join others, and no device be made, after it."""
    code = (
        "import adamx, adamx.cli, adamx.checkpoints, adamx.parallel.processes, jax\n"
        "jax.config.update('jax_num_cpu_devices', 3)\n"
        "print(jax.device_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "3\n", done.stderr
