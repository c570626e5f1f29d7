# SPDX-License-Identifier: Apache-2.0
"""The link that divides by the root of a factored mean square: of Adafactor, twice of CAME."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core import dtypes, paths, shards
from adamx.core.arithmetic import abs_sq, lerp, root
from adamx.core.hyperparameters import Hyper
from adamx.core.per_leaf import leafwise
from adamx.core.rows import check_floating
from adamx.core.rule import Rule
from adamx.core.values import value
from adamx.moments import factored
from adamx.moments.factored import Axes, Shape
from adamx.moments.layout import Layout
from adamx.moments.scalars import Scalars


def square_rule(name: str, hyper: Mapping[str, Hyper], at: Callable[..., Any]) -> Rule:
    """The rule of a factored mean square, whose arithmetic is in the link below.

    `at(t, **hyper)` gives the weights `b` and `c` of the mean so far and of the new square, and the
    `eps` that is added to this.
    """
    return Rule(name, optax.FactoredState, dict.fromkeys(_FIELDS, "squared"), hyper, at, _nothing)


@value
class FactoredRms:
    """Divides gradients by the root of their mean square, factored where `axes` says so.

    The state is Optax's: arrays of one element stand for what a leaf has none of.

    Attributes:
      rule: the hyperparameters, and from a step to its weights `b` and `c` and to `eps`.
      axes: from a leaf's shape to the two dimensions to factor, or None.
      all_leaves: whether other leaves have a mean square in their own shape; else they are left
        as they are.
    """

    rule: Rule
    axes: Callable[[Shape], Axes | None]
    all_leaves: bool = True

    def init(self, params: optax.Params) -> optax.FactoredState:
        leaves, treedef = paths.flatten(params)
        stored = []
        for path, leaf in leaves:
            name = paths.name(path)
            check_floating(self.rule.name, name, "parameter", leaf)
            stored.append(self._blank(leaf, shards.whole(name, jnp.shape(leaf))))
        return self._layout.state(jnp.zeros([], jnp.int32), stored, treedef)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return self.divided(updates, updates, state, extra)

    def divided(
        self, tops: Any, updates: optax.Updates, state: Any, extra: dict[str, Any]
    ) -> tuple[optax.Updates, Any]:
        """`tops` over the root of the mean square of `updates`, and the state with these."""
        leaves, treedef = paths.flatten(updates)
        count, stored = self._layout.stored(state, updates, treedef)
        scalars, new, found = Scalars(self.rule, count, extra), [], []
        for (path, g), top, held in zip(leaves, treedef.flatten_up_to(tops), stored, strict=True):
            name = paths.name(path)
            check_floating(self.rule.name, name, "gradient", g)
            whole = shards.whole(name, jnp.shape(g))
            axes = self.axes(whole)
            self._check(name, g, held, whole)
            if axes is None and not self.all_leaves:
                found.append(top)
                new.append(held)
                continue
            dtype = dtypes.working(dtypes.of(g), held["v"].dtype)
            arrays = (None if tops is updates else top, g, held)
            name = name if shards.axis_name() else ""  # leaves of one shape share their program
            now = scalars[dtypes.real(dtype)]
            top, held = _step(arrays, now, dtype, axes, name)
            found.append(top)
            new.append(held)
        return treedef.unflatten(found), self._layout.state(scalars.step, new, treedef)

    @property
    def _layout(self) -> Layout:
        return Layout(self.rule, _FIELDS, True, "")

    def _blank(self, leaf: Any, whole: Shape) -> dict[str, jax.Array]:
        dtype, axes = dtypes.real(dtypes.working(dtypes.of(leaf))), self.axes(whole)
        none = {k: jnp.zeros(1, dtype) for k in _FIELDS}
        if axes is None:
            return none | ({"v": jnp.full_like(leaf, 0, dtype=dtype)} if self.all_leaves else {})
        rows, columns = factored.blanks(leaf, whole, axes, dtype)
        return none | {"v_row": rows, "v_col": columns}

    def _check(self, name: str, g: Any, stored: dict[str, jax.Array], whole: Shape) -> None:
        axes, local = self.axes(whole), jnp.shape(g)
        wanted = {"v": local} if self.all_leaves else {}
        if axes is not None:
            wanted = dict(zip(("v_row", "v_col"), factored.shapes(whole, axes), strict=True))
        for field, shape in wanted.items():
            if jnp.shape(stored[field]) != shape:
                raise ValueError(
                    f"{name}: for a gradient of shape {whole} the state's `{field}` should have "
                    f"shape {shape}, got {jnp.shape(stored[field])} ({self.rule.name})"
                )


_FIELDS = ("v_row", "v_col", "v")


def _nothing(g: jax.Array, **moments: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    return g, {}


@leafwise
def _step(
    arrays: tuple, scalars: dict[str, Any], dtype: Any, axes: Axes | None, name: str
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """One leaf: `(top, gradient, state)` to the quotient and the new state."""
    top, g, stored = arrays
    b, c, eps = (scalars[k] for k in ("b", "c", "eps"))
    g = factored.held(jnp.asarray(g).astype(dtype))
    top = g if top is None else jnp.asarray(top).astype(dtype)
    wide = {k: x.astype(dtypes.real(dtype)) for k, x in stored.items()}
    square = abs_sq(g) + eps
    if axes is None:
        new = {"v": lerp(wide["v"], square, b, c)}
        found = factored.quotient(top, root(new["v"]))
    else:
        means = wide["v_row"], wide["v_col"]
        means = factored.averaged(square, *means, axes, b, c, name)
        new = dict(zip(("v_row", "v_col"), means, strict=True))
        found = factored.divided(top, *means, axes, name)
    return found, stored | {k: x.astype(stored[k].dtype) for k, x in new.items()}
