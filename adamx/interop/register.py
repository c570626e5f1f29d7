# SPDX-License-Identifier: Apache-2.0
"""Our recipes where a trainer looks optimizers up by name, for a while.

Many trainers take the name of an optimizer from a configuration and ask `getattr(optax, name)`, or
call `optax.adamw` outright. No code of theirs has to change to take ours.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import optax
import optax.contrib

from adamx.interop.names import check_arguments, nearest
from adamx.optimizers.recipe import TABLE

_MISSING = object()


def register(
    home: Any, names: str | Iterable[str] | None = None, **defaults: Any
) -> "Registration":
    """Puts our recipes and their `scale_by_*` into `home` until they are taken away again.

    Args:
      home: the module, or another object, whose attributes are looked up: `optax`.
      names: that or those to put there; by default all, also where `home` has none of that name.
      **defaults: arguments of ours that every one of them gets which has it, unless it is called
        with another: `storage="int8"`, `landing="exact"`.

    Returns:
      The registration: call `remove()`, or use it as a context manager. Modules that said
      `from optax import adamw` before keep theirs.

    Example:
      >>> import adamx, optax
      >>> with adamx.register(optax, storage="int8"):
      ...     opt = getattr(optax, "adamw")(1e-3)
      >>> opt.init(1.0)[0].nu.dtype, optax.adamw is adamx.adamw
      (dtype('uint8'), False)
    """
    ours = _ours()
    chosen = [names] if isinstance(names, str) else list(ours if names is None else names)
    for name in chosen:
        if name not in ours:
            raise ValueError(
                f"adamx has no {name!r} to register; the nearest: {nearest(name, ours)}"
            )
    known = {k for name in chosen for k in inspect.signature(ours[name]).parameters}
    check_arguments("register", defaults, sorted(known))
    return Registration(home, {name: _with(ours[name], defaults) for name in chosen})


class Registration:
    """Recipes in the place of others, from when it is made until `remove()`."""

    def __init__(self, home: Any, recipes: dict[str, Any]):
        self._home, self._put = home, recipes
        self._before = {name: getattr(home, name, _MISSING) for name in recipes}
        for name, recipe in recipes.items():
            setattr(home, name, recipe)
        _ACTIVE.append(self)

    @property
    def names(self) -> tuple[str, ...]:
        """What was put there."""
        return tuple(self._put)

    def remove(self) -> None:
        """Puts back what was there before; does nothing the second time.

        Raises `RuntimeError` where something else has been put there since, which would be lost:
        also the same recipe by a later registration, which would put it back when it is removed.
        """
        if self not in _ACTIVE:
            return
        since = _ACTIVE[_ACTIVE.index(self) + 1 :]
        later = {name for other in since if other._home is self._home for name in other._put}
        for name, recipe in self._put.items():
            if name in later or getattr(self._home, name, _MISSING) is not recipe:
                raise RuntimeError(
                    f"{name!r} of {getattr(self._home, '__name__', self._home)!r} has been "
                    "replaced since it was registered: remove what came later first"
                )
        _ACTIVE.remove(self)
        for name, before in self._before.items():
            if before is _MISSING:
                delattr(self._home, name)
            else:
                setattr(self._home, name, before)

    def __enter__(self) -> "Registration":
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


def original(home: Any, name: str) -> Any:
    """What `optax` or `optax.contrib` had under this name when adamx was imported; None if nothing
    was there."""
    return next(names for module, names in _THEIRS if module is home).get(name)


_THEIRS = [(module, dict(vars(module))) for module in (optax, optax.contrib)]
_ACTIVE: list[Registration] = []


def _ours() -> dict[str, Callable[..., Any]]:
    """Recipes and links, by name."""
    links = {entry.link.__name__: entry.link for entry in TABLE.values()}
    return {name: entry.build for name, entry in TABLE.items()} | links


def _with(build: Callable[..., Any], defaults: dict[str, Any]) -> Callable[..., Any]:
    """`build` with other defaults, where it has such arguments."""
    parameters = inspect.signature(build).parameters
    known = {k: v for k, v in defaults.items() if k in parameters}
    if not known:
        return build

    @functools.wraps(build)
    def made(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(build).bind_partial(*args, **kwargs).arguments
        return build(*args, **{k: v for k, v in known.items() if k not in bound}, **kwargs)

    changed = [p.replace(default=known.get(p.name, p.default)) for p in parameters.values()]
    made.__signature__ = inspect.Signature(changed)  # pyright: ignore[reportAttributeAccessIssue]
    return made
