# SPDX-License-Identifier: Apache-2.0
"""From a rule on one array to a gradient transformation on a tree.

The only place where a leaf's moments are decoded, updated by the rule and encoded again. Formulas
belong to `optimizers/`, bit layouts to `storage/`, the dtype of an update to `landing/`.
"""

import dataclasses
import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from adamx import kernels
from adamx.core import dtypes, paths, random_bits, shards
from adamx.core.arithmetic import saturated
from adamx.core.compiled import Change, compiled
from adamx.core.per_leaf import leafwise, split
from adamx.core.rows import check_floating
from adamx.core.rule import Rule, is_signed
from adamx.core.values import parts, value
from adamx.landing import Nearest
from adamx.moments.described import described
from adamx.moments.layout import Layout
from adamx.moments.modified import Modified
from adamx.moments.scalars import Scalars
from adamx.storage import Choice, Storage, StorageLike, choose, recognised


def scale_by(
    rule: Rule, storage: StorageLike | Choice | None = None
) -> optax.GradientTransformationExtraArgs:
    """The transformation that replaces gradients by the directions of `rule`.

    Directions point uphill and have no learning rate. They are computed in float32 and cast once,
    to the wider of the gradient's and the parameter's dtype.

    Args:
      rule: one of `adamx.rules`, or a `Rule` of your own.
      storage: how moments are stored: a name, a `Storage`, a table of path patterns, or a function
        of leaf path and shape.

    Returns:
      A transformation whose state is `rule.state`, Optax's own class, or a `PackedState` where
      moments share bytes.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> link = adamx.scale_by(adamx.rules.adam(b1=0.95), storage="int8")
      >>> link.init(jnp.ones(3)).nu.dtype
      dtype('uint8')
    """
    link = ScaleBy(rule, choose(storage))
    return compiled(Nearest(link), rule.hyper, [*rule.hyper.values(), *link.reads])


@value
class ScaleBy:
    """As `scale_by`, for the inside of a recipe: emits at least float32."""

    rule: Rule
    choice: Choice

    def init(self, params: optax.Params) -> Any:
        rule, choice = self.rule, self.choice
        leaves, treedef = paths.flatten(params)
        paths.check_used("`storage`", choice.patterns, params)
        stored, storages = [], []
        for path, leaf in leaves:
            name = paths.name(path)
            check_floating(rule.name, name, "parameter", leaf)
            storages.append(choice.of(name, shards.whole(name, jnp.shape(leaf))))
            stored.append(_first(storages[-1], rule, name, leaf))
        layout = Layout.of(rule, choice.among or storages)
        state = layout.state(jnp.zeros([], jnp.int32), stored, treedef)
        return described(state, rule, choice)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return self.stepped(self.opened(updates, state, extra))

    def stepped(self, tree: "Tree") -> tuple[optax.Updates, Any]:
        """The directions and the state of an opened tree."""
        formula, directions = tree.formula, []
        for i in range(len(tree.gradients)):
            loop, arrays = tree.loop(i), tree.arrays(i)
            static = (formula, static_storage(tree.storages[i]), tree.parts[i].whole)
            if loop is None or not kernels.pays_alone(loop):
                direction, tree.stored[i] = step_leaf(arrays, tree.scalars_of(i), *static)
            else:
                direction, tree.stored[i] = _by_a_loop(loop, arrays, tree.scalars, *static)
            directions.append(direction)
        return tree.treedef.unflatten(directions), tree.closed()

    @property
    def reads(self) -> list[Any]:
        """What the rule's scalars are computed from beside its hyperparameters."""
        return list(parts(self.rule.at)[1].values())

    def modified(self, change: Change) -> Modified:
        """The link with its directions changed."""
        return Modified(self, change)

    def opened(self, updates: optax.Updates, state: Any, extra: dict[str, Any]) -> "Tree":
        """The tree of gradients beside its state, checked, leaf by leaf."""
        rule, choice = self.rule, self.choice
        leaves, treedef = paths.flatten(updates)
        names = [paths.name(path) for path, _ in leaves]
        gradients = [g for _, g in leaves]
        parts = [shards.part(n, jnp.shape(g)) for n, g in zip(names, gradients, strict=True)]
        shapes = [p.whole or jnp.shape(g) for p, g in zip(parts, gradients, strict=True)]
        storages = [choice.of(*leaf) for leaf in zip(names, shapes, strict=True)]
        layout = Layout.of(rule, choice.among or storages)
        count, stored = layout.stored(state, updates, treedef)
        for name, g, arrays, storage in zip(names, gradients, stored, storages, strict=True):
            check_floating(rule.name, name, "gradient", g)
            _check_leaf(rule, name, g, arrays, storage)
        noise = random_bits.of_leaves([storage.seed for storage in storages], count, names)
        scalars = Scalars(rule, count, extra, layout.counters(state))
        return Tree(treedef, names, gradients, parts, storages, stored, noise, scalars, layout)


class Tree(NamedTuple):
    """A tree of gradients and its state, opened: everything that a step needs, leaf by leaf.

    Attributes:
      treedef: the structure of the gradients.
      names, gradients, parts, storages: of each leaf.
      stored: each leaf's stored moments, which a step replaces.
      noise: the words of each leaf's random bits, or None.
      scalars: the rule's scalars at this step.
      layout: puts the moments back into the state.
    """

    treedef: Any
    names: list[str]
    gradients: list[Any]
    parts: list[shards.Part]
    storages: list[Storage]
    stored: list[dict[str, jax.Array]]
    noise: list[random_bits.Words | None]
    scalars: Scalars
    layout: Layout

    @property
    def formula(self) -> Rule:
        """The rule without its hyperparameters, which are in the scalars."""
        return self.scalars.rule.without_hyper()

    def arrays(self, i: int) -> tuple:
        """The arrays of one leaf, for `step_leaf`."""
        return self.gradients[i], self.stored[i], self.noise[i], self.parts[i].first

    def scalars_of(self, i: int) -> dict[str, Any]:
        """The rule's scalars in the dtype that the leaf is computed in."""
        return self.scalars[dtypes.real(_working(self.gradients[i], self.stored[i]))]

    def loop(self, i: int) -> kernels.Loop | None:
        """The loop in C++ for one leaf, if there is one."""
        whole, g = self.parts[i].whole, self.gradients[i]
        return kernels.loop(self.scalars.rule, self.storages[i], self.stored[i], g, whole)

    def closed(self) -> Any:
        """The state after the step."""
        scalars = self.scalars
        return self.layout.state(scalars.step, self.stored, self.treedef, scalars.counters)


def _by_a_loop(
    loop: kernels.Loop, arrays: tuple, scalars: Scalars, rule: Rule, storage: Storage, whole: Any
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`step_leaf` by a loop in C++."""
    g, stored, words, first = arrays
    traced, known = split(scalars[_FLOAT32])
    names = storage.fields(rule.moments)
    moments = tuple(stored[k] for k in names)
    operands = kernels.Operands(None, None, moments, g, words, None, first, traced, scalars.vector)
    direction, *found = kernels.step(operands, loop, _plain, (known, rule, storage, whole))
    return direction, dict(zip(names, found, strict=True))


def _plain(
    operands: kernels.Operands, known: tuple, rule: Rule, storage: Storage, whole: Any
) -> list[jax.Array]:
    _, _, moments, g, words, _, first, traced, _ = operands
    names = storage.fields(rule.moments)
    arrays = (g, dict(zip(names, moments, strict=True)), words, first)
    direction, found = step_leaf(arrays, {**traced, **dict(known)}, rule, storage, whole)
    return [direction, *(found[k] for k in names)]


@leafwise
def step_leaf(
    arrays: tuple,
    scalars: dict[str, Any],
    rule: Rule,
    storage: Storage,
    whole: tuple[int, ...] | None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Decode, one formula, encode."""
    g, stored, words, first = arrays
    dtype = _working(g, stored)
    moments = {
        k: m.astype(dtype if is_signed(rule.moments[k]) else dtypes.real(dtype))
        for k, m in storage.decode(stored, rule.moments).items()
    }
    narrow = any(dtypes.working(a.dtype) not in _DOUBLE for a in stored.values())
    g = saturated(jnp.asarray(g).astype(dtype), jnp.float32 if narrow else dtypes.real(dtype))
    direction, moments = rule.formula(g, **moments, **scalars)
    key: Any = None if words is None else random_bits.Key(words, whole, first)
    stored = storage.encode(moments, rule.moments, stored, key)
    codes = {k: a for k, a in stored.items() if jnp.issubdtype(a.dtype, jnp.integer)}
    return direction, stored | (without_derivative(codes, moments, storage.name) if codes else {})


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def without_derivative(
    codes: dict[str, jax.Array], moments: dict[str, jax.Array], name: str
) -> dict[str, jax.Array]:
    """`codes`, with a warning where someone differentiates `moments`: integers have no tangent."""
    return codes


@without_derivative.defjvp
def _(name: str, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    warnings.warn(
        f"storage {name!r} keeps integers, through which no derivative passes to the next step: "
        "if you differentiate more steps than one, take storage 'float32' or 'bfloat16'",
        stacklevel=2,
    )
    return primals[0], {k: np.zeros(a.shape, jax.dtypes.float0) for k, a in primals[0].items()}


def static_storage(storage: Any) -> Storage:
    """The storage without a seed that may be traced; the noise has it already."""
    known = storage.seed is None or isinstance(storage.seed, int)
    return storage if known else dataclasses.replace(storage, seed=0)


def _working(g: ArrayLike, stored: dict[str, jax.Array]) -> jnp.dtype:
    """The dtype to compute in: the gradient's, widened by complex or double-precision moments."""
    wide = (m.dtype for m in stored.values() if m.dtype in _WIDE)
    return dtypes.working(dtypes.of(g), *wide)


_FLOAT32 = jnp.dtype(jnp.float32)
_DOUBLE = (jnp.float64, jnp.complex128)
_WIDE = (*_DOUBLE, jnp.complex64)


def _first(storage: Storage, rule: Rule, name: str, leaf: Any) -> dict[str, jax.Array]:
    try:
        return storage.init(leaf, rule.moments, rule.start)
    except TypeError as e:
        raise TypeError(f"{name}: {e} ({rule.name})") from e


def _check_leaf(
    rule: Rule, name: str, g: ArrayLike, stored: dict[str, jax.Array], storage: Storage
) -> None:
    for array in stored.values():
        if jnp.shape(array) != jnp.shape(g):
            raise ValueError(
                f"{name}: gradient has shape {jnp.shape(g)}, state has {jnp.shape(array)}"
            )
    complaint = storage.complaint(stored, rule.moments, dtypes.of(g))
    if complaint:
        found = recognised(stored, rule.moments, dtypes.of(g))
        hint = f"; it is stored as {found!r}: `adamx.convert` turns it into {storage.name!r}"
        raise TypeError(f"{name}: {complaint} ({rule.name}){hint if found else ''}")
