# SPDX-License-Identifier: Apache-2.0
"""Other libraries' optimizers and their states: exact recipes, and bridges for runs half done.

Each name is imported when it is first used, and none needs its library before a function of it is
called.
"""

from typing import TYPE_CHECKING

from adamx.core import lazy

if TYPE_CHECKING:
    from adamx.interop import keras as keras
    from adamx.interop import optax as optax
    from adamx.interop import torch as torch
    from adamx.interop.keras import from_keras as from_keras
    from adamx.interop.keras import to_keras as to_keras
    from adamx.interop.optax_states import from_optax as from_optax
    from adamx.interop.optax_states import to_optax as to_optax
    from adamx.interop.t5x import t5x_rules as t5x_rules
    from adamx.interop.torch.from_torch import from_torch as from_torch
    from adamx.interop.torch.to_torch import to_torch as to_torch

else:
    # A name and the module that has it; a module's own name stands for the module.
    _CONTENTS = {
        "from_keras": "keras",
        "from_optax": "optax_states",
        "from_torch": "torch",
        "keras": "keras",
        "optax": "optax",
        "t5x_rules": "t5x",
        "to_keras": "keras",
        "to_optax": "optax_states",
        "to_torch": "torch",
        "torch": "torch",
    }
    __all__ = sorted(_CONTENTS)
    __getattr__, __dir__ = lazy.attributes(__name__, _CONTENTS)
