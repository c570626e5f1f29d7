# SPDX-License-Identifier: Apache-2.0
"""Norms of arrays, trees and their shards that neither overflow nor underflow."""

from adamx.core.norms.plain import global_norm, leaf_norm, rms, safe_norm, total

__all__ = ["global_norm", "leaf_norm", "rms", "safe_norm", "total"]
