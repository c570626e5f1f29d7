# SPDX-License-Identifier: Apache-2.0
"""Make a page of a run's figures and say what is wrong with it, or compare several runs.

Takes folders of runs, or JSON-lines files as `train` and `health.JsonLines` write them. One run
gives a page; several runs give a table and a picture of their losses.

    python -m adamx report runs/first
"""

from adamx.cli.report.command import add_arguments, run

__all__ = ["add_arguments", "run"]
