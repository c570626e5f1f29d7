# SPDX-License-Identifier: Apache-2.0
"""Keras' optimizers: its arguments and defaults, its arithmetic, and its states.

Nothing here imports Keras, so it need not be installed; h5py is needed to read or write its files.

Example:
  >>> from adamx.interop import keras
  >>> opt = keras.adamw(1e-3, clipnorm=1.0, storage="int8")
"""

from adamx.interop.keras import legacy as legacy
from adamx.interop.keras.recipes import adam, adamax, adamw, lamb, nadam

__all__ = ["adam", "adamax", "adamw", "lamb", "legacy", "nadam"]
