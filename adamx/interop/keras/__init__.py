# SPDX-License-Identifier: Apache-2.0
"""Keras' optimizers: its arguments and defaults, its arithmetic, and its states.

Nothing here imports Keras, so it need not be installed; h5py is needed to read or write its files.

Example:
  >>> from adamx.interop import keras
  >>> opt = keras.adamw(1e-3, clipnorm=1.0, storage="int8")
"""

from adamx.interop.keras import legacy as legacy
from adamx.interop.keras.configured import of_config
from adamx.interop.keras.files import read
from adamx.interop.keras.from_keras import Carried, from_keras
from adamx.interop.keras.recipes import adam, adamax, adamw, lamb, nadam
from adamx.interop.keras.to_keras import to_keras

__all__ = [
    "Carried",
    "adam",
    "adamax",
    "adamw",
    "from_keras",
    "lamb",
    "legacy",
    "nadam",
    "of_config",
    "read",
    "to_keras",
]
