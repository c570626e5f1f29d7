# SPDX-License-Identifier: Apache-2.0
"""Whether an optimizer may be given shards: what it computes must not be one shard's alone.

A global norm of a shard is too small by what the others have, and training goes on as if nothing
were wrong. So the optimizer's jaxpr is followed from the shards that come in to the updates and the
state that leave. An array is cut along a dimension; a sum along it is *partial*, until a collective
makes it whole again; what a partial number meets becomes partial.
"""

from typing import Any

from jax.extend.core import Literal

# How an array lies over the devices: all have it, or it is cut along a dimension (a number), or
# each device has its own.
WHOLE, PARTIAL = None, -1
Lie = int | None

_COLLECTIVES = ("psum", "pmax", "pmin", "all_gather", "all_to_all", "psum_invariant")


def partial_outputs(jaxpr: Any, lies: list[Lie]) -> dict[int, str]:
    """The outputs that are partial, by number, with the operation that was the first to make one.

    Args:
      jaxpr: a function of arrays of which some are shards.
      lies: how its arguments lie.
    """
    blamed: dict[str, str] = {}
    outs = _follow(jaxpr, lies, blamed)
    return {i: blamed["first"] for i, lie in enumerate(outs) if lie == PARTIAL}


def _follow(jaxpr: Any, lies: list[Lie], blamed: dict[str, str]) -> list[Lie]:
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    known: dict[Any, Lie] = dict(zip(jaxpr.invars, lies, strict=True))

    def lie(v: Any) -> Lie:
        return WHOLE if isinstance(v, Literal) else known.get(v, WHOLE)

    for eqn in jaxpr.eqns:
        ins = [lie(v) for v in eqn.invars]
        outs = [WHOLE] * len(eqn.outvars) if set(ins) <= {WHOLE} else _equation(eqn, ins, blamed)
        if PARTIAL in outs and PARTIAL not in ins:
            blamed.setdefault("first", eqn.primitive.name)
        known |= zip(eqn.outvars, outs, strict=True)
    return [lie(v) for v in jaxpr.outvars]


def _equation(eqn: Any, ins: list[Lie], blamed: dict[str, str]) -> list[Lie]:
    """How the results of one operation lie, of which at least one argument is not whole."""
    name, params = eqn.primitive.name, eqn.params
    if name.startswith(_COLLECTIVES):
        return [WHOLE] * len(eqn.outvars)
    if name == "cond":
        outs = [_follow(b, ins[1:], blamed) for b in params["branches"]]
        both = [_joined(column) for column in zip(*outs, strict=True)]
        return [PARTIAL] * len(both) if ins[0] is not WHOLE else both
    if name == "scan":
        return _loop(eqn, ins, blamed)
    inner = next((params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params), None)
    fits = inner is not None and len(getattr(inner, "jaxpr", inner).invars) == len(ins)
    if fits and name != "while":
        return _follow(inner, ins, blamed)
    return [_moved(eqn, ins, v.aval.shape) for v in eqn.outvars]


def _loop(eqn: Any, ins: list[Lie], blamed: dict[str, str]) -> list[Lie]:
    """A scan, whose carry is followed until it stays; arrays that it walks over lose their first
    dimension within."""
    consts, carries = eqn.params["num_consts"], eqn.params["num_carry"]
    carry = ins[consts : consts + carries]
    xs = [_shifted(lie, -1) for lie in ins[consts + carries :]]
    while True:
        outs = _follow(eqn.params["jaxpr"], [*ins[:consts], *carry, *xs], blamed)
        after = [_joined(pair) for pair in zip(carry, outs[:carries], strict=True)]
        if after == carry:
            return [*carry, *(_shifted(lie, 1) for lie in outs[carries:])]
        carry = after


def _shifted(lie: Lie, by: int) -> Lie:
    return lie if lie is None or lie == PARTIAL else lie + by


def _moved(eqn: Any, ins: list[Lie], shape: tuple[int, ...]) -> Lie:
    """Where the cut is after an operation on arrays."""
    name, params = eqn.primitive.name, eqn.params
    if PARTIAL in ins:
        return PARTIAL
    dim, source = ins[0], eqn.invars[0].aval.shape
    if len(ins) == 1 and dim is not None:
        axes = params.get("axes", params.get("dimensions", ()))
        if name.startswith(("reduce_", "squeeze", "arg")) and name != "reduce_precision":
            return PARTIAL if dim in axes else dim - sum(a < dim for a in axes)
        if name == "broadcast_in_dim":
            return params["broadcast_dimensions"][dim]
        if name == "transpose":
            return params["permutation"].index(dim)
        if name == "reshape":
            return _reshaped(source, shape, dim)
        if name.startswith(("cum", "sort", "rev")):
            return PARTIAL
    same = all(_spreads(v.aval.shape, shape) for v in eqn.invars)
    is_elementwise = same and not name.startswith(("dot", "sort", "cum", "conv_", "rev", "custom"))
    return _joined(ins) if is_elementwise else PARTIAL


def _spreads(source: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether an operation on elements may take an array of one shape to make one of another."""
    pairs = zip(source, shape, strict=False)
    return not source or (len(source) == len(shape) and all(a in (1, b) for a, b in pairs))


def _reshaped(source: tuple[int, ...], shape: tuple[int, ...], dim: int) -> Lie:
    """The cut dimension after dimensions of one were put in or taken out; else it is lost."""
    longer = [i for i, size in enumerate(shape) if size != 1]
    if [source[i] for i in range(len(source)) if source[i] != 1] != [shape[i] for i in longer]:
        return PARTIAL
    before = sum(size != 1 for size in source[:dim])
    return longer[before] if source[dim] != 1 else PARTIAL


def _joined(lies: Any) -> Lie:
    found = {lie for lie in lies if lie is not WHOLE}
    return WHOLE if not found else found.pop() if len(found) == 1 else PARTIAL
