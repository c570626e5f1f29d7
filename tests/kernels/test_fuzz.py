# SPDX-License-Identifier: Apache-2.0
"""Every loop over drawn sizes, places and numbers, under the sanitizers of addresses, of undefined
behaviour and of threads."""

import functools
import pathlib
import random
import shutil
import subprocess

import pytest

from adamx.kernels import build

FUZZ = pathlib.Path(__file__).with_name("fuzz.cc")
WATCHED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1")
THREADS = ("-fsanitize=thread", "-g1")
compilers = pytest.mark.skipif(not shutil.which("c++"), reason="there is no C++ compiler")


@pytest.fixture(scope="module")
def loops(tmp_path_factory):
    """The compiled loops, by flags."""
    folder = tmp_path_factory.mktemp
    return functools.cache(lambda flags: build.compile_loops(str(folder("loops")), flags))


def made(folder, loops, flags, source=FUZZ):
    binary = f"{folder}/fuzz"
    command = ["c++", "-std=c++17", "-O1", *flags, f"-I{build.SOURCES}", str(source)]
    subprocess.run([*command, *loops(flags), "-o", binary, "-lpthread"], check=True)
    return binary


@pytest.mark.slow
@compilers
@pytest.mark.parametrize("flags", [WATCHED, THREADS], ids=["addresses", "threads"])
def test_no_loop_touches_what_is_not_its_own(tmp_path, loops, flags):
    """And what it makes depends on the element alone. The seed is printed."""
    binary, seed = made(tmp_path, loops, flags), random.randrange(2**32)
    run = subprocess.run([binary, "20", str(seed)], capture_output=True, text=True)
    print(run.stdout, run.stderr)
    assert run.returncode == 0, f"seed {seed}: {run.stdout}{run.stderr}"
    assert int(run.stdout.split()[-2]) > 10_000


@pytest.mark.slow
@compilers
@pytest.mark.parametrize(
    "flags, right, wrong, said",
    [
        (
            WATCHED,
            "one.span(between(c, c.arrays, whole), 0, size);",
            "one.span(between(c, c.arrays, whole), 0, size + 1);",
            "AddressSanitizer",
        ),
        (WATCHED, "other.span(between(c, c.arrays, cut), at, size);", "", "results differ"),
        (
            THREADS,
            "one.span(in_place, 0, at); });",
            "one.span(in_place, 0, at < size ? at + 1 : at); });",
            "ThreadSanitizer: data race",
        ),
    ],
)
def test_a_loop_that_does_would_be_seen(tmp_path, loops, flags, right, wrong, said):
    text = FUZZ.read_text()
    assert right in text
    broken = tmp_path / "broken.cc"
    broken.write_text(text.replace(right, wrong))
    binary = made(tmp_path, loops, flags, broken)
    run = subprocess.run([binary, "2", "1"], capture_output=True, text=True)
    assert run.returncode != 0
    assert said in run.stdout + run.stderr
