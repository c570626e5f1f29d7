# SPDX-License-Identifier: Apache-2.0
"""The rules as links for chains of your own: `scale_by_*`, named as in Optax.

Each replaces gradients by directions, uphill and without a learning rate, computed in float32 and
cast once to the wider of the gradient's and the parameter's dtype. Signatures are Optax's, plus
keyword-only arguments, which `adamx.optimizers` explains. `update(..., b1=x)` overrides a
hyperparameter for one call.

Example:
  >>> import adamx, optax, jax.numpy as jnp
  >>> opt = optax.chain(optax.clip(1.0), adamx.scale_by_adam(), optax.scale(-0.1))
  >>> params = jnp.array([1.0])
  >>> updates, state = opt.update(jnp.array([5.0]), opt.init(params), params)
  >>> print(f"{updates[0]:.6f}")
  -0.100000
"""

from collections.abc import Callable
from typing import Literal

import jax
import optax
from jax.typing import DTypeLike

from adamx import rules
from adamx.core import hyperparameters
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.core.step import compiled
from adamx.landing import nearest
from adamx.moments.scale_by import scale_by
from adamx.rules.adam import EpsMode
from adamx.shared import shared
from adamx.storage import StorageLike, choose

Transform = optax.GradientTransformationExtraArgs


@shared(*hyperparameters.NAMES)
def scale_by_adam(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    momentum_decay: Hyper | None = None,
    eps_mode: EpsMode = "outside",
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Transform:
    """The direction of `adamx.adam`."""
    rule = rules.adam(
        b1, b2, eps, eps_root, nesterov=nesterov, momentum_decay=momentum_decay, eps_mode=eps_mode
    )
    return _alone(rule, storage, mu_dtype, nu_dtype)


@shared(*hyperparameters.NAMES)
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
) -> Transform:
    """The direction of `adamx.amsgrad`."""
    rule = rules.amsgrad(
        b1,
        b2,
        eps,
        eps_root,
        bias_correction_mu=bias_correction_mu,
        bias_correction_nu=bias_correction_nu,
        max_of=max_of,
        eps_mode=eps_mode,
    )
    return _alone(rule, storage, mu_dtype, nu_dtype)


@shared(*hyperparameters.NAMES)
def scale_by_adamax(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Transform:
    """The direction of `adamx.adamax`."""
    return _alone(rules.adamax(b1, b2, eps), storage, mu_dtype, nu_dtype)


@shared(*hyperparameters.NAMES)
def scale_by_radam(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    threshold: Hyper = 5.0,
    *,
    nesterov: bool = False,
    eps_mode: Literal["outside", "hat"] = "outside",
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Transform:
    """The direction of `adamx.radam`."""
    rule = rules.radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov, eps_mode=eps_mode)
    return _alone(rule, storage, mu_dtype, nu_dtype)


@shared(*hyperparameters.NAMES)
def scale_by_belief(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-16,
    eps_root: Hyper = 1e-16,
    *,
    nesterov: bool = False,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Transform:
    """The direction of `adamx.adabelief`."""
    rule = rules.belief(b1, b2, eps, eps_root, nesterov=nesterov)
    return _alone(rule, storage, mu_dtype, nu_dtype)


@shared(*hyperparameters.NAMES)
def scale_by_yogi(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-3,
    eps_root: Hyper = 0.0,
    initial_accumulator_value: float = 1e-6,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Transform:
    """The direction of `adamx.yogi`."""
    rule = rules.yogi(b1, b2, eps, eps_root, initial_accumulator_value)
    return _alone(rule, storage, mu_dtype, nu_dtype)


@shared(*hyperparameters.NAMES)
def scale_by_lion(
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    mu_dtype: DTypeLike | None = None,
    *,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: Hyper = 1.0,
    storage: StorageLike | None = None,
) -> Transform:
    """The direction of `adamx.lion`."""
    return _alone(rules.lion(b1, b2, mode=mode, smooth_beta=smooth_beta), storage, mu_dtype, None)


@shared(*hyperparameters.NAMES)
def scale_by_adan(
    b1: Hyper = 0.98,
    b2: Hyper = 0.92,
    b3: Hyper = 0.99,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    *,
    difference_weight: Hyper | None = None,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Transform:
    """The direction of `adamx.adan`."""
    rule = rules.adan(b1, b2, b3, eps, eps_root, difference_weight=difference_weight)
    return _alone(rule, storage, mu_dtype, nu_dtype)


@shared(*hyperparameters.NAMES)
def scale_by_adopt(
    b1: Hyper = 0.9,
    b2: Hyper = 0.9999,
    eps: Hyper = 1e-6,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[[jax.Array], jax.Array] | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Transform:
    """The direction of `adamx.adopt`."""
    rule = rules.adopt(
        b1, b2, eps, nesterov=nesterov, use_clipping=use_clipping, clip_value_fn=clip_value_fn
    )
    return _alone(rule, storage, mu_dtype, nu_dtype)


def _alone(
    rule: Rule,
    storage: StorageLike | None,
    mu_dtype: DTypeLike | None,
    nu_dtype: DTypeLike | None,
) -> Transform:
    link = scale_by(rule, choose(storage, mu_dtype, nu_dtype))
    return compiled(nearest(link), rule.hyper)
