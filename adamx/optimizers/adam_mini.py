# SPDX-License-Identifier: Apache-2.0
"""Adam-mini: Zhang et al., 2024, arXiv 2406.16793. Adam with one mean square for a whole block."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamx.core import dtypes, hyperparameters, paths, random_bits, shards
from adamx.core.arithmetic import abs_sq, correction, lerp, ratio, root, times, weights
from adamx.core.block_means import Blocks, beside, blank, block_means
from adamx.core.compiled import compiled
from adamx.core.hyperparameters import Hyper
from adamx.core.per_leaf import leafwise
from adamx.core.rows import check_floating
from adamx.core.rule import Kind, Rule
from adamx.core.values import value
from adamx.landing import LandingLike, Nearest
from adamx.moments.blocks import AxisOf, Heads, Partition, partition
from adamx.moments.factored import held
from adamx.moments.layout import Layout
from adamx.moments.scalars import Scalars
from adamx.moments.scale_by import static_storage
from adamx.optimizers.recipe import Optimizer, around, recipe
from adamx.storage import Choice, Storage, StorageLike, block_relative, choose
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["AdamMiniState", "adam_mini", "scale_by_adam_mini"]

_MEAN: dict[str, Kind] = {"mu": "signed"}


class AdamMiniState(NamedTuple):
    """The state of Adam-mini.

    Attributes:
      count: how many steps were taken.
      mu: the means of gradients, as `storage` has it.
      nu: the mean squares of blocks: an array of as many dimensions as the parameter, whose sizes
        are the numbers of blocks.
    """

    count: jax.Array
    mu: Any
    nu: Any


def formula(g, mu, nu, *, b1, c1, b2, c2, am, av, eps, blocks, name):
    mu = lerp(mu, g, b1, c1)
    nu = lerp(nu, _means(abs_sq(g), blocks, name), b2, c2)
    u = ratio(times(am, mu), _beside(root(av * nu), blocks, g, name), eps)
    return u, {"mu": mu, "nu": nu}


def scalars(t, b1, b2, eps):
    (b1, c1), (b2, c2) = weights(b1, t), weights(b2, t)
    am, av = 1 / correction(c1, t), 1 / correction(c2, t)
    return {"b1": b1, "c1": c1, "b2": b2, "c2": c2, "am": am, "av": av, "eps": eps}


def scale_by_adam_mini(
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    *,
    heads: Heads | None = None,
    blocks: AxisOf | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.adam_mini`."""
    link = _link(b1, b2, eps, heads, blocks, storage)
    return compiled(Nearest(link), link.rule.hyper, link.rule.hyper.values())


@recipe(scale_by_adam_mini, elementwise=False)
def adam_mini(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper | Decay | None = 0.0,
    mask: Mask | None = None,
    *,
    heads: Heads | None = None,
    blocks: AxisOf | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""Adam-mini: AdamW in which all elements of a block share one mean square.

    .. math:: v_b \leftarrow \beta_2 v_b + (1 - \beta_2) \, \mathrm{mean}_{i \in b} \, g_i^2, \quad
        u_i = \hat m_i / (\sqrt{\hat v_b} + \varepsilon)

    Blocks are parts of a model whose curvature is alike: a token's row of an embedding, a head of a
    query or key (tell which leaves these are), a neuron's weights in other matrices, any other leaf
    as a whole. With the mean in `"int8"` all of the state is one byte per parameter.

    For: the paper matches AdamW on language models up to 13 billion parameters, at AdamW's own
    rates. Against: with whole tensors as blocks its larger runs are unstable, so queries, keys and
    embeddings have to be told apart.

    Args:
      heads: which leaves have heads: from path patterns to the number of heads, or to that and the
        dimension along which they lie. By default that is the last one, of three or more dimensions
        the last but one, as in Flax.
      blocks: for other leaves, from path patterns to the dimension along which each index is a
        block, or None for one block. What no pattern matches, or without it, has `{"*embed*": 0}`,
        then the last dimension of matrices (Flax's kernels; those of Equinox and torch need 0).
      storage: how the mean is stored. In `"int8"` and `"int4"` it is one byte, relative to the root
        of its block.

    Example:
      >>> import adamx, jax, jax.numpy as jnp
      >>> opt = adamx.adam_mini(1e-3, heads={"*/query|*/key": 12}, storage="int8")
      >>> params = {"attention": {"query": jnp.ones((768, 768)), "key": jnp.ones((768, 12, 64))}}
      >>> jax.tree.map(jnp.shape, opt.init(params)[0].nu["attention"])
      {'key': (1, 12, 1), 'query': (1, 12)}

    References:
      Zhang et al., `Adam-mini: Use Fewer Learning Rates To Gain More
      <https://arxiv.org/abs/2406.16793>`_, 2024.
    """
    link = _link(b1, b2, eps, heads, blocks, storage)
    return around(link, "adam_mini", link.rule.hyper, learning_rate, weight_decay, mask, landing)


def _link(
    b1: Hyper,
    b2: Hyper,
    eps: Hyper,
    heads: Heads | None,
    blocks: AxisOf | None,
    storage: StorageLike | None,
) -> "AdamMini":
    hyper = hyperparameters.checked(b1=b1, b2=b2, eps=eps)
    kinds: dict[str, Kind] = {**_MEAN, "nu": "squared"}
    rule = Rule("adam_mini", AdamMiniState, kinds, hyper, scalars, formula)
    return AdamMini(rule, choose(storage), partition(heads, blocks))


@value
class AdamMini:
    """The link: blocks by path and shape, the mean in any storage."""

    rule: Rule
    choice: Choice
    partition: Partition

    def init(self, params: optax.Params) -> AdamMiniState:
        leaves, treedef = paths.flatten(params)
        paths.check_used("`storage`", self.choice.patterns, params)
        self.partition.check_used(params)
        stored = []
        for path, leaf in leaves:
            name = paths.name(path)
            check_floating("adam_mini", name, "parameter", leaf)
            whole = shards.whole(name, jnp.shape(leaf))
            blocks, dtype = self._blocks(name, whole), dtypes.working(dtypes.of(leaf))
            real = dtypes.real(dtype)
            alone = blocks is None
            nu = jnp.full_like(leaf, 0, dtype=real) if alone else blank(leaf, blocks, real)
            stored.append({**self.choice.of(name, whole).init(leaf, _MEAN, {}), "nu": nu})
        return self._layout.state(jnp.zeros([], jnp.int32), stored, treedef)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        leaves, treedef = paths.flatten(updates)
        names = [paths.name(path) for path, _ in leaves]
        count, stored = self._layout.stored(state, updates, treedef)
        parts = [shards.part(n, jnp.shape(g)) for n, (_, g) in zip(names, leaves, strict=True)]
        wholes = [p.whole or jnp.shape(g) for p, (_, g) in zip(parts, leaves, strict=True)]
        storages = [self.choice.of(*leaf) for leaf in zip(names, wholes, strict=True)]
        noise = random_bits.of_leaves([storage.seed for storage in storages], count, names)
        known, directions, new = Scalars(self.rule, count, extra), [], []
        for i, (name, (_, g)) in enumerate(zip(names, leaves, strict=True)):
            blocks = self._blocks(name, wholes[i])
            self._check(name, g, stored[i], storages[i], blocks)
            dtype = dtypes.working(dtypes.of(g), *_floats(stored[i]))
            arrays = (g, stored[i], noise[i], parts[i].first)
            static = (static_storage(storages[i]), dtype, blocks, parts[i].whole)
            name = name if shards.axis_name() else ""  # leaves of one shape share their program
            direction, held = _step(arrays, known[dtypes.real(dtype)], *static, name)
            directions.append(direction)
            new.append(held)
        return treedef.unflatten(directions), self._layout.state(known.step, new, treedef)

    def _blocks(self, name: str, whole: tuple[int, ...]) -> Blocks | None:
        """The blocks of a leaf; None if each element is one: its square is stored like the leaf."""
        found = self.partition.of(name, whole)
        return None if found == whole else found

    @property
    def _layout(self) -> Layout:
        return Layout(self.rule, ("mu", "nu"), True, "")

    def _check(
        self, name: str, g: Any, stored: dict, storage: Storage, blocks: Blocks | None
    ) -> None:
        check_floating("adam_mini", name, "gradient", g)
        local = jnp.shape(g)
        if stored["mu"].shape != local:
            raise ValueError(
                f"{name}: gradient has shape {local}, the state's `mu` has {stored['mu'].shape}"
            )
        wanted = local if blocks is None else blocks
        if stored["nu"].shape != wanted:
            raise ValueError(
                f"{name}: {wanted} blocks, the state's `nu` has shape {stored['nu'].shape}: it was "
                "made with other `heads` or `blocks`"
            )
        complaint = storage.complaint({"mu": stored["mu"]}, _MEAN, dtypes.of(g))
        if complaint:
            raise TypeError(f"{name}: {complaint} (adam_mini)")


def _floats(stored: dict[str, jax.Array]) -> list[Any]:
    return [x.dtype for x in stored.values() if jnp.issubdtype(x.dtype, jnp.inexact)]


@leafwise
def _step(
    arrays: tuple,
    now: dict[str, Any],
    storage: Storage,
    dtype: Any,
    blocks: Blocks | None,
    whole: tuple[int, ...] | None,
    name: str,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Decode the mean, one formula, encode."""
    g, stored, words, first = arrays
    mu, nu = stored["mu"], stored["nu"].astype(dtypes.real(dtype))
    count = math.prod(whole or mu.shape)
    size = 1 if blocks is None else max(1, count // max(1, math.prod(blocks)))
    is_code = jnp.issubdtype(mu.dtype, jnp.integer)
    g = held(jnp.asarray(g).astype(dtype))
    if is_code:
        mean = block_relative.decode(mu, _beside(root(nu), blocks, g, name), size)
    else:
        mean = storage.decode({"mu": mu}, _MEAN)["mu"]
    direction, new = formula(g, mean.astype(dtype), nu, **now, blocks=blocks, name=name)
    mean, nu = new["mu"], new["nu"]
    key: Any = None if words is None else random_bits.Key(words, whole, first)
    kept = nu.astype(stored["nu"].dtype)
    if is_code:
        mu = block_relative.encode(mean, _beside(root(kept), blocks, g, name), size, key)
    else:
        mu = storage.encode({"mu": mean}, _MEAN, {"mu": mu}, key)["mu"]
    return direction, {"mu": mu, "nu": kept}


def _means(x: jax.Array, blocks: Blocks | None, name: str) -> jax.Array:
    return x if blocks is None else block_means(x, blocks, name)


def _beside(means: jax.Array, blocks: Blocks | None, x: jax.Array, name: str) -> jax.Array:
    return means if blocks is None else beside(means, blocks, x, name)
