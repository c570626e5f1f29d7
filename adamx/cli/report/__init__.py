# SPDX-License-Identifier: Apache-2.0
"""Make a page of the figures of a run, and say what is wrong with it; or compare runs.

Takes files of JSON lines, as `train` and `health.JsonLines` write them, or the folders of runs. Of
one it makes a page, of several a table and a picture of their losses.
"""

from adamx.cli.report.command import add_arguments, run

__all__ = ["add_arguments", "run"]
