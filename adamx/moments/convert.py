# SPDX-License-Identifier: Apache-2.0
"""From the state of one optimizer to that of another that keeps its moments differently."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from adamx.core import dtypes, hyperparameters, paths, random_bits
from adamx.core.host_memory import on_device
from adamx.core.per_leaf import leafwise
from adamx.landing.master import remainders
from adamx.moments import late_landing
from adamx.moments.described import Described
from adamx.moments.difference import difference
from adamx.moments.find import Side, is_moments, leaves, side, template
from adamx.moments.scale_by import static_storage
from adamx.moments.store import Store, StoredState
from adamx.storage import Arrays, Storage
from adamx.storage.compact import fit_for_codes


def convert(
    state: optax.OptState,
    opt_from: optax.GradientTransformation,
    opt_to: optax.GradientTransformation,
    params: optax.Params | None = None,
) -> optax.OptState:
    """The state with which `opt_to` goes on where `opt_from` stopped.

    Moments are decoded from the storage of the one and encoded in the storage of the other, Optax's
    own state included; everything else is handed over as it is. So the two have to differ in
    storage alone, with or without `adamx.store` around either, and in a landing that `opt_to` has
    and `opt_from` has not: that starts now. Rounding is that of a step.

    Args:
      state: of `opt_from`.
      opt_from, opt_to: the two optimizers, ours or Optax's.
      params: the parameters, or their shapes. Needed where only `opt_to` has a landing, and where
        the moments in `state` don't tell the parameters, as under `optax.masked`, which hides some
        from all moments.

    Returns:
      A state of `opt_to`.

    Example:
      >>> import adamx, jax.numpy as jnp, optax
      >>> params = {"kernel": jnp.ones((2, 3))}
      >>> before, after = optax.adamw(1e-3), adamx.adamw(1e-3, storage="int8")
      >>> state = adamx.convert(before.init(params), before, after)
      >>> print(type(state[0]).__name__, state[0].nu["kernel"].dtype)
      ScaleByAdamState uint8
    """
    hyperparameters.check_optimizer(opt_from=opt_from, opt_to=opt_to)
    stores = [getattr(opt.update, "link", None) for opt in (opt_from, opt_to)]
    if any(isinstance(link, Store) for link in stores):
        return _of_stores(state, opt_from, opt_to, params)
    shapes = _shapes(state) if params is None else params
    source, target = template(opt_from, shapes), template(opt_to, shapes)
    if not late_landing.starts(source, target):
        return _carried(state, source, target, params is None)
    if params is None:
        raise ValueError(
            "`opt_to` has a landing, `opt_from` has none: give the parameters as well, "
            "`convert(state, opt_from, opt_to, params)`"
        )
    found = _carried(state, source, late_landing.without(target), False)
    return late_landing.started(found, target)


def _carried(state: Any, source: Any, target: Any, is_guessed: bool) -> Any:
    """`state`, which is like the template `source`, as one like `target`."""
    marks, held = jax.tree.flatten(source, is_leaf=is_moments)
    goals, treedef = paths.flatten(target, is_leaf=is_moments)
    given = _beside(state, source, marks, held, is_guessed)
    if held != treedef:
        what = "`opt_from` and `opt_to` differ in more than how moments are stored"
        raise ValueError(f"{what}: {difference(target, source)}")
    return treedef.unflatten(
        [
            _converted(x, mark, goal) if is_moments(goal) else _kept(x, path, goal)
            for x, mark, (path, goal) in zip(given, marks, goals, strict=True)
        ]
    )


def _of_stores(state: Any, opt_from: Any, opt_to: Any, params: Any) -> Any:
    """The conversion where `adamx.store` is around one of the optimizers, or both."""
    before, after = (getattr(opt.update, "link", None) for opt in (opt_from, opt_to))
    count = state.count if isinstance(state, StoredState) else None
    shapes = params
    if params is None:
        shapes = _shapes(state.inner if count is not None else state)
    if isinstance(before, Store):
        state, opt_from = before.widened(state, shapes), before.opt
    if not isinstance(after, Store):
        return convert(state, opt_from, opt_to, params)
    inner = convert(state, opt_from, after.opt, params)
    return after.narrowed(inner, shapes, count=count)


def _beside(state: Any, source: Any, marks: list[Any], held: Any, is_guessed: bool) -> list[Any]:
    """What `state` has for each leaf of the template of `opt_from`, moments of a leaf as one;
    guessed where the parameters of the template are what moments tell of them."""
    try:
        given = held.flatten_up_to(state)
        fits = all(
            is_moments(m) or jax.tree_util.all_leaves([x])
            for m, x in zip(marks, given, strict=True)
        )
    except (ValueError, TypeError):
        fits, given = False, []
    if not fits:
        advice = f" (or its moments do not tell the parameters: {_GIVE})" if is_guessed else ""
        raise ValueError(
            f"`state` is not a state of `opt_from`{advice}: {difference(state, source)}"
        )
    return given


_GIVE = "give `params`, the parameters or their shapes"


def _kept(x: Any, path: Any, goal: Any) -> Any:
    """What is handed over as it is, if `opt_to` has the like of it."""
    (shape, dtype), want = (jnp.shape(x), dtypes.of(x)), (goal.shape, goal.dtype)
    if (shape, dtype) != want:
        raise ValueError(
            f"{paths.name(path)}: `state` has {dtype} of shape {shape} here, `opt_to` {want[1]} of "
            f"shape {want[0]}: `convert` knows moments of elementwise rules, and `adamx.store` "
            "around the whole; start this one afresh"
        )
    return x


def _converted(state: Any, source: Any, target: Any) -> Any:
    """The state of one rule, in the storages of `target`."""
    ours = next((x for x in (source, target) if isinstance(x, Described)), None)
    if ours is None:
        return state
    here, there = side(source, ours.rule), side(target, ours.rule)
    kinds = here.layout.rule.moments
    if kinds != there.layout.rule.moments:
        raise ValueError(
            f"{here.layout.rule.name} and {there.layout.rule.name} remember different things: "
            f"{', '.join(kinds)} and {', '.join(there.layout.rule.moments)}"
        )
    count, rows = decoded(state, here, is_ours=isinstance(source, Described))
    made = encoded(count, rows, there, getattr(target, "state", target))
    counters = here.layout.counters(state)
    if there.layout.is_plain:
        return made._replace(**counters)
    for name, other in counters.items():
        if not isinstance(other, Tracer) and int(other) != int(count):
            raise ValueError(
                f"{here.layout.rule.name}: the state counts {int(count)} steps, its `{name}` "
                f"{int(other)}: packed moments have one counter for both"
            )
    return made


def decoded(state: Any, here: Side, is_ours: bool = True) -> tuple[jax.Array, list[dict]]:
    """The count and the moments of each leaf in the state of one rule; none where a leaf has none.

    Where Optax made the state, moments may be in half precision.
    """
    kinds = here.layout.rule.moments
    count, rows = here.layout.stored(state, state, here.treedef)
    found = []
    for name, storage, stored in zip(here.names, here.storages, rows, strict=True):
        if not stored:
            found.append({})
            continue
        if storage is None:
            raise ValueError(f"{name}: `state` has moments of a leaf that others lack: {_GIVE}")
        stored = on_device(stored if is_ours else _in_working_precision(stored))
        if complaint := storage.complaint(stored, kinds, _dtype(stored.values())):
            raise TypeError(f"{name}: {complaint}: `state` is not one of `opt_from`")
        found.append(_decoded(stored, {}, tuple(kinds.items()), static_storage(storage)))
    return count, found


def encoded(count: Any, rows: list[dict], there: Side, blank: Any) -> Any:
    """The state of one rule with these moments, in at least float32; `blank` has its shapes."""
    kinds = there.layout.rule.moments
    _, wanted = there.layout.stored(blank, blank, there.treedef)
    seeds = [getattr(storage, "seed", None) for storage in there.storages]
    noise = random_bits.of_leaves(seeds, count, there.names)
    new = []
    for moments, goal, storage, words in zip(rows, wanted, there.storages, noise, strict=True):
        if not goal:
            new.append({})
            continue
        forms = tuple((k, x.shape, x.dtype) for k, x in goal.items())
        static = tuple(kinds.items()), static_storage(storage), forms
        new.append(_encoded((moments, words), {}, *static))
    return there.layout.state(count, new, there.treedef)


@leafwise
def _decoded(stored: Arrays, scalars: Any, kinds: tuple, storage: Storage) -> Arrays:
    return storage.decode(stored, dict(kinds))


@leafwise
def _encoded(arrays: tuple, scalars: Any, kinds: tuple, storage: Storage, forms: tuple) -> Arrays:
    moments, words = arrays
    old = {k: jnp.zeros(shape, dtype) for k, shape, dtype in forms}
    if any(jnp.issubdtype(x.dtype, jnp.integer) for x in old.values()):
        moments = fit_for_codes(moments, dict(kinds))
    key: Any = None if words is None else random_bits.Key(words)
    return storage.encode(moments, dict(kinds), old, key)


def _in_working_precision(stored: dict[str, Any]) -> dict[str, Any]:
    """Optax's moments, which are stored in whatever floating dtype its parameters have."""
    return {
        k: x.astype(dtypes.working(x.dtype)) if jnp.issubdtype(x.dtype, jnp.inexact) else x
        for k, x in stored.items()
    }


def _shapes(state: optax.OptState) -> Any:
    """Shapes of the parameters, as far as moments tell."""
    held = [x for x in jax.tree.leaves(state, is_leaf=is_moments) if is_moments(x)]
    if not held:
        raise ValueError(f"no moments in `state` tell the shapes of the parameters: {_GIVE}")
    _, rows, treedef = leaves(held[0])
    for other in held[1:]:  # of groups each knows its own leaves
        _, more, form = leaves(other)
        if form == treedef:
            rows = [row or x for row, x in zip(rows, more, strict=True)]
    halves = remainders(state)
    found, treedef = paths.flatten(treedef.unflatten([_shape(row) for row in rows]))
    return treedef.unflatten([_narrowed(x, halves.get(path)) for path, x in found])


def _narrowed(shape: Any, remainder: Any) -> Any:
    """The shape of a parameter beside which a landing keeps a remainder: in half precision."""
    if remainder is None:
        return shape
    is_float = jnp.issubdtype(remainder.dtype, jnp.inexact)
    return shape.update(dtype=remainder.dtype if is_float else jnp.bfloat16)


def _shape(row: list[Any]) -> Any:
    return jax.ShapeDtypeStruct(row[0].shape, _dtype(row)) if row else optax.MaskedNode()


def _dtype(arrays: Iterable[Any]) -> jnp.dtype:
    """The dtype that the gradients of such moments have, at least float32."""
    real = (x.dtype for x in arrays if jnp.issubdtype(x.dtype, jnp.inexact))
    return dtypes.working(*real)
