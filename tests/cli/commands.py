# SPDX-License-Identifier: Apache-2.0
"""Command lines: run in the test's own process, in one of their own, on a terminal; and the tables
that they print."""

import contextlib
import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import jax

from adamx.cli import main

ROOT = Path(__file__).parents[2]

# As a user runs it: no settings of JAX inherited from the test run, but for the compile cache.
ENV = {
    k: v
    for k, v in os.environ.items()
    if not k.startswith(("JAX_", "XLA_")) or (k.startswith("JAX_") and "CACHE" in k)
}
ENV |= {"JAX_PLATFORMS": "cpu", "TERM": "xterm", "COLUMNS": "120", "PYTHONPATH": str(ROOT)}
# An entry of the cache that another process is still writing is compiled again.
ENV |= {"PYTHONWARNINGS": "ignore:Error reading persistent compilation cache entry"}


def here(line: str, folder: Path = ROOT) -> tuple[int, str, str]:
    """Runs one command line in this process, in `folder`: its exit code, stdout and stderr."""
    assert jax.device_count() == 8  # before the command may ask for others
    out, err = io.StringIO(), io.StringIO()
    # Optax's own optimizers mix dtypes.
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        jax.numpy_dtype_promotion("standard"),
    ):
        code = main(shlex.split(line))
    return code, out.getvalue(), err.getvalue()


def done(line: str, folder: Path = ROOT) -> str:
    """What a command line prints that ends well, without a word on stderr."""
    code, out, err = here(line, folder)
    assert (code, err) == (0, "")
    return out


def refused(line: str, folder: Path = ROOT) -> str:
    """The one sentence with which a command line is refused."""
    code, _, err = here(line, folder)
    assert code == 2
    assert err.count("\n") == 1
    return err


def start(line: str, folder: Path = ROOT) -> subprocess.Popen[str]:
    """Starts `python -m adamx` with these words in a process of its own."""
    words, pipe = [sys.executable, "-m", "adamx", *line.split()], subprocess.PIPE
    return subprocess.Popen(words, cwd=folder, env=ENV, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str], timeout: float = 300) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a process."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, without_plugin(err)


def without_plugin(err: str) -> str:
    """Stderr without what JAX's plugin for CUDA says where it is installed without a GPU."""
    plugin = ("before absl::InitializeLog()", "Could not find cuda drivers")
    return "".join(line for line in err.splitlines(True) if not any(s in line for s in plugin))


def on_a_terminal(line: str, folder: Path) -> str:
    """What appears on a pseudo-terminal that is the stdout of a command's process."""
    import pty

    inner, outer = pty.openpty()
    words = [sys.executable, "-m", "adamx", *line.split()]
    with subprocess.Popen(words, cwd=folder, env=ENV, stdout=outer) as process:
        os.close(outer)
        shown = b""
        try:
            while chunk := os.read(inner, 4096):
                shown += chunk
        except OSError:  # so Linux says that the other end is closed
            pass
        finally:
            os.close(inner)
    assert process.returncode == 0
    return shown.decode()


def table(text: str, marker: str) -> dict[str, list[str]]:
    """The rows of the table whose header contains `marker`: label -> cells."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if marker in line and "  " in line)
    split = ([cell for cell in line.split("  ") if cell.strip()] for line in lines[start + 2 :])
    rows = {cells[0].strip(): [c.strip() for c in cells[1:]] for cells in split if cells}
    return rows | {"header": lines[start].split()}


def number(cell: str) -> float:
    """A number as tables show it."""
    return float(cell.replace(",", "").rstrip("%"))
