# SPDX-License-Identifier: Apache-2.0
"""PyTorch: its optimizers as recipes of ours, and its checkpoints as states of ours and back."""

from adamx.interop.torch.files import read
from adamx.interop.torch.from_torch import Moved, from_torch
from adamx.interop.torch.lazy_rows import sparse_adam
from adamx.interop.torch.recipes import adam, adamax, adamw, nadam, radam
from adamx.interop.torch.to_torch import to_torch

__all__ = [
    "Moved",
    "adam",
    "adamax",
    "adamw",
    "from_torch",
    "nadam",
    "radam",
    "read",
    "sparse_adam",
    "to_torch",
]
