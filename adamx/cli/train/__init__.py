# SPDX-License-Identifier: Apache-2.0
"""Train a small model, by default a transformer on the source of Python itself.

A run has a folder with its settings, its log (`run.jsonl`), its checkpoints, and at the end a page
and a picture of what Adam did. Ctrl-C saves the run; --resume continues it as if uninterrupted,
with the settings in the folder. --task quadratic instead prints every step of Adam's arithmetic.

    python -m adamx train --task regression --steps 50 --run runs/first --export step.bin
"""

from adamx.cli.train.command import run
from adamx.cli.train.settings import add_arguments

__all__ = ["add_arguments", "run"]
