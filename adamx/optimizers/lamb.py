# SPDX-License-Identifier: Apache-2.0
"""LAMB: You et al., 2019, arXiv 1904.00962. AdamW with each step scaled to its leaf's norm."""

import optax
from jax.typing import DTypeLike

from adamx.core.hyperparameters import Hyper
from adamx.core.norms import mapped_axes
from adamx.landing import LandingLike
from adamx.optimizers.adam import rule, scale_by_adam
from adamx.optimizers.recipe import Optimizer, chained, recipe
from adamx.storage import StorageLike
from adamx.transforms.trust_ratio import TrustRatio
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["lamb"]


@recipe(scale_by_adam, eps=1e-6)
def lamb(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-6,
    eps_root: Hyper = 0.0,
    weight_decay: Hyper | Decay | None = 0.0,
    mask: Mask | None = None,
    *,
    axis_name: str | tuple[str, ...] | None = None,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""LAMB: AdamW with each leaf's step scaled to the leaf's norm, for very large batches.

    .. math:: u = \hat m_t / (\sqrt{\hat v_t} + \varepsilon) + \lambda p, \quad
        p \leftarrow p - \alpha \, u \, \|p\| / \|u\|

    The norms make it the one recipe that is not elementwise.

    Args:
      axis_name: the mapped axis along which leaves are sharded, if they are.

    Example:
      >>> import adamx
      >>> opt = adamx.lamb(1e-2, weight_decay=0.01)

    References:
      You et al., `Large Batch Optimization for Deep Learning
      <https://arxiv.org/abs/1904.00962>`_, 2019.
    """
    r = rule(b1, b2, eps, eps_root)
    return chained(
        "lamb",
        r,
        learning_rate,
        storage,
        mu_dtype,
        nu_dtype,
        weight_decay,
        mask,
        landing,
        TrustRatio(axis_name=mapped_axes.names(axis_name)),
    )
