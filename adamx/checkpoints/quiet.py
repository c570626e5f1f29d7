# SPDX-License-Identifier: Apache-2.0
"""Silences what Orbax, TensorStore and asyncio print about errors that Orbax also raises."""

import gc
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def silence() -> None:
    """From now on drops Orbax's logged errors, and what its unfinished reads and writes raise.

    When one of many fails, Orbax closes its event loop, which TensorStore calls for the others.
    """
    logging.getLogger("absl").addFilter(_is_not_orbax)
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)


@contextmanager
def quiet() -> Iterator[None]:
    """On an error drops what asyncio logs and Python warns of: tasks that were left undone."""
    log = logging.getLogger("asyncio")
    log.addFilter(_is_no_task)
    try:
        yield
    except Exception as error:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            _clear(error)
            gc.collect()  # a task is logged when it is collected
        raise
    finally:
        log.removeFilter(_is_no_task)


def _clear(error: BaseException | None) -> None:
    """Forgets the local variables of the calls that failed, tasks among them."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _is_not_orbax(record: logging.LogRecord) -> bool:
    """Whether Orbax does not raise what it logs here."""
    is_raised = record.levelno >= logging.ERROR or "metadata" in record.pathname
    return not ("orbax" in record.pathname and is_raised)


def _is_no_task(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(("Task was destroyed", "Task exception was never"))


class _Hook:
    """Hands to the hook before it what is neither a closed loop's nor of an unfinished read."""

    def __init__(self, before: Any):
        self.before = before

    def __call__(self, found: Any) -> None:
        is_closed_loop = isinstance(found.exc_value, RuntimeError) and (
            str(found.exc_value) == "Event loop is closed"
        )
        code = getattr(found.object, "cr_code", None)  # of a coroutine
        if not is_closed_loop and "orbax" not in getattr(code, "co_filename", ""):
            self.before(found)
