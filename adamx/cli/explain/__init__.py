# SPDX-License-Identifier: Apache-2.0
"""Say how two optimizers differ, and by how much that moves a run.

Names are those of torch, Keras, Optax and adamx, with arguments if need be:

    python -m adamx explain torch.AdamW optax.adamw
    python -m adamx explain keras.Adam "adamx.adam(1e-3, eps=1e-7)"

Both are run on small problems in float64. Neither torch nor Keras has to be installed.
"""

from adamx.cli.explain.command import add_arguments, run

__all__ = ["add_arguments", "run"]
