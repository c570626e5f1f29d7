# SPDX-License-Identifier: Apache-2.0
"""Continue training from a file of `train --export`, without the model's code.

The file holds the compiled step, the parameters, the optimizer's state, and some batches, which are
used again and again.

    python -m adamx run-exported step.bin --steps 3
"""

from adamx.cli.export.command import add_arguments, run

__all__ = ["add_arguments", "run"]
