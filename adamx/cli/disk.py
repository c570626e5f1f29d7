# SPDX-License-Identifier: Apache-2.0
"""Errors of writing files, as one sentence with the path."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adamx.cli.flags import UsageError
from adamx.interop.replaced import replaced

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class DiskError(UsageError):
    """A disk that is full or broken; the command line was right."""

    code = 1


@contextmanager
def writing(path: Any) -> Iterator[None]:
    """Raises any `OSError` inside again as a sentence about this path."""
    try:
        yield
    except OSError as error:
        kind = DiskError if is_full(error) else UsageError
        raise kind(f"cannot write {path}: {why(error)}") from error


def is_full(error: OSError) -> bool:
    """Whether the disk is full or broken, and not the path wrong."""
    return error.errno in _FULL


def why(error: OSError) -> str:
    """What the operating system says."""
    return os.strerror(error.errno) if error.errno else str(error)


def write_whole(path: Path, text: str) -> None:
    """Writes a file such that it has its old content or the new one, whatever happens."""
    with writing(path), replaced(path) as new:
        new.write_text(text, encoding="utf-8")
