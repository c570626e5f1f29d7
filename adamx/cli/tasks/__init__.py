# SPDX-License-Identifier: Apache-2.0
"""What `train` can train: one task per file, each a function that returns a `Task`."""

from adamx.cli.tasks.digits import digits
from adamx.cli.tasks.task import Task

__all__ = ["Task", "digits"]
