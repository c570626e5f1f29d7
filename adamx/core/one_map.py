# SPDX-License-Identifier: Apache-2.0
"""An elementwise function as one operation of the program that XLA compiles for an NVIDIA GPU.

XLA decides for each operation which kernel it joins, in a time that is quadratic in the operations
of a leaf. An HLO `map` counts as one operation, whatever it does with each number, and becomes the
same kernel. On other platforms the function is traced as it is, as also where it is differentiated
or vectorised, or mixes elements.

`by_number.py` turns the function of arrays into one of numbers, `map_lowering.py` writes the `map`.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from adamx.core import kernel_use, map_lowering


def one_map(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, as one operation if it is elementwise and XLA compiles for a GPU; of trees
    of arrays, and of numbers that are the same for all elements."""
    wanted = kernel_use.now().kernels and not kernel_use.turned_off() and not _without_jit()
    if not wanted or kernel_use.platform() != "gpu":
        return function(*args)
    leaves, treedef = jax.tree.flatten(args)

    def flat(*leaves: Any) -> Any:
        return function(*treedef.unflatten(leaves))

    jaxpr, results = jax.make_jaxpr(flat, return_shape=True)(*leaves)
    run = primitive.bind if map_lowering.fits(jaxpr) else plain
    return jax.tree.unflatten(jax.tree.structure(results), run(*leaves, jaxpr=jaxpr))


def plain(*args: Any, jaxpr: Any) -> list[Any]:
    """The results of `jaxpr`, by its own operations."""
    return jaxpr_as_fun(jaxpr)(*args)


def _without_jit() -> bool:
    return jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]


def _results(*args: Any, jaxpr: Any) -> list[Any]:
    return jaxpr.out_avals


def _derivative(primals: Any, tangents: Any, *, jaxpr: Any) -> tuple[list[Any], list[Any]]:
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]

    def function(*values: Any) -> list[Any]:
        given = dict(zip(moving, values, strict=True))
        return plain(*(given.get(i, x) for i, x in enumerate(primals)), jaxpr=jaxpr)

    along = [primals[i] for i in moving], [tangents[i] for i in moving]
    outs, slopes = jax.jvp(function, *along)
    return outs, [
        ad.Zero(jax.typeof(x).to_tangent_aval()) if t.dtype == jax.dtypes.float0 else t
        for x, t in zip(outs, slopes, strict=True)
    ]


def _batched(args: Any, dims: Any, *, jaxpr: Any) -> tuple[list[Any], list[int]]:
    outs = jax.vmap(jaxpr_as_fun(jaxpr), in_axes=tuple(dims))(*args)
    return outs, [0] * len(outs)


primitive = Primitive("one_map")
primitive.multiple_results = True
primitive.def_impl(plain)
primitive.def_abstract_eval(_results)
ad.primitive_jvps[primitive] = _derivative
batching.primitive_batchers[primitive] = _batched
mlir.register_lowering(primitive, mlir.lower_fun(plain))
mlir.register_lowering(primitive, map_lowering.lower, platform="cuda")
