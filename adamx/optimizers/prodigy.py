# SPDX-License-Identifier: Apache-2.0
"""Prodigy: Mishchenko & Defazio, 2023, arXiv 2306.06101. Adam that estimates its learning rate.

Optax divides 0 by 0 where the first gradient or the first rate is zero, and its estimate is NaN
ever after; here it stays. In half precision Optax's sums are in half precision, here in float32.
"""

import optax

from adamx.core.compiled import compiled
from adamx.core.hyperparameters import Hyper
from adamx.core.norms import mapped_axes
from adamx.landing import LandingLike, Nearest
from adamx.optimizers.prodigy_link import Prodigy
from adamx.optimizers.recipe import Optimizer, recipe, sole
from adamx.storage import StorageLike, choose
from adamx.transforms.weight_decay import Decay, Mask, as_decay

__all__ = ["prodigy", "scale_by_prodigy"]


def scale_by_prodigy(
    betas: tuple[Hyper, Hyper] = (0.9, 0.999),
    beta3: Hyper | None = None,
    eps: Hyper = 1e-8,
    estim_lr0: float = 1e-6,
    estim_lr_coef: Hyper = 1.0,
    safeguard_warmup: bool = False,
    *,
    axis_name: str | tuple[str, ...] | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The step of `adamx.prodigy` at the learning rate 1, uphill.

    A rate that follows it in a chain does not enter the estimate, as that of `adamx.prodigy` does.
    """
    names = ("b1", "b2", "b3", "eps")
    link = Prodigy(
        "scale_by_prodigy", 1.0, betas, beta3, eps, estim_lr0, estim_lr_coef, 0.0, None,
        safeguard_warmup, mapped_axes.names(axis_name), choose(storage), flip_sign=False,
    )  # fmt: skip
    return compiled(Nearest(link), names, [*betas, beta3, eps, estim_lr_coef])


@recipe(scale_by_prodigy, elementwise=False)
def prodigy(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    betas: tuple[Hyper, Hyper] = (0.9, 0.999),
    beta3: Hyper | None = None,
    eps: Hyper = 1e-8,
    estim_lr0: float = 1e-6,
    estim_lr_coef: Hyper = 1.0,
    weight_decay: Hyper | Decay = 0.0,
    safeguard_warmup: bool = False,
    *,
    mask: Mask | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Prodigy: AdamW with a learning rate that it estimates from how far it has come.

    .. math:: p \leftarrow p - \alpha d \left( m / (\sqrt{v} + d \varepsilon) + \lambda p \right),
        \quad d \leftarrow \max\left(d, \frac{\sum_t \beta_3^{n-t} d_t^2 \alpha_t
        \langle g_t, p_0 - p_t \rangle}{\| \sum_t \beta_3^{n-t} d_t^2 \alpha_t g_t \|_1} \right)

    with moments m, v of :math:`d g` and Adam's bias correction in :math:`\alpha`. The estimate
    takes the initial parameters and one more sum of gradients: 8 bytes per float32 parameter
    beside Adam's two moments.

    Evidence: the authors match a tuned Adam on most of their tasks, and it is popular for
    fine-tuning small diffusion models. It still wants a schedule, `estim_lr_coef` is a rate by
    another name, and with pre-trained language models there is little but anecdote.

    Args:
      learning_rate: A factor of the estimate, best a schedule that begins at 1 and ends at 0. As
        in `adamx.adamw` it may be a number, an array, a traced value or a schedule.
      betas: b1 and b2: how slowly the means of gradients and of squares forget, each in [0, 1).
      beta3: How slowly the estimate's sums forget; None for the root of b2.
      estim_lr0: The first estimate, too small rather than too large.
      estim_lr_coef: A factor of later estimates.
      weight_decay: A number, a schedule, or one of `adamx.decay` that acts beside the rule.
      safeguard_warmup: Whether the rate is left out of the estimate's denominator, for a warm-up.
      storage: How the two moments are stored, `"float32"` or `"bfloat16"`: squares of steps that
        begin at 1e-6 are below the range of 8 bits.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> opt = adamx.prodigy()
      >>> params = jnp.array([1.0, -3.0])
      >>> state = opt.init(params)
      >>> for _ in range(100):
      ...     params, state = adamx.step(opt, params, state, params)
      >>> print(f"{state.estim_lr:.0e}")
      8e-01

    References:
      Mishchenko & Defazio, `Prodigy <https://arxiv.org/abs/2306.06101>`_, 2023.
    """
    link = Prodigy(
        "prodigy", learning_rate, betas, beta3, eps, estim_lr0, estim_lr_coef, weight_decay, mask,
        safeguard_warmup, mapped_axes.names(axis_name), choose(storage),
    )  # fmt: skip
    names = ("b1", "b2", "b3", "eps", "learning_rate", "weight_decay", "step_scale")
    strength = as_decay(weight_decay).strength
    hyper = [learning_rate, *betas, beta3, eps, estim_lr_coef, strength]
    return compiled(sole(link, landing), names, hyper)
