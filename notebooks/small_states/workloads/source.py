# SPDX-License-Identifier: Apache-2.0
"""The Python standard library's own source as data: a text that every machine already has.

Its bytes differ from one version of Python to the next: compare runs of one version.
"""

import functools
import pathlib
import sysconfig

TRAIN, VALIDATION = 3_500_000, 256_000


@functools.cache
def split() -> tuple[bytes, bytes]:
    """Training and validation text; every tenth file is held out."""
    files = sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = [b"\n".join(f.read_bytes() for f in part) for part in _parts(files)]
    return text[0][:TRAIN], text[1][:VALIDATION]


def _parts(files: list[pathlib.Path]) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    return [f for i, f in enumerate(files) if i % 10], files[::10]
