# SPDX-License-Identifier: Apache-2.0
"""SOAP as a link: `ScaleBy` of Adam's rule, on gradients in the eigenbasis of their covariances.

`eigenbasis.py` has the functions of one array, `soap.py` the recipe.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from adamx.core import dtypes, hyperparameters, paths, shards
from adamx.core.arithmetic import lerp, weights
from adamx.core.explicit_axes import alike
from adamx.core.hyperparameters import Hyper
from adamx.core.instances import is_hole
from adamx.core.rows import check_floating, check_state, rows
from adamx.core.rule import Rule
from adamx.core.values import value
from adamx.moments.convert import decoded, encoded
from adamx.moments.described import Described
from adamx.moments.find import side
from adamx.moments.scale_by import ScaleBy
from adamx.optimizers import eigenbasis
from adamx.optimizers.eigenbasis import HOLE
from adamx.storage import Choice


class ScaleBySoapState(NamedTuple):
    """The state of SOAP.

    Attributes:
      count: how many gradients it has seen; the direction of the first one is 0.
      moments: the state of Adam, in the eigenbases.
      covariances: for each leaf a tuple with a matrix for each dimension, or
        `optax.MaskedNode()` for a dimension without.
      bases: likewise, their eigenvectors as columns.
    """

    count: jax.Array
    moments: Any
    covariances: Any
    bases: Any


@value
class Soap:
    """SOAP's direction; emits at least float32."""

    name: str
    rule: Rule
    choice: Choice
    shampoo_beta: Hyper | None
    precondition_frequency: int
    max_precond_dim: int

    def __post_init__(self) -> None:
        hyperparameters.check(shampoo_beta=self.shampoo_beta)
        for name in ("precondition_frequency", "max_precond_dim"):
            given = getattr(self, name)
            if not isinstance(given, int) or given < 1:
                raise ValueError(f"`{name}` must be a positive integer, got {given!r}")

    def init(self, params: optax.Params) -> Any:
        leaves, treedef = paths.flatten(params)
        for path, p in leaves:
            check_floating(self.name, paths.name(path), "parameter", p)
        return ScaleBySoapState(
            count=jnp.zeros([], jnp.int32),
            moments=self._adam.init(params),
            covariances=treedef.unflatten([self._squares(p, jnp.zeros_like) for _, p in leaves]),
            bases=treedef.unflatten([self._squares(p, _identity) for _, p in leaves]),
        )

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        check_state(self.name, state, ScaleBySoapState)
        if shards.axis_name() is not None:
            raise ValueError(
                f"{self.name}: parameters are shards over {shards.axis_name()!r} here, and an "
                "eigenbasis needs whole arrays"
            )
        self._adam.opened(updates, state.moments, extra)  # whose errors name a leaf
        traced = {k: x for k, x in extra.items() if isinstance(x, jax.Array)}
        step = functools.partial(self._stepped, {k: x for k, x in extra.items() if k not in traced})
        return alike(step, (updates, state), updates, state, traced)

    def _stepped(
        self, known: dict[str, Any], updates: optax.Updates, state: Any, traced: dict[str, Any]
    ) -> tuple[optax.Updates, Any]:
        extra = {**known, **traced}
        table = rows(self.name, updates, covariances=state.covariances, bases=state.bases)
        bases, old = table.columns["bases"], table.columns["covariances"]
        grads = [dtypes.widen(g) for g in table.gradients]
        turned = [eigenbasis.into(*pair) for pair in zip(grads, bases, strict=True)]
        turned = table.treedef.unflatten(turned)
        steps, moments = self._adam.update(turned, state.moments, None, **extra)
        steps = table.treedef.flatten_up_to(steps)
        is_first = state.count == 0
        steps = [
            jnp.where(is_first, 0, eigenbasis.out_of(*pair))
            for pair in zip(steps, bases, strict=True)
        ]
        moments = jax.tree.map(functools.partial(jnp.where, is_first), state.moments, moments)
        beta = self._beta(state.count, extra)
        new = [_averaged(*row, beta) for row in zip(grads, old, bases, strict=True)]
        bases, moments = self._turned(state.count, new, bases, moments, table.names)
        return table.treedef.unflatten(steps), ScaleBySoapState(
            count=jnp.asarray(optax.safe_increment(state.count)),
            moments=moments,
            covariances=table.treedef.unflatten(new),
            bases=table.treedef.unflatten(bases),
        )

    @property
    def _adam(self) -> ScaleBy:
        return ScaleBy(self.rule, self.choice)

    def _squares(self, p: Any, make: Any) -> tuple[Any, ...]:
        """A matrix for each dimension of `p` that is rotated."""
        dtype, shape = dtypes.working(dtypes.of(p)), jnp.shape(p)
        turns = eigenbasis.rotated_dims(shape, self.max_precond_dim)
        sizes = zip(shape, turns, strict=True)
        return tuple(make(jnp.empty((n, n), dtype)) if turn else HOLE for n, turn in sizes)

    def _beta(self, count: jax.Array, extra: Mapping[str, Any]) -> Any:
        """How slowly covariances forget."""
        if self.shampoo_beta is None:
            return hyperparameters.value_at("b2", self.rule.hyper["b2"], count, extra)
        return hyperparameters.value_at("shampoo_beta", self.shampoo_beta, count, {})

    def _turned(
        self, count: jax.Array, covariances: list[Any], bases: list[Any], moments: Any, names: Any
    ) -> tuple[list[Any], Any]:
        """The bases after this step, and the moments in them.

        The first step finds eigenvectors, every `precondition_frequency`th makes one step of
        orthogonal iteration. Derivatives take bases as given: those of equal eigenvalues have none.
        """
        covariances, bases = lax.stop_gradient((covariances, bases))
        adam = side(Described(moments, self.rule, self.choice), self.rule)

        def as_they_are() -> tuple[list[Any], Any]:
            return bases, moments

        def by_eigh() -> tuple[list[Any], Any]:  # the moments are zero still
            return [_each(eigenbasis.eigenvectors, one) for one in covariances], moments

        def by_qr() -> tuple[list[Any], Any]:
            steps = [
                _each(eigenbasis.power_step, *pair) for pair in zip(covariances, bases, strict=True)
            ]
            new = [_each(lambda pair: pair[0], one) for one in steps]
            orders = [_each(lambda pair: pair[1], one) for one in steps]
            turns = dict(zip(names, zip(bases, new, orders, strict=True), strict=True))
            steps_taken, held = decoded(moments, adam)
            held = [
                row and _in(row, *turns[name]) for name, row in zip(adam.names, held, strict=True)
            ]
            return new, encoded(steps_taken, held, adam, moments)

        due = (count % self.precondition_frequency == 0).astype(jnp.int32)
        which = jnp.where(count == 0, 2, due)
        return lax.switch(which, [as_they_are, by_qr, by_eigh])


def _averaged(g: jax.Array, old: Any, bases: Any, beta: Any) -> tuple[Any, ...]:
    """The covariances after one more gradient."""
    zero = jnp.zeros([], dtypes.real(g.dtype))
    b, c = weights(hyperparameters.exact(beta, zero.dtype), zero)
    return _each(lambda m, n: lerp(m, n, b, c), old, eigenbasis.covariances(g, bases))


def _in(moments: dict[str, Any], before: Any, after: Any, order: Any) -> dict[str, Any]:
    """A leaf's moments in another basis: a mean turns, squares are sorted as the columns were."""
    return {
        "mu": eigenbasis.moved(moments["mu"], before, after),
        "nu": eigenbasis.sorted_along(moments["nu"], order),
    }


def _each(function: Any, *columns: Any) -> tuple[Any, ...]:
    """A function of each dimension's matrices; holes stay holes."""
    rows_ = zip(*columns, strict=True)
    return tuple(HOLE if is_hole(row[0]) else function(*row) for row in rows_)


def _identity(like: jax.Array) -> jax.Array:
    return jnp.eye(like.shape[0], dtype=like.dtype)
