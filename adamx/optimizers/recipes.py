# SPDX-License-Identifier: Apache-2.0
r"""The recipes: Optax's names, signatures and state, each a chain of parts.

In the formulas m-hat and v-hat are the corrected means of gradients and of their squares,
:math:`m_t / (1 - \beta_1^t)` and :math:`v_t / (1 - \beta_2^t)`. Arguments that recipes share:

  learning_rate: a number, an array, a traced value or a schedule of the step, which counts from 0.
    So may be every hyperparameter, and `update(..., b2=x)` overrides one for one call. A schedule
    is compiled with the step: it sees nothing but the count.
  b1, b2: how slowly the mean of gradients and the mean of squares forget, in [0, 1).
  eps: stands beside the root; the step vanishes where gradients are smaller than it.
  eps_root: stands inside the root.
  eps_mode: `"outside"` as above; `"hat"` for the epsilon of Keras and TensorFlow, added to the
    uncorrected root; `"atan2"` (Adam, AdamW) for no epsilon at all.
  mu_dtype, nu_dtype: the dtypes in which means, and squares or maxima, rest between steps. None
    takes the parameter's, at least float32. Squares in bfloat16 are rounded stochastically.
  storage: how moments rest, instead of the two dtypes: `"float32"`, `"bfloat16"`, `"int8"` (two
    bytes per parameter for both), `"int4"` (one byte), a `Storage`, a table of path patterns to one
    of these (`{"*/embedding": "float32", "*": "int8"}`), or a function of a leaf's path and shape.
  weight_decay: a number or a schedule, then decoupled and times the learning rate, or one of
    `adamx.decay`.
  mask: which leaves decay: a tree of booleans, a function of the parameters to one, or a path
    pattern: `"*/kernel"` for these leaves, `"!*/bias|*/scale"` for all but those.
  nesterov: look one step ahead along the momentum.
  landing: how steps land in bfloat16 and float16 parameters: `"nearest"`, `"stochastic"`,
    `"kahan"`, `"exact"`, `"compensated8"`, or one of `adamx.landing`. With all but the first,
    updates are float32 and `update` needs the parameters.

Every recipe returns an `optax.GradientTransformationExtraArgs`.
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
from adamx.landing import Landing, LandingLike, ending
from adamx.landing import choose as choose_landing
from adamx.moments.scale_by import scale_by
from adamx.rules.adam import EpsMode
from adamx.shared import shared
from adamx.storage import StorageLike, choose
from adamx.transforms import weight_decay as decays
from adamx.transforms.learning_rate import descend
from adamx.transforms.trust_ratio import trust_ratio
from adamx.transforms.weight_decay import Decay, Mask

Optimizer = optax.GradientTransformationExtraArgs


@shared(*hyperparameters.NAMES)
def adam(
    learning_rate: optax.ScalarOrSchedule,
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
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Adam: steps of the mean gradient over the root of the mean square.

    .. math:: p \leftarrow p -
        \alpha \, \hat m_t / (\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon)

    Example:
      >>> import adamx, optax, jax.numpy as jnp
      >>> opt = adamx.adam(0.1)
      >>> params = jnp.array([1.0])
      >>> updates, state = opt.update(jnp.array([3.0]), opt.init(params), params)
      >>> print(optax.apply_updates(params, updates))
      [0.9]

    References:
      Kingma & Ba, `Adam <https://arxiv.org/abs/1412.6980>`_, 2014.
    """
    rule = rules.adam(
        b1, b2, eps, eps_root, nesterov=nesterov, momentum_decay=momentum_decay, eps_mode=eps_mode
    )
    return _recipe(
        "adam", rule, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


@shared(*hyperparameters.NAMES)
def adamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyper | Decay | None = 1e-4,
    mask: Mask | None = None,
    *,
    nesterov: bool = False,
    momentum_decay: Hyper | None = None,
    eps_mode: EpsMode = "outside",
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""AdamW: Adam with decay that the root does not divide.

    .. math:: p \leftarrow p - \alpha \left(
        \hat m_t / (\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon) + \lambda p \right)

    The decay is Optax's 1e-4 by default; torch's is 1e-2, Keras' 4e-3.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> opt = adamx.adamw(0.1, weight_decay=adamx.decay.cautious(0.1), mask="!*/bias")
      >>> params = {"kernel": jnp.array([1.0]), "bias": jnp.array([1.0])}
      >>> params, state = adamx.step(opt, params, opt.init(params), params)
      >>> print(params["kernel"], params["bias"])
      [0.89] [0.9]

    References:
      Loshchilov & Hutter, `Decoupled Weight Decay <https://arxiv.org/abs/1711.05101>`_, 2017.
    """
    rule = rules.adam(
        b1, b2, eps, eps_root, nesterov=nesterov, momentum_decay=momentum_decay, eps_mode=eps_mode
    )
    return _recipe(
        "adamw", rule, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


@shared(*hyperparameters.NAMES)
def nadam(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    momentum_decay: Hyper | None = None,
    eps_mode: EpsMode = "outside",
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""NAdam: Adam with Nesterov's momentum.

    .. math:: \hat m_t = \frac{\beta_1 m_t}{1 - \beta_1^{t+1}}
        + \frac{(1 - \beta_1) g_t}{1 - \beta_1^t}

    Args (beside the shared ones):
      momentum_decay: torch's form with its :math:`\psi` (0.004 there), which warms b1 up. None
        takes Optax's form, above.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> torch_like = adamx.nadam(2e-3, momentum_decay=0.004)

    References:
      Dozat, `Nesterov Momentum into Adam
      <https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ>`_, 2016.
    """
    rule = rules.adam(
        b1, b2, eps, eps_root, nesterov=nesterov, momentum_decay=momentum_decay, eps_mode=eps_mode
    )
    return _recipe(
        "nadam", rule, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


@shared(*hyperparameters.NAMES)
def nadamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyper | Decay | None = 1e-4,
    mask: Mask | None = None,
    *,
    nesterov: bool = True,
    momentum_decay: Hyper | None = None,
    eps_mode: EpsMode = "outside",
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    """NAdamW: NAdam with decoupled decay. See `nadam` and `adamw`.

    Example:
      >>> import adamx
      >>> opt = adamx.nadamw(1e-3, weight_decay=0.1)
    """
    rule = rules.adam(
        b1, b2, eps, eps_root, nesterov=nesterov, momentum_decay=momentum_decay, eps_mode=eps_mode
    )
    return _recipe(
        "nadamw", rule, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


@shared(*hyperparameters.NAMES)
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

    Args (beside the shared ones):
      bias_correction_mu, bias_correction_nu: False, False for the paper's form.
      max_of: `"raw"` for torch's: the maximum of uncorrected mean squares, corrected afterwards.

    Example:
      >>> import adamx
      >>> as_torch = adamx.amsgrad(1e-3, max_of="raw")
      >>> as_paper = adamx.amsgrad(1e-3, bias_correction_mu=False, bias_correction_nu=False)

    References:
      Reddi et al., `On the Convergence of Adam <https://arxiv.org/abs/1904.09237>`_, 2018.
    """
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
    return _recipe(
        "amsgrad", rule, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


@shared(*hyperparameters.NAMES)
def adamax(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Adamax: the mean gradient over a decaying maximum of its size.

    .. math:: v_t = \max(\beta_2 v_{t-1}, |g_t| + \varepsilon), \quad
        p \leftarrow p - \alpha \, \hat m_t / v_t

    Example:
      >>> import adamx
      >>> opt = adamx.adamax(2e-3)

    References:
      Kingma & Ba, `Adam <https://arxiv.org/abs/1412.6980>`_, 2014, section 7.1.
    """
    rule = rules.adamax(b1, b2, eps)
    return _recipe(
        "adamax", rule, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


@shared(*hyperparameters.NAMES)
def adamaxw(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper | Decay | None = 1e-4,
    mask: Mask | None = None,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    """AdamaxW: Adamax with decoupled decay. See `adamax` and `adamw`.

    Example:
      >>> import adamx
      >>> opt = adamx.adamaxw(2e-3, weight_decay=0.01)
    """
    rule = rules.adamax(b1, b2, eps)
    return _recipe(
        "adamaxw", rule, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


@shared(*hyperparameters.NAMES)
def radam(
    learning_rate: optax.ScalarOrSchedule,
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
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""RAdam: Adam that waits until the variance of its step is known.

    .. math:: p \leftarrow p - \alpha \, r_t \hat m_t / (\sqrt{\hat v_t} + \varepsilon)
        \text{ if } \rho_t \ge \text{threshold, else } p - \alpha \hat m_t

    Args (beside the shared ones):
      threshold: 5 as in Optax and torch; 4 for the paper's.
      eps_mode: `"hat"` for torch's epsilon.

    Example:
      >>> import adamx
      >>> as_torch = adamx.radam(1e-3, eps_mode="hat")

    References:
      Liu et al., `On the Variance of the Adaptive Learning Rate
      <https://arxiv.org/abs/1908.03265>`_, 2019.
    """
    rule = rules.radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov, eps_mode=eps_mode)
    return _recipe(
        "radam", rule, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


@shared(*hyperparameters.NAMES)
def adabelief(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-16,
    eps_root: Hyper = 1e-16,
    *,
    nesterov: bool = False,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""AdaBelief: the mean gradient over the root of its mean squared prediction error.

    .. math:: s_t = \beta_2 s_{t-1} + (1 - \beta_2) (g_t - m_t)^2 + \bar\varepsilon, \quad
        p \leftarrow p - \alpha \, \hat m_t / (\sqrt{\hat s_t} + \varepsilon)

    Example:
      >>> import adamx
      >>> opt = adamx.adabelief(1e-3)

    References:
      Zhuang et al., `AdaBelief <https://arxiv.org/abs/2010.07468>`_, 2020.
    """
    rule = rules.belief(b1, b2, eps, eps_root, nesterov=nesterov)
    return _recipe(
        "adabelief", rule, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


@shared(*hyperparameters.NAMES)
def yogi(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-3,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Yogi: Adam whose mean square moves by bounded steps.

    .. math:: v_t = v_{t-1} - (1 - \beta_2) \, \mathrm{sign}(v_{t-1} - g_t^2) \, g_t^2

    Example:
      >>> import adamx
      >>> opt = adamx.yogi(1e-2)

    References:
      Zaheer et al., `Adaptive Methods for Nonconvex Optimization
      <https://proceedings.neurips.cc/paper/2018/hash/90365351ccc7437a1309dc64e4db32a3-Abstract.html>`_,
      2018.
    """
    rule = rules.yogi(b1, b2, eps)
    return _recipe(
        "yogi", rule, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


@shared(*hyperparameters.NAMES)
def lion(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyper | Decay | None = 1e-3,
    mask: Mask | None = None,
    *,
    mode: Literal["hard", "smooth", "refined"] = "hard",
    smooth_beta: Hyper | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Lion: the sign of the gradient seen through its momentum.

    .. math:: p \leftarrow p - \alpha \left(
        \mathrm{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t) + \lambda p \right)

    Learning rates are some ten times smaller than Adam's, decay as much larger.

    Args (beside the shared ones):
      mode: `"smooth"` for a tanh, `"refined"` for a clipped identity in the sign's place.
      smooth_beta: the steepness of the tanh; None for 1.

    Example:
      >>> import adamx
      >>> opt = adamx.lion(1e-4, weight_decay=0.1)

    References:
      Chen et al., `Symbolic Discovery of Optimization Algorithms
      <https://arxiv.org/abs/2302.06675>`_, 2023.
    """
    rule = rules.lion(b1, b2, mode=mode, smooth_beta=1.0 if smooth_beta is None else smooth_beta)
    return _recipe(
        "lion", rule, learning_rate, storage, mu_dtype, None, weight_decay, mask, landing
    )


@shared(*hyperparameters.NAMES)
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

    Args (beside the shared ones):
      axis_name: the mapped axis along which leaves are sharded, if they are.

    Example:
      >>> import adamx
      >>> opt = adamx.lamb(1e-2, weight_decay=0.01)

    References:
      You et al., `Large Batch Optimization for Deep Learning
      <https://arxiv.org/abs/1904.00962>`_, 2019.
    """
    rule = rules.adam(b1, b2, eps, eps_root)
    return _recipe(
        "lamb",
        rule,
        learning_rate,
        storage,
        mu_dtype,
        nu_dtype,
        weight_decay,
        mask,
        landing,
        trust_ratio(axis_name=axis_name),
    )


@shared(*hyperparameters.NAMES)
def adan(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.98,
    b2: Hyper = 0.92,
    b3: Hyper = 0.99,
    eps: Hyper = 1e-8,
    eps_root: Hyper = 1e-8,
    weight_decay: Hyper | Decay | None = 0.0,
    mask: Mask | None = None,
    *,
    difference_weight: Hyper | None = None,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Adan: Adam with Nesterov's momentum estimated from differences of gradients.

    .. math:: p \leftarrow p - \alpha \, (\hat m_t + w \hat v_t) / (\sqrt{\hat n_t} + \varepsilon)

    with m, v, n the means of :math:`g`, :math:`\Delta g` and :math:`(g + w \Delta g)^2`.

    Args (beside the shared ones):
      difference_weight: w. None takes Optax's `1 - b2`; the paper's is b2 in this convention.

    Example:
      >>> import adamx
      >>> as_paper = adamx.adan(1e-3, difference_weight=0.92)

    References:
      Xie et al., `Adan <https://arxiv.org/abs/2208.06677>`_, 2022.
    """
    rule = rules.adan(b1, b2, b3, eps, eps_root, difference_weight=difference_weight)
    return _recipe(
        "adan", rule, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


@shared(*hyperparameters.NAMES)
def adopt(
    learning_rate: optax.ScalarOrSchedule,
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
    weight_decay: Hyper | Decay | None = None,
    mask: Mask | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""ADOPT: Adam in another order, which converges with any b2.

    .. math:: m_t = \beta_1 m_{t-1} + (1 - \beta_1) \,
        \mathrm{clip}\left( g_t / \max(\sqrt{v_{t-1}}, \varepsilon), (t-1)^{1/4} \right)

    The first step moves nothing.

    Args (beside the shared ones):
      use_clipping: False to leave the clip out.
      clip_value_fn: the bound as a function of the step, from 0; None for its fourth root.

    Example:
      >>> import adamx
      >>> opt = adamx.adopt(1e-3)

    References:
      Taniguchi et al., `ADOPT <https://arxiv.org/abs/2411.02853>`_, 2024.
    """
    rule = rules.adopt(
        b1, b2, eps, nesterov=nesterov, use_clipping=use_clipping, clip_value_fn=clip_value_fn
    )
    return _recipe(
        "adopt", rule, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )


def _recipe(
    name: str,
    rule: Rule,
    learning_rate: Hyper | None,
    storage: StorageLike | None,
    mu_dtype: DTypeLike | None,
    nu_dtype: DTypeLike | None,
    weight_decay: Hyper | Decay | None,
    mask: Mask | None,
    landing: LandingLike,
    *between: optax.GradientTransformation,
) -> Optimizer:
    """The one chain behind all recipes: penalty, rule, decay, extras, rate, decay apart from it."""
    if mask is not None and weight_decay is None:
        raise ValueError("`mask` says which leaves decay: give `weight_decay` too")
    parts: dict[str, list[optax.GradientTransformation]] = {
        "before": [],
        "between": [],
        "after": [],
    }
    if weight_decay is not None:
        chosen = decays.as_decay(weight_decay)
        hyperparameters.check(weight_decay=chosen.strength)
        parts[chosen.place] = [decays.pull(chosen, mask, learning_rate)]
    links = [
        *parts["before"],
        scale_by(rule._replace(name=name), choose(storage, mu_dtype, nu_dtype)),
        *parts["between"],
        *between,
        descend(learning_rate),
        *parts["after"],
    ]
    names = (*rule.hyper, "learning_rate", "weight_decay", "step_scale")
    return compiled(_chain(name, links, choose_landing(landing)), names)


def _chain(name: str, links: list[optax.GradientTransformation], landing: Landing) -> Optimizer:
    """The links and their landing, with an error that names the recipe where the state is not its
    own."""
    whole = ending(links, landing)
    parts = len(links) + (not callable(landing))

    def update(updates, state, params=None, **extra):
        found = len(state) if isinstance(state, tuple | list) else None
        if found != parts:
            got = type(state).__name__ + ("" if found is None else f" of {found}")
            raise ValueError(
                f"{name}: the state should be a tuple of {parts} parts, as `init` makes it; "
                f"got {got}"
            )
        return whole.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(whole.init, update)
