# SPDX-License-Identifier: Apache-2.0
"""MARS-AdamW: Yuan et al., 2024, arXiv 2411.10438. AdamW of gradients with less variance.

In front of Adam stands `transforms/variance_reduction.py`, in the form that needs one gradient a
step. The authors' code starts from a previous gradient of 0, the paper from a change of 0, as here.
"""

import optax
from jax.typing import DTypeLike

from adamx.core.hyperparameters import Hyper
from adamx.landing import LandingLike
from adamx.optimizers.adam import rule, scale_by_adam
from adamx.optimizers.recipe import Optimizer, chained, recipe
from adamx.storage import StorageLike
from adamx.transforms.variance_reduction import correction
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["mars"]


@recipe(scale_by_adam, b1=0.95, b2=0.99)
def mars(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.95,
    b2: Hyper = 0.99,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    weight_decay: Hyper | Decay | None = 0.0,
    mask: Mask | None = None,
    *,
    gamma: Hyper = 0.025,
    max_norm: Hyper | None = 1.0,
    previous_dtype: DTypeLike | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""MARS-AdamW: AdamW of gradients that are corrected by their change since the last step.

    .. math:: c_t = g_t + \gamma \, \frac{\beta_1}{1 - \beta_1} (g_t - g_{t-1}), \quad
        p \leftarrow p - \alpha \, \mathrm{AdamW}(c_t / \max(1, \|c_t\|))

    The norm is that of each leaf. For: GPT-2 models reach AdamW's loss in half of the tokens (the
    paper), and a benchmark by others with every rate tuned finds it ahead of AdamW by a little
    (arXiv 2509.02046). Against: the same benchmark puts matrix methods first; another gradient is
    kept. The authors step vectors by plain AdamW: `optax.partition` does that.

    Args:
      gamma: The strength of the correction.
      max_norm: The largest norm of a leaf's corrected gradient; None clips nothing.
      previous_dtype: The dtype in which the last gradient is stored, `"bfloat16"` for two bytes.
        None takes the parameter's, at least float32.
      axis_name: The mapped axis along which leaves are sharded, if they are.

    Example:
      >>> import adamx
      >>> opt = adamx.mars(3e-3, weight_decay=0.1, storage="int8", previous_dtype="bfloat16")

    References:
      Yuan et al., `MARS: Unleashing the Power of Variance Reduction for Training Large Models
      <https://arxiv.org/abs/2411.10438>`_, 2024.
    """
    return chained(
        "mars",
        rule(b1, b2, eps, eps_root),
        learning_rate,
        storage,
        mu_dtype,
        nu_dtype,
        weight_decay,
        mask,
        landing,
        front=[correction("mars", gamma, b1, max_norm, axis_name, previous_dtype)],
    )
