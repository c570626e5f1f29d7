# SPDX-License-Identifier: Apache-2.0
"""CAME: Luo et al., 2023, arXiv 2307.02047. Adafactor, with steps in proportion to confidence."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from adamx.core import hyperparameters
from adamx.core.arithmetic import weights
from adamx.core.compiled import compiled
from adamx.core.hyperparameters import Hyper
from adamx.core.links import Inside
from adamx.core.rows import check_state
from adamx.core.rule import Rule
from adamx.core.values import bind, value
from adamx.landing import LandingLike, Nearest
from adamx.moments.ema import ema
from adamx.moments.factored import Axes, Shape
from adamx.moments.factored_rms import FactoredRms, square_rule
from adamx.moments.scale_by import ScaleBy
from adamx.optimizers.recipe import Optimizer, around, recipe
from adamx.storage import StorageLike, choose
from adamx.transforms.clipping import clip_by_block_rms
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["CameState", "came", "scale_by_came"]


class CameState(NamedTuple):
    """The state of CAME.

    Attributes:
      square: the mean squares of gradients, factored.
      mean: the mean of clipped directions, as `storage` has it.
      confidence: the mean squares of their distances from the mean, factored.
    """

    square: optax.FactoredState
    mean: Any
    confidence: optax.FactoredState


def scale_by_came(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    b3: Hyper = 0.9999,
    eps: Hyper = 1e-30,
    eps_confidence: Hyper = 1e-16,
    clipping_threshold: ArrayLike = 1.0,
    *,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.came`."""
    link, own = _link(b1, b2, b3, eps, eps_confidence, clipping_threshold, storage)
    return compiled(Nearest(link), own, [*own.values(), clipping_threshold])


@recipe(scale_by_came, elementwise=False)
def came(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    b3: Hyper = 0.9999,
    eps: Hyper = 1e-30,
    eps_confidence: Hyper = 1e-16,
    clipping_threshold: ArrayLike = 1.0,
    weight_decay: Hyper | Decay | None = 0.0,
    mask: Mask | None = None,
    *,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""CAME: Adafactor with a mean of its steps, larger where this mean has been a good guess.

    .. math:: u = \mathrm{clip}\bigl(g / \sqrt{v}\bigr), \quad
        m \leftarrow \beta_1 m + (1 - \beta_1) u, \quad
        s \leftarrow \beta_3 s + (1 - \beta_3) (u - m)^2, \quad
        p \leftarrow p - \alpha \, m / \sqrt{s}

    Both :math:`v`, the mean square of gradients, and :math:`s` are kept by rows and columns of the
    last two dimensions. Vectors have no :math:`s`, as in the authors' program. No mean is corrected
    for its start at zero.

    For: the paper trains BERT and T5 as well as Adam does in Adafactor's memory. Against: nothing
    divides out the start of :math:`s`, so first steps are some ten times as long: warm up.

    Means need whole rows and columns. Under `adamx.parallel` they are completed over the shards;
    in a `shard_map` of your own update within the plan of `adamx.parallel.zero`.

    Args:
      b1: how slowly the mean of directions forgets, in [0, 1).
      b3: how slowly the confidence forgets, in [0, 1).
      eps: added to the square of each gradient.
      eps_confidence: added to the square of each distance.
      clipping_threshold: the largest root mean square of a leaf's direction.
      storage: how the mean of directions is stored; in `"int8"` all of the state is little more
        than one byte per parameter.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> opt = adamx.came(2e-4, weight_decay=0.01, storage="int8")
      >>> state = opt.init({"kernel": jnp.ones((64, 128))})
      >>> state[0].mean.ema["kernel"].dtype, state[0].confidence.v_row["kernel"].shape
      (dtype('int8'), (64,))

    References:
      Luo et al., `CAME: Confidence-guided Adaptive Memory Efficient Optimization
      <https://arxiv.org/abs/2307.02047>`_, 2023.
    """
    link, own = _link(b1, b2, b3, eps, eps_confidence, clipping_threshold, storage)
    return around(link, "came", own, learning_rate, weight_decay, mask, landing)


def _link(
    b1: Hyper,
    b2: Hyper,
    b3: Hyper,
    eps: Hyper,
    eps_confidence: Hyper,
    threshold: ArrayLike,
    storage: StorageLike | None,
) -> tuple["Came", dict[str, Hyper]]:
    own = hyperparameters.checked(b1=b1, b2=b2, b3=b3, eps=eps, eps_confidence=eps_confidence)
    hyperparameters.check_static(clipping_threshold=threshold)
    link = Came(
        FactoredRms(_squares({"b2": b2, "eps": eps}), last_two),
        clip_by_block_rms(threshold),
        ScaleBy(ema("came", "b1", b1), choose(storage)),
        FactoredRms(
            _squares({"b3": b3, "eps_confidence": eps_confidence}), last_two, all_leaves=False
        ),
    )
    return link, own


@value
class Came:
    """The link: a square, a clip, a mean, and the square of its errors."""

    square: FactoredRms
    clip: optax.GradientTransformationExtraArgs
    mean: ScaleBy
    confidence: FactoredRms

    def init(self, params: optax.Params) -> CameState:
        mean = self.mean.init(params)
        return CameState(self.square.init(params), mean, self.confidence.init(params))

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        check_state("came", state, CameState)
        u, square = self.square.update(updates, state.square, params, **extra)
        u, _ = self.clip.update(u, optax.EmptyState())
        m, mean = self.mean.update(u, state.mean, params, **extra)
        distances = jax.tree.map(jnp.subtract, u, m)
        steps, confidence = self.confidence.divided(m, distances, state.confidence, extra)
        return steps, CameState(square, mean, confidence)

    def inside(self) -> list[Inside]:
        """The links with a state, for tools that look into optimizers."""
        return [Inside((k,), getattr(self, k)) for k in CameState._fields]


def last_two(shape: Shape) -> Axes | None:
    """The last two dimensions: rows are averaged along the last one."""
    return (len(shape) - 2, len(shape) - 1) if len(shape) > 1 else None


def _squares(hyper: dict[str, Hyper]) -> Rule:
    return square_rule("came", hyper, bind(scalars, names=tuple(hyper)))


def scalars(t, *, names, **hyper):
    rate, eps = names
    b, c = weights(hyper[rate], t)
    return {"b": b, "c": c, "eps": hyper[eps]}
