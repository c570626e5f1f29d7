# SPDX-License-Identifier: Apache-2.0
"""Gradient clipping that no magnitude breaks, over shards too."""

from adamx.transforms.clipping.adaptive import clip_by_percentile, clip_by_zscore
from adamx.transforms.clipping.agc import adaptive_grad_clip
from adamx.transforms.clipping.clip import (
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_leaf_norm,
)

__all__ = [
    "adaptive_grad_clip",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "clip_by_leaf_norm",
    "clip_by_percentile",
    "clip_by_zscore",
]
