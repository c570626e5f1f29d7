# SPDX-License-Identifier: Apache-2.0
"""A leaf's step as a JAX primitive: a loop in C++ on CPUs, plain JAX everywhere else.

Plain JAX is what is differentiated, batched, exported and compiled for other hardware.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from adamx.core.norms.mapped_axes import varying
from adamx.core.random_bits import Words
from adamx.kernels import partition
from adamx.kernels.library import DIRECTION, STEP


class Loop(NamedTuple):
    """Which loop steps a leaf; the numbers are those of the enumerations in csrc/work.h.

    Attributes:
      rule, storage, landing, decay: what the loop does.
      scales: whether it multiplies the gradient by two scalars first, as a clip does.
      whole: the shape of the whole array, if the leaf is a shard.
      in_place: whether results are written in the place of their operands.
    """

    rule: int
    storage: int
    landing: int = 0
    decay: int = 0
    scales: bool = False
    whole: tuple[int, ...] | None = None
    in_place: bool = True


class Operands(NamedTuple):
    """What a leaf's step is computed from.

    Attributes:
      parameter: the parameter; None where only the direction is asked for.
      remainder: its low-order bits, or None.
      moments: the stored moments, in the order of `Storage.fields`.
      gradient: the gradient.
      words: identifies the storage's random bits, or None.
      landing_words: those of the landing, or None.
      first: the position of the leaf's first element in the whole array.
      scalars: the rule's scalars that are not known when the step is traced, for plain JAX.
      vector: all scalars, for the loop.
    """

    parameter: Any
    remainder: Any
    moments: tuple[Any, ...]
    gradient: Any
    words: Words | None
    landing_words: Words | None
    first: Any
    scalars: dict[str, Any]
    vector: Any


def step(operands: Operands, loop: Loop, plain: Callable[..., Any], static: tuple) -> list[Any]:
    """The direction, or the parameter and its remainder, followed by the moments.

    Args:
      operands: the arrays of the leaf.
      loop: the loop that steps it.
      plain: the same in plain JAX, `(operands, *static) -> results`.
      static: more arguments of `plain`, hashable.
    """
    flat, tree = jax.tree.flatten(operands)
    flat = _alike([x if isinstance(x, jax.Array) else jnp.asarray(x) for x in flat])
    types = tuple(map(jax.typeof, flat))
    over_mesh = _over_mesh(tree, loop, types) if jax.device_count() > 1 else None
    return _step_p.bind(
        *flat, tree=tree, loop=loop, over_mesh=over_mesh, plain=plain, static=static
    )


_step_p = Primitive("adamx_step")
_step_p.multiple_results = True


@_step_p.def_abstract_eval
def _results(*flat: Any, tree: Any, **_: Any) -> list[Any]:
    operands = jax.tree.unflatten(tree, flat)
    found = [x.update(weak_type=False) for x in _replaced(operands)]
    if operands.parameter is not None:
        return found
    direction = operands.gradient.update(dtype=np.dtype(np.float32), weak_type=False)
    return [direction, *found]


def _replaced(operands: Operands) -> list[Any]:
    """The operands whose place a result takes."""
    written = [x for x in (operands.parameter, operands.remainder) if x is not None]
    return [*written, *operands.moments]


@_step_p.def_impl  # outside of `jit`, and operation by operation where `jit` is disabled
def _plain(*flat: Any, tree: Any, plain: Any, static: tuple, **_: Any) -> list[Any]:
    return plain(jax.tree.unflatten(tree, flat), *static)


def _native(*flat: Any, tree: Any, loop: Loop, over_mesh: Any = None) -> Any:
    """The loop; `over_mesh` is this same function where `jit` may spread arrays over devices."""
    if over_mesh is not None:
        return jaxpr_as_fun(over_mesh)(*flat)
    arrays, call = _call(tree, loop, flat)
    return call(loop.whole or (), *arrays)


@functools.lru_cache(maxsize=4096)
def _over_mesh(tree: Any, loop: Loop, types: tuple) -> Any:
    """The jaxpr of the loop with a rule for its shards; JAX has to see it before it lowers it."""

    def spread(*flat: Any) -> tuple[Any, ...]:
        operands, call = _call(tree, loop, flat)
        only_direction = jax.tree.unflatten(tree, flat).parameter is None
        count = len(operands) - 1 - NUMBERS
        return partition.elementwise(call, count, only_direction, loop.whole)(*operands)

    return jax.make_jaxpr(spread)(*types)


def _call(tree: Any, loop: Loop, flat: Any) -> tuple[list[Any], Callable[..., Any]]:
    """The operands of the custom call, and the call of a whole's shape and these."""
    operands: Operands = jax.tree.unflatten(tree, flat)
    numbers = [operands.first]
    for words in (operands.words, operands.landing_words):
        numbers += words or Words(0, 0, 0)
    numbers = [lax.convert_element_type(x, jnp.uint32) for x in numbers]
    call = functools.partial(_called, operands.parameter is None, loop)
    return _alike([*_replaced(operands), operands.gradient, operands.vector, *numbers]), call


def _alike(arrays: list[Any]) -> list[Any]:
    """Arrays that all vary over the same axes of a `shard_map`, as a custom call wants them."""
    axes = list(map(varying, arrays))
    every = frozenset().union(*axes)
    missing = [tuple(every - own) for own in axes]
    pairs = zip(arrays, missing, strict=True)
    return [lax.pcast(x, m, to="varying") if m else x for x, m in pairs]


def _called(
    only_direction: bool, loop: Loop, whole: tuple[int, ...], *flat: Any
) -> tuple[Any, ...]:
    """The custom call."""
    arrays = flat[: -1 - NUMBERS]
    *replaced, gradient = arrays
    results = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in replaced]
    if only_direction:
        results = [jax.ShapeDtypeStruct(gradient.shape, jnp.float32), *results]
    targets = [i + only_direction for i in range(len(replaced))]
    if only_direction and gradient.dtype == jnp.float32:
        targets.append(0)  # the direction takes the place of the gradient
    call = jax.ffi.ffi_call(
        DIRECTION if only_direction else STEP,
        results,
        input_output_aliases=dict(enumerate(targets)) if loop.in_place else {},
    )
    attributes = {k: np.int32(getattr(loop, k)) for k in ("rule", "storage", "landing", "decay")}
    found = call(*flat, **attributes, scales=np.int32(loop.scales), whole=np.array(whole, np.int64))
    return tuple(found)


NUMBERS = 7  # of the noise: the first position, and three words each of storage and landing


def _lowered(ctx: Any, *flat: Any, **params: Any) -> Any:
    module = ctx.module_context
    if module.lowering_parameters.for_export or len(module.platforms) > 1:
        return mlir.lower_fun(_plain, multiple_results=True)(ctx, *flat, **params)
    kept = {k: params[k] for k in ("tree", "loop", "over_mesh")}
    if getattr(module.axis_context, "num_devices", None) == 1:
        kept["over_mesh"] = None
    return mlir.lower_fun(_native, multiple_results=True)(ctx, *flat, **kept)


mlir.register_lowering(_step_p, mlir.lower_fun(_plain, multiple_results=True))
mlir.register_lowering(_step_p, _lowered, platform="cpu")


def _derived(primals: tuple, tangents: tuple, **params: Any) -> tuple[Any, Any]:
    tangents = tuple(map(ad.instantiate_zeros, tangents))
    return jax.jvp(functools.partial(_plain, **params), primals, tangents)


def _batched(flat: tuple, dims: tuple, **params: Any) -> tuple[Any, Any]:
    found = jax.vmap(functools.partial(_plain, **params), in_axes=dims)(*flat)
    return found, [0] * len(found)


ad.primitive_jvps[_step_p] = _derived
batching.primitive_batchers[_step_p] = _batched
