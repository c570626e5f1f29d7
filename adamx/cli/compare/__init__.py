# SPDX-License-Identifier: Apache-2.0
"""Compare optimizers, each at its own best learning rate, weight decay and b2.

SGD, momentum, AdaGrad, RMSProp and the Adam family train one of the tasks of `train` from the same
parameters on the same batches, at every point of a grid, with several seeds. All runs of one
optimizer are one compiled program, and in memory at once. The tables and the picture show held-out
figures, the best with its neighbours, and whether it lies on an edge of the grid.

Each optimizer has as many runs: one without a decay or a b2 tries more rates in between. A run that
diverges stands still. --halvings drops the worse half of all settings again and again.

    python -m adamx compare --task regression --optimizers adam,sgd --steps 50
"""

from adamx.cli.compare.command import add_arguments, run

__all__ = ["add_arguments", "run"]
