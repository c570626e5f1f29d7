# SPDX-License-Identifier: Apache-2.0
"""Compare optimizers, each at its own best learning rate.

SGD, momentum, AdaGrad, RMSProp and the Adam family train one of the tasks of `train` from the same
parameters on the same batches, at every learning rate of a grid, with several seeds. All runs of
one optimizer are one compiled program, and in memory at once. The table and the picture show
held-out figures.
"""

from adamx.cli.compare.command import add_arguments, run

__all__ = ["add_arguments", "run"]
