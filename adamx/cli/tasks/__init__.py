# SPDX-License-Identifier: Apache-2.0
"""The tasks of `train` and `compare`: one per file, each a function that returns a `Task`.

A task is a row in `TASKS`, or your own function of `(seed, batch_size, data)`, named as
`module:function`.
"""

import argparse
import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

from adamx.cli.flags import UsageError, whole
from adamx.cli.tasks import digits as _digits
from adamx.cli.tasks import regression as _regression
from adamx.cli.tasks import source as _source
from adamx.cli.tasks import text as _text
from adamx.cli.tasks.digits import digits, digits_cnn
from adamx.cli.tasks.task import Defaults, Task

Make = Callable[..., Task]
YOURS = Defaults(steps=1000, batch_size=64, learning_rate=1e-3)

TASKS: dict[str, tuple[Make, Defaults]] = {
    "source": (_source.source, _source.DEFAULTS),
    "digits": (digits, _digits.DEFAULTS),
    "digits-cnn": (digits_cnn, _digits.DEFAULTS._replace(steps=800)),
    "text": (_text.text, _text.DEFAULTS),
    "regression": (_regression.regression, _regression.DEFAULTS),
}


TASK_HELP = (
    f"one of {', '.join(TASKS)}{{}}, or your own function as module:function (default: {{}})"
)


def add_task(parser: argparse.ArgumentParser, default: str) -> None:
    """Declares `--task`, `--data` and `--batch-size`; `default` is the default task."""
    add = parser.add_argument
    add("--task", default=default, metavar="NAME", help=TASK_HELP.format("", default))
    add("--data", metavar="DIR", help="a folder of data (default: the task's own)")
    add("--batch-size", type=whole(1), metavar="N", help="examples in a step (default: the task's)")


def find(name: str, *others: str) -> tuple[Make, Defaults]:
    """The task of that name, or the one that `module:function` makes, and its defaults. The error
    names `others`, which the caller accepts too."""
    if name in TASKS:
        return TASKS[name]
    module, colon, function = name.partition(":")
    if not colon:
        known = ", ".join([*TASKS, *others])
        raise UsageError(f"--task must be one of {known}, or module:function, got {name!r}")
    sys.path.insert(0, "")
    try:
        make: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--task {name}: {error}") from error
    finally:
        sys.path.remove("")
    if not callable(make):
        raise UsageError(f"--task {name}: {function} is not a function")
    return _checked(name, make), getattr(make, "defaults", YOURS)


def _checked(name: str, make: Callable[..., Any]) -> Make:
    """`make`, which raises `UsageError` if it is not the function of a task."""

    def checked(seed: int, batch_size: int, data: str | None = None) -> Task:
        try:
            inspect.signature(make).bind(seed, batch_size, data)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"--task {name}: takes no (seed, batch_size, data): {error}"
            ) from error
        task = make(seed, batch_size, data)
        if not isinstance(task, Task):
            raise UsageError(f"--task {name}: returns a {type(task).__name__}, not a Task")
        return task

    return checked


__all__ = ["TASKS", "TASK_HELP", "Defaults", "Task", "add_task", "digits", "digits_cnn", "find"]
