# SPDX-License-Identifier: Apache-2.0
"""SPAM: Huang et al., 2025, arXiv 2501.06842. Adam that forgets now and then, and clips spikes.

The state is Adam's: when moments are reset follows from the count. A gradient is compared with the
mean square before it, which is empty after a reset: its authors' code waits for 20 steps, as ours.
A start is a reset here. In that code steps are whole at the start, and the correction of the means
counts on through resets, so that steps behind a warm-up are up to 2.7 times as long as ours.
"""

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx.core import hyperparameters
from adamx.core.arithmetic import abs_sq, correction, lerp, ratio, root, times, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.rule import Rule
from adamx.landing import LandingLike
from adamx.optimizers.recipe import Optimizer, alone, chained, recipe
from adamx.storage import StorageLike
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["scale_by_spam", "spam"]


def formula(g, mu, nu, *, first, clips, theta, b1, c1, b2, c2, am, av, eps):
    mu, nu = (jnp.where(first > 0, jnp.zeros_like(m), m) for m in (mu, nu))
    g = jnp.where(clips > 0, _clipped(g, theta * nu), g)
    mu = lerp(mu, g, b1, c1)
    nu = lerp(nu, abs_sq(g), b2, c2)
    return ratio(times(am, mu), root(av * nu), eps), {"mu": mu, "nu": nu}


def _clipped(g: jax.Array, most: jax.Array) -> jax.Array:
    """`g`, at most the root of `most` in size. Where that is 0, nothing is known of its size."""
    squares = abs_sq(g)
    spike = (squares > most) & (most > 0)
    gain = root(jnp.where(spike, most, 1) / jnp.where(spike, squares, 1))
    return jnp.where(spike, gain.astype(g.dtype) * g, g)


def scalars(t, b1, b2, eps, theta, reset_every, warmup_steps, clip_after):
    # The step since the last reset. At 3.5 steps between two, none would be its first.
    k = jnp.remainder(t - 1, jnp.floor(reset_every)) + 1
    (b1, c1), (b2, c2) = weights(b1, k), weights(b2, k)
    part = jnp.where(k < warmup_steps, k / jnp.maximum(warmup_steps, 1), 1)
    warm = 0.01 + 0.99 * jnp.sin(jnp.pi / 2 * part) ** 2
    return {
        "first": k == 1,
        "clips": k > clip_after,
        "theta": theta,
        "b1": b1,
        "c1": c1,
        "b2": b2,
        "c2": c2,
        "am": warm / correction(c1, k),
        "av": 1 / correction(c2, k),
        "eps": eps,
    }


def rule(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-6,
    theta: Hyper = 5000.0,
    *,
    reset_every: Hyper = 500,
    warmup_steps: Hyper = 150,
    clip_after: Hyper = 20,
) -> Rule:
    """Adam of the gradients since the last reset, each at most the root of theta mean squares."""
    hyper = {"b1": b1, "b2": b2, "eps": eps, "theta": theta, "reset_every": reset_every}
    hyper |= {"warmup_steps": warmup_steps, "clip_after": clip_after}
    return Rule(
        name="spam",
        state=optax.ScaleByAdamState,
        moments={"mu": "signed", "nu": "squared"},
        hyper=hyperparameters.checked(**hyper),
        at=scalars,
        formula=formula,
    )


def scale_by_spam(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-6,
    theta: Hyper = 5000.0,
    *,
    reset_every: Hyper = 500,
    warmup_steps: Hyper = 150,
    clip_after: Hyper = 20,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.spam`."""
    spam = rule(
        b1,
        b2,
        eps,
        theta,
        reset_every=reset_every,
        warmup_steps=warmup_steps,
        clip_after=clip_after,
    )
    return alone(spam, storage, mu_dtype, nu_dtype)


@recipe(scale_by_spam)
def spam(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-6,
    theta: Hyper = 5000.0,
    weight_decay: Hyper | Decay | None = 0.0,
    mask: Mask | None = None,
    *,
    reset_every: Hyper = 500,
    warmup_steps: Hyper = 150,
    clip_after: Hyper = 20,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""SPAM: AdamW whose moments start anew every 500 steps, and which clips single gradients.

    .. math:: g_t \leftarrow \mathrm{sign}(g_t) \sqrt{\theta \, v_{t-1}}
        \quad \text{where} \quad g_t^2 > \theta \, v_{t-1}

    For: its paper reports lower losses than Adam's from 60 million to a billion parameters, most of
    all in 4 bits. Against: these are runs of its authors, and where no gradient spikes, a reset
    throws away what is known: compare with a clip of the global norm first.

    Args:
      theta: How many mean squares a squared gradient may be. A coordinate whose mean square is 0
        has nothing to compare with, and is not clipped.
      reset_every: How many steps the moments live; of a fraction, the whole part.
      warmup_steps: For how many steps after a reset, and at the start, steps grow, from a
        hundredth, by a cosine.
      clip_after: For how many steps after a reset nothing is clipped.

    Example:
      >>> import adamx
      >>> opt = adamx.spam(1e-3, weight_decay=0.1)

    References:
      Huang et al., `SPAM <https://arxiv.org/abs/2501.06842>`_, 2025.
    """
    r = rule(
        b1,
        b2,
        eps,
        theta,
        reset_every=reset_every,
        warmup_steps=warmup_steps,
        clip_after=clip_after,
    )
    return chained(
        "spam", r, learning_rate, storage, mu_dtype, nu_dtype, weight_decay, mask, landing
    )
