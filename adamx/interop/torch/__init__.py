# SPDX-License-Identifier: Apache-2.0
"""PyTorch: its optimizers as recipes of ours."""

from adamx.interop.torch.lazy_rows import sparse_adam
from adamx.interop.torch.recipes import adam, adamax, adamw, nadam, radam

__all__ = ["adam", "adamax", "adamw", "nadam", "radam", "sparse_adam"]
