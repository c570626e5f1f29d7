# SPDX-License-Identifier: Apache-2.0
"""AMSGrad: Reddi, Kale & Kumar, 2018, arXiv 1904.09237. The mean square may only grow.

There are three forms. The paper's corrects no bias. torch takes the maximum of raw mean squares and
corrects the result. Optax corrects first and takes the maximum of that, so that the first
gradient's correction (a factor of 1000) stays for ever.
"""

from typing import Literal

import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, correction, lerp, ratio, root, times, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.core.values import bind
from adamx.kernels.twins import twin
from adamx.landing import LandingLike
from adamx.optimizers.adam import epsilon
from adamx.optimizers.recipe import Optimizer, alone, chained, recipe
from adamx.storage import StorageLike
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["amsgrad", "scale_by_amsgrad"]


@twin("amsgrad")
def formula(g, mu, nu, nu_max, *, b1, c1, b2, c2, am, before, after, eps, eps_root):
    mu = lerp(mu, g, b1, c1)
    nu = lerp(nu, abs_sq(g), b2, c2)
    nu_max = jnp.maximum(nu_max, before * nu)
    u = ratio(times(am, mu), root(after * nu_max + eps_root), eps)
    return u, {"mu": mu, "nu": nu, "nu_max": nu_max}


def rule(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    *,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    max_of: Literal["corrected", "raw"] = "corrected",
    eps_mode: Literal["outside", "hat"] = "outside",
) -> Rule:
    """The mean over the root of the largest mean square so far."""
    hyperparameters.check_choice("eps_mode", eps_mode, ("outside", "hat"))
    hyperparameters.check_choice("max_of", max_of, ("corrected", "raw"))

    return Rule(
        name="amsgrad",
        state=optax.ScaleByAmsgradState,
        moments={"mu": "signed", "nu": "squared", "nu_max": "maximum"},
        hyper=hyperparameters.checked(b1=b1, b2=b2, eps=eps, eps_root=eps_root),
        at=bind(
            scalars,
            bias_correction_mu=bias_correction_mu,
            bias_correction_nu=bias_correction_nu,
            max_of=max_of,
            eps_mode=eps_mode,
        ),
        formula=formula,
    )


def scalars(t, b1, b2, eps, eps_root, *, bias_correction_mu, bias_correction_nu, max_of, eps_mode):
    (b1, c1), (b2, c2) = weights(b1, t), weights(b2, t)
    bc2 = correction(c2, t)
    av = 1 / bc2 if bias_correction_nu else 1.0
    return {
        "b1": b1,
        "c1": c1,
        "b2": b2,
        "c2": c2,
        "am": 1 / correction(c1, t) if bias_correction_mu else 1.0,
        "before": av if max_of == "corrected" else 1.0,
        "after": av if max_of == "raw" else 1.0,
        "eps": epsilon(eps, eps_mode, bc2) if bias_correction_nu else eps,
        "eps_root": eps_root,
    }


def scale_by_amsgrad(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    max_of: Literal["corrected", "raw"] = "corrected",
    eps_mode: Literal["outside", "hat"] = "outside",
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.amsgrad`.

    Example:
      >>> import adamx, optax
      >>> opt = optax.chain(adamx.scale_by_amsgrad(), optax.scale(-1e-3))
    """
    amsgrad = rule(
        b1,
        b2,
        eps,
        eps_root,
        bias_correction_mu=bias_correction_mu,
        bias_correction_nu=bias_correction_nu,
        max_of=max_of,
        eps_mode=eps_mode,
    )
    return alone(amsgrad, storage, mu_dtype, nu_dtype)


@recipe(scale_by_amsgrad)
def amsgrad(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    max_of: Literal["corrected", "raw"] = "corrected",
    eps_mode: Literal["outside", "hat"] = "outside",
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""AMSGrad: Adam whose mean square never falls.

    .. math:: p \leftarrow p - \alpha \, \hat m_t / (\sqrt{\max_{s \le t} \hat v_s} + \varepsilon)

    Three forms are about; the defaults are Optax's.

    Args:
      bias_correction_mu: Whether the mean of gradients is corrected; not in the paper's form.
      bias_correction_nu: Whether the mean of squares is corrected; not in the paper's form.
      max_of: `"raw"` for torch's form, the maximum of raw mean squares, corrected afterwards.

    Example:
      >>> import adamx
      >>> as_torch = adamx.amsgrad(1e-3, max_of="raw")
      >>> as_paper = adamx.amsgrad(1e-3, bias_correction_mu=False, bias_correction_nu=False)

    References:
      Reddi et al., `On the Convergence of Adam <https://arxiv.org/abs/1904.09237>`_, 2018.
    """
    r = rule(
        b1,
        b2,
        eps,
        eps_root,
        bias_correction_mu=bias_correction_mu,
        bias_correction_nu=bias_correction_nu,
        max_of=max_of,
        eps_mode=eps_mode,
    )
    return chained(
        "amsgrad", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )
