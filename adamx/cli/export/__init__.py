# SPDX-License-Identifier: Apache-2.0
"""Go on training what `train --export` has written, without the model's code.

The file has the compiled step, the parameters, the optimizer's state, and batches, which come round
again and again.
"""

from adamx.cli.export.command import add_arguments, run

__all__ = ["add_arguments", "run"]
