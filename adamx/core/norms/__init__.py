# SPDX-License-Identifier: Apache-2.0
"""Norms that neither overflow nor underflow, of arrays, trees and shards of either."""

from adamx.core.norms.plain import global_norm, leaf_norm, rms, safe_norm

__all__ = ["global_norm", "leaf_norm", "rms", "safe_norm"]
