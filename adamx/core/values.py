# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses that `jax.jit` takes as arguments.

The arrays in such a value are traced. Everything else is static and compared by value, functions by
identity and by the plain values that they read (`outer_names.py`). So two optimizers built alike
share what JAX has compiled, another array in one of them compiles nothing, and `jax.clear_caches()`
frees all of it.

Example:
  >>> import jax, jax.numpy as jnp
  >>> @value
  ... class Scale:
  ...     factor: Any
  ...     flip: bool = False
  >>> call = jax.jit(lambda link, x: -x * link.factor if link.flip else x * link.factor)
  >>> print(call(Scale(jnp.array(2.0)), 3.0), call(Scale(jnp.array(5.0)), 3.0), call._cache_size())
  6.0 15.0 1
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np

from adamx.core.outer_names import outer_values

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """The class as a frozen dataclass, registered as a pytree whose leaves are its arrays."""
    cls = dataclasses.dataclass(frozen=True, eq=False)(cls)
    made: Any = cls
    made.__eq__, made.__hash__, made.__getstate__ = _equal, _hashed, _state
    jax.tree_util.register_pytree_node(cls, _flatten, functools.partial(_unflatten, cls))
    _VALUES.add(cls)
    return cls


_VALUES: set[type] = set()


def bind(function: Callable[..., T], **keywords: Any) -> Callable[..., T]:
    """`function` with these keyword arguments, as `functools.partial`, but compared by value."""
    return _Bound(function, keywords)


def parts(function: Callable[..., Any]) -> tuple[Callable[..., Any], Mapping[str, Any]]:
    """The function and the keyword arguments of a `bind`; of others, the function itself."""
    return (
        (function.function, function.keywords) if isinstance(function, _Bound) else (function, {})
    )


@dataclasses.dataclass(frozen=True)
class _Slot:
    """The place of an array, or of a value with arrays of its own."""


@dataclasses.dataclass(frozen=True)
class _Items:
    """A mapping, in its own order."""

    items: tuple[tuple[Any, Any], ...]


@dataclasses.dataclass(frozen=True)
class _Parts:
    """A tuple, or a NamedTuple."""

    kind: type
    parts: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class _Same:
    """A function, equal to itself only: methods of one object are equal after it has changed. And
    only as long as what it reads is the same."""

    function: Any
    outer: tuple[Any, ...]

    def __eq__(self, other: Any) -> bool:
        is_same = isinstance(other, _Same) and self.function is other.function
        return is_same and self.outer == other.outer

    def __hash__(self) -> int:
        return id(self.function)


def _flatten(x: Any) -> tuple[list[Any], tuple[Any, ...]]:
    children: list[Any] = []
    static = tuple(_static(getattr(x, f.name), children) for f in dataclasses.fields(x))
    return children, static


def _unflatten(cls: type, static: tuple[Any, ...], children: Any) -> Any:
    x, rest = object.__new__(cls), iter(children)
    for f, part in zip(dataclasses.fields(cls), static, strict=True):  # pyright: ignore
        object.__setattr__(x, f.name, _whole(part, rest))
    return x


def _static(x: Any, children: list[Any]) -> Any:
    """What is hashable of `x`; the rest goes into `children`."""
    if isinstance(x, jax.Array | np.ndarray) or type(x) in _VALUES:
        children.append(x)
        return _Slot()
    if isinstance(x, Mapping):
        return _Items(tuple((k, _static(v, children)) for k, v in x.items()))
    if isinstance(x, tuple):
        return _Parts(type(x), tuple(_static(v, children) for v in x))
    return _Same(x, outer_values(x)) if callable(x) and not isinstance(x, type) else x


def _whole(part: Any, children: Iterator[Any]) -> Any:
    """The way back."""
    if isinstance(part, _Slot):
        return next(children)
    if isinstance(part, _Items):
        return {k: _whole(v, children) for k, v in part.items}
    if isinstance(part, _Parts):
        found = (_whole(v, children) for v in part.parts)
        return part.kind(*found) if hasattr(part.kind, "_fields") else part.kind(found)
    return part.function if isinstance(part, _Same) else part


def _equal(self: Any, other: Any) -> bool:
    if type(self) is not type(other):
        return NotImplemented
    (ours, form), (theirs, other_form) = jax.tree.flatten(self), jax.tree.flatten(other)
    return form == other_form and all(a is b for a, b in zip(ours, theirs, strict=True))


def _hashed(self: Any) -> int:
    return hash(jax.tree.structure(self))


def _state(self: Any) -> dict[str, Any]:
    """What is pickled: the fields, and nothing that was computed from them."""
    return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


@value
class _Bound:
    function: Callable[..., Any]
    keywords: Mapping[str, Any]

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self.function(*args, **keywords, **self.keywords)
