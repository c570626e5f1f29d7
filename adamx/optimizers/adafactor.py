# SPDX-License-Identifier: Apache-2.0
"""Adafactor: Shazeer & Stern, 2018, arXiv 1804.04235. Mean squares by rows and columns."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike, DTypeLike

from adamx.core import hyperparameters
from adamx.core.arithmetic import weights
from adamx.core.compiled import Link, compiled
from adamx.core.hyperparameters import Hyper
from adamx.core.values import bind, value
from adamx.landing import Ended, LandingLike, Nearest
from adamx.landing import choose as choose_landing
from adamx.moments.ema import ema
from adamx.moments.factored import Axes, Shape
from adamx.moments.factored_rms import FactoredRms, square_rule
from adamx.moments.scale_by import ScaleBy
from adamx.optimizers.recipe import Chain, Optimizer, recipe
from adamx.storage import StorageLike, choose
from adamx.transforms.clipping import clip_by_block_rms
from adamx.transforms.learning_rate import Descend
from adamx.transforms.parameter_rms import ScaleByParameterRms
from adamx.transforms.weight_decay import Decay, Mask, as_decay, pull

__all__ = ["adafactor", "scale_by_factored_rms"]


def power_decay(i: ArrayLike, exponent: ArrayLike = 0.8) -> jax.Array:
    """The paper's rate of forgetting at step `i`, which counts from 0: `1 - (i + 1)^-exponent`."""
    return 1.0 - jnp.asarray(i + 1, jnp.float32) ** jnp.negative(exponent)


def scalars(t, *, names, decay_rate_fn, **hyper):
    decay_rate, offset, eps = (hyper[name] for name in names)
    now = jnp.maximum(t - offset, 1)  # an offset beyond the count would make NaN of it
    if decay_rate_fn is power_decay:
        c = now**-decay_rate
        return {"b": 1 - c, "c": c, "eps": eps}
    b, c = weights(decay_rate_fn(now - 1, decay_rate), t)
    return {"b": b, "c": c, "eps": eps}


def longest(shape: Shape, *, factored: bool, least: int) -> Axes | None:
    """The two longest dimensions, as Optax orders them, if both are at least `least` long."""
    if not factored or len(shape) < 2:
        return None
    order = np.argsort(shape)
    return (int(order[-2]), int(order[-1])) if shape[order[-2]] >= least else None


def _factored(
    hyper: dict[str, Hyper],
    factored: bool,
    least: int,
    decay_rate_fn: Callable[[ArrayLike, ArrayLike], ArrayLike] = power_decay,
) -> FactoredRms:
    """The link; `hyper` are the decay rate, the offset and epsilon, by the caller's names."""
    hyperparameters.check(**hyper)
    hyperparameters.check_count(min_dim_size_to_factor=least)
    at = bind(scalars, names=tuple(hyper), decay_rate_fn=decay_rate_fn)
    rule = square_rule("adafactor", hyper, at)
    return FactoredRms(rule, bind(longest, factored=factored, least=least))


def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: Hyper = 0.8,
    step_offset: Hyper = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: Hyper = 1e-30,
    decay_rate_fn: Callable[[ArrayLike, ArrayLike], ArrayLike] = power_decay,
) -> Optimizer:
    r"""Gradients over the root of their mean square, which is kept by rows and columns.

    .. math:: \beta_t = 1 - t^{-0.8}, \quad r \leftarrow \beta_t r + (1 - \beta_t) \,
        \mathrm{mean}_j (g^2 + \varepsilon), \quad c \leftarrow \dots, \quad
        u_{ij} = g_{ij} / \sqrt{r_i c_j / \mathrm{mean}(r)}

    Args:
      factored: whether to factor at all.
      decay_rate: the exponent 0.8.
      step_offset: the step at which counting starts again, for fine-tuning.
      min_dim_size_to_factor: leaves whose second longest dimension is shorter are not factored.
      epsilon: added to the square of each gradient.
      decay_rate_fn: from the step, which counts from 0, and `decay_rate` to the rate of forgetting.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> link = adamx.scale_by_factored_rms(min_dim_size_to_factor=2)
      >>> print(link.update(jnp.full((2, 3), -5.0), link.init(jnp.ones((2, 3))))[0])
      [[-1. -1. -1.]
       [-1. -1. -1.]]
    """
    hyper = {"decay_rate": decay_rate, "step_offset": step_offset, "epsilon": epsilon}
    link = _factored(hyper, factored, min_dim_size_to_factor, decay_rate_fn)
    # What a function of the caller's reads may change, as with a schedule.
    read = [*hyper.values(), *([decay_rate_fn] if decay_rate_fn != power_decay else [])]
    return compiled(Nearest(link), hyper, read)


@recipe(scale_by_factored_rms, elementwise=False)
def adafactor(
    learning_rate: optax.ScalarOrSchedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: Hyper = 0.8,
    decay_offset: Hyper = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Hyper | None = 1.0,
    momentum: Hyper | None = None,
    dtype_momentum: DTypeLike = jnp.float32,
    weight_decay_rate: Hyper | None = None,
    eps: Hyper = 1e-30,
    factored: bool = True,
    weight_decay_mask: Mask | None = None,
    *,
    weight_decay: Hyper | Decay | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Adafactor: the mean square of a matrix by its rows and columns, and steps relative to it.

    .. math:: u = g / \sqrt{r c^\top / \mathrm{mean}(r)}, \quad
        p \leftarrow p - \alpha_t \max(10^{-3}, \mathrm{RMS}(p)) \, u / \max(1, \mathrm{RMS}(u))

    For: T5 was trained with it, and Zhao et al. (arXiv 2407.07972) find it with momentum level with
    Adam on language models. Against: without momentum it needs warm-up and its clipping to be
    stable, and steps relative to the parameters need a rate of their own.

    Means need whole rows and columns. Under `adamx.parallel` they are completed over the shards;
    in a `shard_map` of your own update within the plan of `adamx.parallel.zero`.

    Args:
      min_dim_size_to_factor: leaves whose second longest dimension is shorter are not factored.
      decay_rate: squares forget at rate `1 - t^-decay_rate`.
      decay_offset: the step at which t starts again at 1, for fine-tuning.
      multiply_by_parameter_scale: whether steps are relative to their parameters.
      clipping_threshold: the largest root mean square of a leaf's direction; None for no limit.
      momentum: how slowly a mean of steps forgets; None for steps without a mean.
      dtype_momentum: the dtype of that mean.
      weight_decay_rate: decay that the learning rate does not multiply, as in Optax.
      eps: added to the square of each gradient.
      factored: whether to factor at all.
      weight_decay_mask: the leaves that decay, for both kinds, as `mask` of `adamx.adamw`.
      weight_decay: decay times the learning rate, as in AdamW, or one of `adamx.decay`.
      storage: how the momentum is stored, in place of its dtype; `"int8"` is one byte.

    Example:
      >>> import adamx, jax, jax.numpy as jnp
      >>> opt = adamx.adafactor(1e-2, momentum=0.9, storage="int8", weight_decay=0.1)
      >>> params = {"kernel": jax.ShapeDtypeStruct((4096, 4096), jnp.bfloat16)}
      >>> print(f"{adamx.nbytes(opt, params).per_parameter.moments:.3f}")
      1.002

    References:
      Shazeer and Stern, `Adafactor <https://arxiv.org/abs/1804.04235>`_, 2018.
    """
    if storage is not None and momentum is None:
        raise ValueError("`storage` is of the momentum: give `momentum` too, or leave it out")
    own = {"decay_rate": decay_rate, "decay_offset": decay_offset, "eps": eps}
    link = _factored(own, factored, min_dim_size_to_factor)
    links: dict[str, Link | None] = {"square": link}
    hyper = [*own.values(), learning_rate, momentum, clipping_threshold]
    if clipping_threshold is not None:
        links["clip"] = clip_by_block_rms(clipping_threshold)
    if learning_rate is not None:
        links["rate"] = Descend(learning_rate, flip_sign=False)
    if multiply_by_parameter_scale:
        links["scale"] = ScaleByParameterRms()
    if momentum is not None:
        hyperparameters.check(momentum=momentum)
        kept = choose(storage, None if storage is not None else dtype_momentum)
        links["mean"] = ScaleBy(ema("adafactor", "momentum", momentum), kept)
    before, between, after = _decays(
        learning_rate, weight_decay, weight_decay_rate, weight_decay_mask, hyper
    )
    chain = (*before, *links.values(), *between, Downhill(), *after)
    whole = Chain("adafactor", Ended(chain, choose_landing(landing)))
    names = (*own, "momentum", "learning_rate", "weight_decay", "step_scale")
    return compiled(whole, names, hyper)


@value
class Downhill:
    """Changes the sign of updates."""

    def init(self, params: optax.Params) -> Any:
        return optax.EmptyState()

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return jax.tree.map(jnp.negative, updates), state


def _decays(
    rate: Hyper | None,
    weight_decay: Hyper | Decay | None,
    weight_decay_rate: Hyper | None,
    mask: Mask | None,
    hyper: list[Any],
) -> tuple[list[Link], list[Link], list[Link]]:
    """The decay as a link before the square, before the sign or after it."""
    if weight_decay is None and weight_decay_rate is None:
        return [], [], []
    if weight_decay is not None and weight_decay_rate is not None:
        raise ValueError("give either `weight_decay` or `weight_decay_rate`, not both")
    if weight_decay is None:
        hyperparameters.check(weight_decay_rate=weight_decay_rate)
        decay = as_decay(weight_decay_rate)  # pyright: ignore[reportArgumentType]
    else:
        decay = as_decay(weight_decay)
        hyperparameters.check(weight_decay=decay.strength)
        if decay.place == "between":
            decay = _at_the_rate(decay, rate)
    hyper.append(decay.strength)
    link = [pull(decay, mask, rate)]
    return {"before": (link, [], []), "between": ([], link, []), "after": ([], [], link)}[
        decay.place
    ]


def _at_the_rate(decay: Decay, rate: Hyper | None) -> Decay:
    """A decay that the chain multiplies by the rate, for a place behind the rate."""
    if rate is None:
        raise ValueError(
            "`weight_decay` is multiplied by the learning rate: give `learning_rate` too, or "
            "`weight_decay_rate`"
        )
    if decay.relative:
        raise ValueError("`weight_decay` of adafactor must not be `decay.corrected`")
    return decay._replace(relative=True, peak=1.0)
