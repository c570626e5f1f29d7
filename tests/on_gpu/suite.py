# SPDX-License-Identifier: Apache-2.0
"""Those tests of the suite that make sense on one GPU: bits, codes, landings, steps, figures.

What is tested on eight devices, in many processes or through the command line stays with the CPU.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import jax

from adamx.core.tables import as_markdown
from tests.on_gpu.clock import Clock

FILES = (
    "tests/laws/test_random_bits.py",
    "tests/storage/test_compact.py",
    "tests/storage/test_storage.py",
    "tests/landing/test_landing.py",
    "tests/core",
    "tests/laws/test_accuracy.py",
    "tests/laws/test_dtypes.py",
    "tests/optimizers/test_figures.py",
)
NEEDS_DEVICES = "every_way_to_run_it_lands_alike"
QUICK = ("tests/laws/test_random_bits.py",)
OUTCOMES = ("PASSED", "FAILED", "ERROR", "SKIPPED")
WORKERS = 12
TOLD = 40  # failures


def log_of(clock: Clock) -> tuple[str, bool]:
    """What pytest printed, and whether it came to its end."""
    command = [sys.executable, "-m", "pytest", "-v", "-rfE", "--tb=short", "-p", "no:cacheprovider"]
    workers = 1 if clock.quick else min(WORKERS, os.cpu_count() or 1)
    command += [
        "-k",
        f"not {NEEDS_DEVICES}",
        "-n",
        str(workers),
        *(QUICK if clock.quick else FILES),
    ]
    platform = jax.default_backend()
    environment = os.environ | {
        "JAX_PLATFORMS": {"gpu": "cuda,cpu"}.get(platform, platform),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the workers share the device
    }
    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(max(clock.left - 5, 1))
            is_whole = True
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            is_whole = False
        file.seek(0)
        return file.read().decode(errors="replace"), is_whole


def table(log: str) -> str:
    """How many tests of each file ended how."""
    counts: dict[str, Counter] = {}
    for outcome, path in re.findall(rf"({'|'.join(OUTCOMES)}) (\S+?\.py)::", _until_summary(log)):
        counts.setdefault(path, Counter())[outcome] += 1
    rows = [
        [path, *(str(n[outcome]) for outcome in OUTCOMES)] for path, n in sorted(counts.items())
    ]
    return as_markdown(["file", *map(str.lower, OUTCOMES)], rows)


def failures(log: str) -> list[str]:
    """The lines of pytest's summary, or the names alone if it did not come so far."""
    before = _until_summary(log)
    found = re.findall(r"^(?:FAILED|ERROR) .*$", log[len(before) :], re.MULTILINE)
    return found or re.findall(r"(?:FAILED|ERROR) \S+::.*$", before, re.MULTILINE)


def _until_summary(log: str) -> str:
    return log.partition("short test summary info")[0]


def main() -> None:
    """Runs the tests and prints a table, and every failure in a line."""
    clock = Clock.of_flags()
    log, is_whole = log_of(clock)
    if os.environ.get("OUT"):
        Path(os.environ["OUT"], "tests.log").write_text(log, encoding="utf-8")
    print(table(log) + "\n")
    if not is_whole:
        print("Ended before its end, for want of time.\n")
    found = failures(log)
    lines = [f"- `{line[:300]}`" for line in found[:TOLD]]
    lines += [f"- and {len(found) - TOLD} more"] * (len(found) > TOLD)
    ends = re.findall(r"^=+ (.* in [\d.]+s.*?) =+$", log, re.MULTILINE)
    print("\n".join([*lines, *ends[-1:]]))


if __name__ == "__main__":
    main()
