# SPDX-License-Identifier: Apache-2.0
"""Micro-batches folded straight into Adam's moments: no buffer of gradients.

Zhang et al., 2023, arXiv 2305.19982 (AdamA); Wang & Aitchison, 2024, arXiv 2402.18824.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx.core import dtypes
from adamx.core.compiled import Compiled, transformation
from adamx.core.hyperparameters import check_count
from adamx.core.links import Around, Inside
from adamx.core.only_if import only_if
from adamx.core.rule import Rule
from adamx.core.values import parts, value
from adamx.landing import Ended, nearest
from adamx.moments.layout import PackedState
from adamx.moments.scalars import Scalars
from adamx.moments.scale_by import ScaleBy
from adamx.optimizers.adam import formula
from adamx.optimizers.recipe import Chain, Optimizer


class FoldState(NamedTuple):
    """The state of `fold_micro_batches`.

    Attributes:
      micro_step: how many gradients of the next step are in the moments.
      inner: the recipe's own state; its counts are of steps.
    """

    micro_step: jax.Array
    inner: Any


def fold_micro_batches(opt: Optimizer, every: int) -> Optimizer:
    r"""A recipe that steps after `every` gradients, each of which enters its moments at once.

    .. math:: \mu \leftarrow b_1 \mu + (1 - b_1) \tfrac{1}{n} \sum_i g_i, \quad
        \nu \leftarrow b_2 \nu + (1 - b_2) \tfrac{1}{n} \sum_i g_i^2

    No gradient outlives its call, which saves the buffer of `accumulate`. But it is another
    optimizer: the mean of squares is the square of the mean plus the variance of the micro-batches.
    Where noise prevails, steps are up to :math:`\sqrt{n}` times as short as Adam's on the whole
    batch, and the best learning rate is as much larger; where gradients agree, nothing changes. The
    second paper wants just this: settings then stay right when n changes. AdamA's own squares are
    of gradients divided by n, n times smaller: multiply epsilon and the learning rate by
    :math:`\sqrt{n}` for these.

    In the calls between, parameters, decay, schedules and landing stand still, and stored moments
    are averages of the gradients so far, in every storage. What comes before in a chain, such as a
    clip, sees micro-batches.

    Args:
      opt: `adamx.adam`, `adamw` or `lamb`, without `nesterov`, penalties (`decay.l2`, `l1`),
        `cautious` and `grams`. Of other rules the step is no function of two such means.
      every: the number of gradients in a step.

    Returns:
      A transformation whose state is a `FoldState`.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> opt = adamx.fold_micro_batches(adamx.adam(0.1), every=2)
      >>> params, state = jnp.array([1.0]), opt.init(jnp.array([1.0]))
      >>> for g in (5.0, -1.0):
      ...     params, state = adamx.step(opt, params, state, jnp.array([g]))
      >>> print(params, state.inner[0].nu / 0.001)  # of (25 + 1) / 2; Adam on the mean has 4
      [0.94452995] [13.000001]

    References:
      Zhang et al., `Adam Accumulation <https://arxiv.org/abs/2305.19982>`_, 2023; Wang &
      Aitchison, `Batch size invariant Adam <https://arxiv.org/abs/2402.18824>`_, 2024.
    """
    check_count(every=every)
    whole: Any = getattr(getattr(opt, "update", None), "link", None)
    chain: Any = getattr(whole, "link", None)
    if not isinstance(chain, Chain):
        raise ValueError("`opt` must be adamx.adam, adamw or lamb by itself, got something else")
    if chain.changes:
        them = "it" if len(chain.changes) == 1 else "them"
        raise ValueError(
            f"`opt` must be without {' and '.join(chain.changes)}, got {them} around {chain.name}"
        )
    first = chain.links.links[0]
    if not isinstance(first, ScaleBy):
        raise ValueError(f"`opt` must not have a penalty before its rule, got one in {chain.name}")
    if not _folds(first.rule):
        raise ValueError(
            f"`opt` must be adamx.adam, adamw or lamb, without `nesterov`, got {chain.name}"
        )
    return transformation(Compiled(Fold(chain, every), whole.names, whole.shares))


def _folds(rule: Rule) -> bool:
    """Whether a rule's step is Adam's, of two means."""
    return parts(rule.formula)[0] is formula and not parts(rule.at)[1]["nesterov"]


@value
class Fold:
    """The transformation that `fold_micro_batches` builds."""

    chain: Chain
    every: int

    def init(self, params: optax.Params) -> FoldState:
        return FoldState(jnp.zeros([], jnp.int32), self.chain.init(params))

    def update(
        self, updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, FoldState]:
        if not isinstance(state, FoldState):
            raise ValueError(f"the state should be a FoldState, got {type(state).__name__}")
        self.chain._check(state.inner)
        ended: Ended = self.chain.links
        moments, *rest = state.inner
        # A state of a larger `every` may be beyond the last gradient of a step: then this is it.
        micro = jnp.minimum(state.micro_step, self.every - 1)
        directions, moments = self._folded(updates, moments, micro, extra)

        def step(rest: Any) -> tuple[Any, Any]:
            after = Ended(ended.links[1:], ended.landing)
            steps, rest = after.update(directions, rest, params, **extra)
            return _like_plain(steps, updates, params) if ended.landing is nearest else steps, rest

        due = micro + 1 == self.every
        found, rest = only_if(due, step, tuple(rest))
        return found, FoldState(jnp.where(due, 0, micro + 1), (moments, *rest))

    def inside(self) -> list[Inside]:
        """The recipe, for tools that look into optimizers."""
        return [Inside(("inner",), self.chain, Around("adamx.fold_micro_batches", "wrapper", self))]

    def _folded(self, updates: Any, state: Any, micro: Any, extra: Any) -> tuple[Any, Any]:
        """The directions and the moments with one gradient more; noise differs in each call."""
        first: ScaleBy = self.chain.links.links[0]
        name = "count" if isinstance(state, PackedState) else first.rule.count
        count = getattr(state, name, None)
        if count is None:
            return first.update(updates, state, **extra)  # which says what is wrong with the state
        calls = state._replace(**{name: count * self.every + micro})
        tree = first.opened(updates, calls, extra)
        scalars = Folded(first.rule, count, extra, micro, self.every)
        directions, new = first.stepped(tree._replace(scalars=scalars))
        due = micro + 1 == self.every
        return directions, new._replace(**{name: jnp.where(due, scalars.step, count)})


class Folded(Scalars):
    """The scalars of a step with which gradient `micro` (from 0) of `every` enters the averages.

    With s_i = b + (1 - b) i / n, an average with rate s_(i-1) / s_i ends, after n gradients, as
    `b` times the old one plus (1 - b) times their mean.
    """

    def __init__(self, rule: Rule, count: Any, extra: Any, micro: jax.Array, every: int):
        super().__init__(rule, count, extra)
        self.micro, self.every = micro, every

    def __missing__(self, dtype: jnp.dtype) -> dict[str, jax.Array]:
        found = super().__missing__(dtype)
        for b, c in (("b1", "c1"), ("b2", "c2")):
            part = jnp.asarray(found[c] / self.every).astype(dtype)
            before = found[b] + part * self.micro.astype(dtype)
            found[b], found[c] = before / (before + part), part / (before + part)
        return found


def _like_plain(steps: Any, updates: Any, params: Any) -> Any:
    """Steps in the dtype that the recipe by itself gives them."""
    params = updates if params is None else params
    return jax.tree.map(
        lambda u, g, p: dtypes.cast(u, dtypes.wider(dtypes.of(g), dtypes.of(p))),
        steps,
        updates,
        params,
    )
