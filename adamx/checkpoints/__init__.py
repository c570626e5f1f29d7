# SPDX-License-Identifier: Apache-2.0
"""Orbax checkpoints that say what is in them, and are not restored as anything else.

Orbax writes and reads the arrays, on any number of devices and processes. Beside them, in one
array of bytes, is a description (`about.py`): how the moments are stored, the shape and dtype of
every leaf, and its checksum (`checksums.py`).
"""

from adamx.checkpoints.checkpoints import Checkpoints
from adamx.checkpoints.damage import DamagedError, NoCheckpointError, SaveError

__all__ = ["Checkpoints", "DamagedError", "NoCheckpointError", "SaveError"]
