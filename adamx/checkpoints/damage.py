# SPDX-License-Identifier: Apache-2.0
"""The errors of damaged checkpoints and full disks, in one sentence each."""

import errno
import os
import re


class DamagedError(ValueError):
    """A checkpoint that is not what was saved."""


class NoCheckpointError(FileNotFoundError):
    """There is no checkpoint, or none of that step."""


class SaveError(OSError):
    """A checkpoint that could not be written; the earlier ones are intact."""


# What can end a save in the words of the operating system, which TensorStore quotes.
_OF_A_DISK = [
    os.strerror(getattr(errno, name))
    for name in "ENOSPC EDQUOT EFBIG EIO EROFS EACCES EPERM ENOTDIR EISDIR".split()
]


def of_the_disk(error: BaseException) -> str:
    """What the operating system said in this error, or in one that caused it; empty if nothing."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        for said in _OF_A_DISK:
            if said in str(found):
                return said
        found = found.__cause__ or found.__context__
    return ""


def short(error: BaseException) -> str:
    """The first line of an error's root cause, without TensorStore's specifications."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    line = re.sub(r"\s*\[(tensorstore_spec|source locations).*", "", line)
    said = line.rsplit(": ", 1)[-1] if len(line) > _LONGEST else line  # the innermost reason
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]} …"


_LONGEST = 120
