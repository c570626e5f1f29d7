# SPDX-License-Identifier: Apache-2.0
"""StableAdamW: Wortsman et al., 2023, arXiv 2304.13013. AdamW that steps less after a surprise.

Where gradients have outgrown their mean square, all of the leaf's step, its decay included, is
divided by the root mean square of g / sqrt(v), as in Adafactor. The rule's formula makes a pair of
the direction and of |g| / sqrt(v), of which `Stable` takes the norm.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from adamx.core import norms, paths, shards
from adamx.core.arithmetic import magnitude, ratio, root, times
from adamx.core.compiled import Change, Link, compiled
from adamx.core.hyperparameters import Hyper
from adamx.core.links import Inside
from adamx.core.norms import mapped_axes
from adamx.core.per_leaf import leafwise
from adamx.core.rule import Rule
from adamx.core.values import bind, value
from adamx.landing import LandingLike, Nearest
from adamx.moments.scale_by import ScaleBy
from adamx.optimizers.adam import formula as adams
from adamx.optimizers.adam import rule, scale_by_adam
from adamx.optimizers.recipe import Optimizer, chained, recipe
from adamx.storage import StorageLike, choose
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["scale_by_stable_adam", "stable_adamw"]


def formula(g, mu, nu, *, av, eps, **scalars):
    u, moments = adams(g, mu, nu, av=av, eps=eps, **scalars, eps_mode="outside")
    bottom = jnp.maximum(root(av * moments["nu"]), eps)
    return (u, ratio(magnitude(g), bottom)), moments


def paired(b1: Hyper, b2: Hyper, eps: Hyper, eps_root: Hyper) -> Rule:
    """Adam's rule, which makes a pair of its direction and |g| / max(sqrt(v), eps)."""
    adam = rule(b1, b2, eps, eps_root)
    return dataclasses.replace(adam, name="stable_adam", formula=formula)


@value
class Stable:
    """A rule of pairs and the decay behind it as one link, divided by the pairs' norm.

    Attributes:
      rule: makes the pairs.
      decays: the links behind it, if any.
      axis_name: the mapped axes along which leaves are sharded.
      changes: what is made of the directions, in order.
    """

    rule: ScaleBy
    decays: tuple[Link, ...] = ()
    axis_name: tuple[str, ...] | None = None
    changes: tuple[Change, ...] = ()

    def init(self, params: optax.Params) -> Any:
        held = self.rule.init(params)
        return (held, *(link.init(params) for link in self.decays)) if self.decays else held

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        held, *rest = state if self.decays else (state,)
        leaves, treedef = paths.flatten(updates)
        both, held = self.rule.update(updates, held, params, **extra)
        pairs = treedef.flatten_up_to(both)
        steps = treedef.unflatten([u for u, _ in pairs])
        for change in self.changes:
            steps = change(steps, updates)
        after = []
        for link, before in zip(self.decays, rest, strict=True):
            steps, now = link.update(steps, before, params, **extra)
            after.append(now)
        rows = zip(leaves, treedef.flatten_up_to(steps), pairs, strict=True)
        steps = [self._calmed(paths.name(path), u, x) for (path, _), u, (_, x) in rows]
        return treedef.unflatten(steps), (held, *after) if self.decays else held

    def inside(self) -> list[Inside]:
        """The links, for tools that look into optimizers."""
        links = (self.rule, *self.decays)
        return [Inside((i,) if self.decays else (), link) for i, link in enumerate(links)]

    def modified(self, change: Change) -> "Stable":
        """The link with its directions changed before they decay."""
        return dataclasses.replace(self, changes=(*self.changes, change))

    def _calmed(self, name: str, u: jax.Array, x: jax.Array) -> jax.Array:
        size = max(1, mapped_axes.size(name, x, self.axis_name))
        return _calmed((u, shards.masked(name, x)), {}, size, self.axis_name)


@leafwise
def _calmed(arrays: tuple[jax.Array, jax.Array], scalars: Any, size: int, axis: Any) -> jax.Array:
    u, x = arrays
    rms = norms.leaf_norm(x, axis_name=axis) / math.sqrt(size)
    return times(1 / jnp.maximum(1, rms), u)


def scale_by_stable_adam(
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    eps: Hyper = 1e-6,
    eps_root: Hyper = 0.0,
    *,
    axis_name: str | tuple[str, ...] | None = None,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.stable_adamw`, with Adam's own state.

    Args:
      b1, b2, eps, eps_root, axis_name, mu_dtype, nu_dtype, storage: as those of `stable_adamw`.
    """
    pairs = paired(b1, b2, eps, eps_root)
    scale = ScaleBy(pairs, choose(storage, mu_dtype, nu_dtype))
    link = Stable(scale, axis_name=mapped_axes.names(axis_name))
    return compiled(Nearest(link), pairs.hyper, pairs.hyper.values())


@recipe(scale_by_adam, b2=0.99, eps=1e-6)
def stable_adamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    eps: Hyper = 1e-6,
    eps_root: Hyper = 0.0,
    weight_decay: Hyper | Decay | None = 1e-2,
    mask: Mask | None = None,
    *,
    axis_name: str | tuple[str, ...] | None = None,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""StableAdamW: AdamW whose leaves step less where gradients outgrow their mean square.

    .. math:: p \leftarrow p - \frac{\alpha}{\max(1, r)} \left( \frac{\hat m_t}
        {\sqrt{\hat v_t} + \varepsilon} + \lambda p \right), \quad
        r^2 = \mathrm{mean} \left( g_t^2 / \max(\hat v_t, \varepsilon^2) \right)

    The mean is over a leaf. For: it removes the loss spikes of vision-language models of up to a
    billion parameters, where clipping by the global norm helps less (the paper); ModernBERT trains
    with it. Against: where no spikes are, it is AdamW.

    Args:
      axis_name: The mapped axis along which leaves are sharded, if they are.

    Example:
      >>> import adamx
      >>> opt = adamx.stable_adamw(1e-3, weight_decay=0.1)

    References:
      Wortsman et al., `Stable and Low-precision Training for Large-scale Vision-Language Models
      <https://arxiv.org/abs/2304.13013>`_, 2023.
    """
    return chained(
        "stable_adamw",
        paired(b1, b2, eps, eps_root),
        learning_rate,
        storage,
        mu_dtype,
        nu_dtype,
        weight_decay,
        mask,
        landing,
        joined=bind(Stable, axis_name=mapped_axes.names(axis_name)),
    )
