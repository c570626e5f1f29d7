# SPDX-License-Identifier: Apache-2.0
"""Adam for JAX: Optax's optimizers, computed more exactly, with state as small as you ask."""

from adamx import health, landing, parallel, rules, storage
from adamx.checkpoints import Checkpoints
from adamx.core.step import step
from adamx.footprint import nbytes
from adamx.landing import master_params
from adamx.moments.convert import convert
from adamx.moments.scale_by import scale_by
from adamx.optimizers.links import (
    scale_by_adam,
    scale_by_adamax,
    scale_by_adan,
    scale_by_adopt,
    scale_by_amsgrad,
    scale_by_belief,
    scale_by_lion,
    scale_by_radam,
    scale_by_yogi,
)
from adamx.optimizers.recipes import (
    adabelief,
    adam,
    adamax,
    adamaxw,
    adamw,
    adan,
    adopt,
    amsgrad,
    lamb,
    lion,
    nadam,
    nadamw,
    radam,
    yogi,
)
from adamx.transforms import weight_decay as decay
from adamx.transforms.clipping import (
    adaptive_grad_clip,
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_leaf_norm,
    clip_by_percentile,
    clip_by_zscore,
)
from adamx.transforms.learning_rate import scale_by_learning_rate
from adamx.transforms.trust_ratio import scale_by_trust_ratio
from adamx.transforms.weight_decay import add_decayed_weights

__version__ = "0.1.0"
