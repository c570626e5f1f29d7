# SPDX-License-Identifier: Apache-2.0
"""Train a small model with a recipe of ours: by default a transformer, on Python's own source.

A run has a folder: its settings, its log (`run.jsonl`), its checkpoints, and at the end a page and
a picture of what Adam did. Ctrl-C saves, and --resume goes on as if nothing had happened, with the
settings in the folder. --task quadratic prints every step of Adam's arithmetic instead.
"""

from adamx.cli.train.command import add_arguments, run

__all__ = ["add_arguments", "run"]
