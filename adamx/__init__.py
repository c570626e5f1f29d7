# SPDX-License-Identifier: Apache-2.0
"""Adam for JAX: Optax's optimizers, computed more exactly, with state as small as you ask."""

import typing as _typing

from adamx import kernels as kernels
from adamx import knobs as knobs
from adamx import landing as landing
from adamx import rules as rules
from adamx import storage as storage
from adamx.core import lazy as _lazy
from adamx.core.step import jit_step as jit_step
from adamx.core.step import step as step
from adamx.describe import describe as describe
from adamx.explain import explain as explain
from adamx.footprint import nbytes as nbytes
from adamx.landing import master_params as master_params
from adamx.moments.convert import convert as convert
from adamx.moments.reset import reset as reset
from adamx.moments.scale_by import scale_by as scale_by
from adamx.moments.store import StoredState as StoredState
from adamx.moments.store import store as store
from adamx.optimizers import *
from adamx.optimizers.fold import fold_micro_batches as fold_micro_batches
from adamx.transforms import weight_decay as _weight_decay
from adamx.transforms.accumulate import accumulate as accumulate
from adamx.transforms.cautious import cautious as cautious
from adamx.transforms.centralise import centralise as centralise
from adamx.transforms.clipping import *
from adamx.transforms.grams import grams as grams
from adamx.transforms.groups import groups as groups
from adamx.transforms.learning_rate import scale_by_learning_rate as scale_by_learning_rate
from adamx.transforms.trust_ratio import scale_by_trust_ratio as scale_by_trust_ratio
from adamx.transforms.variance_reduction import reduce_variance as reduce_variance
from adamx.transforms.weight_decay import add_decayed_weights as add_decayed_weights

decay = _weight_decay

if _typing.TYPE_CHECKING:
    from adamx import health as health
    from adamx import interop as interop
    from adamx import parallel as parallel
    from adamx.checkpoints import Checkpoints as Checkpoints
    from adamx.interop.register import register as register
else:  # imported when first used: a training may need none of them
    _LAZY = {"health": "health", "interop": "interop", "parallel": "parallel"}
    _LAZY |= {"Checkpoints": "checkpoints", "checkpoints": "checkpoints"}
    _LAZY |= {"register": "interop.register"}
    __getattr__, __dir__ = _lazy.attributes(__name__, _LAZY)
    _INSIDE = {"checkpoints", "core", "footprint", "moments", "optimizers", "transforms"}
    __all__ = sorted({x for x in {*globals(), *_LAZY} if not x.startswith("_")} - _INSIDE)

__version__ = "0.1.0"
