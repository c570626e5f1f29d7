# SPDX-License-Identifier: Apache-2.0
"""Checks that an optimizer can run on shards: no result may depend on one shard alone.

A global norm of one shard is too small, since it misses the other shards, and training goes on
without an error. So the optimizer's jaxpr is followed from its sharded inputs to the updates and
the state that it returns. An array is sharded along a dimension; a sum along that dimension is
*partial* until a collective completes it; a result with a partial operand is partial. An operation
that is not known to be elementwise makes the results of sharded operands partial.
"""

from typing import Any

from jax.extend.core import Literal

from adamx.core.by_number import ELEMENTWISE

# The layout of an array over the devices: a dimension's number if sharded along it; WHOLE if equal
# on all devices; PARTIAL if each device has its own; POSITION if it numbers a shard's elements as
# if they were the whole array (an iota, random bits); PLACE if it is the index of the device;
# PLACED if computed from that index and positions, which fits any sharding.
WHOLE, PARTIAL, POSITION, PLACE, PLACED = None, -1, -2, -3, -4
Layout = int | None

_ELEMENTWISE = ELEMENTWISE | frozenset(
    "bessel_i0e bessel_i1e clz complex conj device_put digamma eq_to ge_to gt_to igamma igammac "
    "imag le_to lgamma lt_to optimization_barrier pcast polygamma population_count pvary real "
    "reshard sharding_constraint".split()
)
_REDUCTIONS = frozenset(
    "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor "
    "squeeze".split()
)
_SUMS = frozenset("pmax pmin psum psum2 psum_invariant pmax_invariant pmin_invariant".split())
_GATHERS = frozenset("all_gather all_gather_invariant all_gather_reduced".split())
_NUMBERING = frozenset("iota random_bits threefry2x32 rng_uniform rng_bit_generator".split())


def partial_outputs(jaxpr: Any, layouts: list[Layout], wanted: list[Layout]) -> dict[int, str]:
    """The outputs with a wrong layout, by number, with the operation that is the cause.

    The layouts are those of the arguments, and those that the outputs should have. WHOLE outputs
    are accepted for any layout.
    """
    blamed: dict[str, str] = {}
    outs = _follow(jaxpr, layouts, blamed)
    why = blamed.get("first", "operation across elements")
    return {
        i: why
        for i, (layout, want) in enumerate(zip(outs, wanted, strict=True))
        if layout != want and layout is not WHOLE and not (layout == PLACED and want is not WHOLE)
    }


def _follow(jaxpr: Any, layouts: list[Layout], blamed: dict[str, str]) -> list[Layout]:
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    known: dict[Any, Layout] = dict(zip(jaxpr.invars, layouts, strict=True))
    known |= {v: _numbering(v) for v in jaxpr.constvars}

    def layout(v: Any) -> Layout:
        return WHOLE if isinstance(v, Literal) else known.get(v, WHOLE)

    for eqn in jaxpr.eqns:
        ins = [layout(v) for v in eqn.invars]
        outs = _equation(eqn, ins, blamed)
        outs = [_settled(x, v) for x, v in zip(outs, eqn.outvars, strict=True)]
        if PARTIAL in outs and PARTIAL not in ins:
            blamed.setdefault("first", eqn.primitive.name)
        known |= zip(eqn.outvars, outs, strict=True)
    return [layout(v) for v in jaxpr.outvars]


def _settled(layout: Layout, v: Any) -> Layout:
    """The layout of `v`: a single number has no POSITION."""
    return WHOLE if layout == POSITION and _numbering(v) is WHOLE else layout


def _numbering(v: Any) -> Layout:
    """POSITION for an array, WHOLE for a single number."""
    size = getattr(v.aval, "size", 1)
    return POSITION if size > 1 else WHOLE


def _equation(eqn: Any, ins: list[Layout], blamed: dict[str, str]) -> list[Layout]:
    """The layouts of one operation's results."""
    name, params = eqn.primitive.name, eqn.params
    if name == "axis_index":
        return [PLACE]
    inner = next((params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params), None)
    fits = inner is not None and len(getattr(inner, "jaxpr", inner).invars) == len(ins)
    if name == "cond":
        outs = [_follow(b, ins[1:], blamed) for b in params["branches"]]
        both = [_joined(column) for column in zip(*outs, strict=True)]
        return both if ins[0] is WHOLE else [PARTIAL] * len(both)
    if name == "scan":
        return _loop(eqn, ins, blamed)
    if fits:
        return _follow(inner, ins, blamed)
    if name in _NUMBERING:
        found = _joined([POSITION, *ins])
        return [found] * len(eqn.outvars)
    if set(ins) <= {WHOLE}:
        return [WHOLE] * len(eqn.outvars)
    if name in _GATHERS:
        return [WHOLE] * len(eqn.outvars)
    if name in _SUMS:  # which mix different elements of a sharded array
        return [WHOLE if layout in (WHOLE, PARTIAL, PLACE) else PARTIAL for layout in ins]
    return [_moved(eqn, ins, v.aval.shape) for v in eqn.outvars]


def _loop(eqn: Any, ins: list[Layout], blamed: dict[str, str]) -> list[Layout]:
    """The layouts of a scan's results. The body is followed until the carry's layouts no longer
    change. Arrays that are scanned over have one dimension less inside the body."""
    body = eqn.params["jaxpr"]
    inner = getattr(body, "jaxpr", body)
    walked = sum(_ranks_differ(*pair) for pair in zip(eqn.invars, inner.invars, strict=True))
    made = sum(_ranks_differ(*pair) for pair in zip(eqn.outvars, inner.outvars, strict=True))
    carries, stop = len(eqn.outvars) - made, len(ins) - walked
    consts, carry = ins[: stop - carries], ins[stop - carries : stop]
    xs = [_shifted(layout, -1) for layout in ins[stop:]]
    while True:
        outs = _follow(body, [*consts, *carry, *xs], blamed)
        after = [_joined(pair) for pair in zip(carry, outs[:carries], strict=True)]
        if after == carry:
            return [*carry, *(_shifted(layout, 1) for layout in outs[carries:])]
        carry = after


def _ranks_differ(outside: Any, inside: Any) -> bool:
    return len(outside.aval.shape) != len(inside.aval.shape)


def _shifted(layout: Layout, by: int) -> Layout:
    return layout if layout is None or layout < 0 else layout + by


def _moved(eqn: Any, ins: list[Layout], shape: tuple[int, ...]) -> Layout:
    """The layout of the result of an operation on arrays."""
    name, params = eqn.primitive.name, eqn.params
    if name in _ELEMENTWISE:
        same = all(_spreads(v.aval.shape, shape) for v in eqn.invars)
        return _joined(ins) if same else PARTIAL
    found = _joined(ins)
    if found is None or found < 0:  # the same wherever elements move
        return found
    dim, source = ins[0], eqn.invars[0].aval.shape
    if len(ins) != 1 or dim is None:
        return PARTIAL
    if name in _REDUCTIONS:
        axes = params.get("axes", params.get("dimensions", ()))
        return PARTIAL if dim in axes else dim - sum(a < dim for a in axes)
    if name == "broadcast_in_dim":
        return params["broadcast_dimensions"][dim]
    if name == "transpose":
        return params["permutation"].index(dim)
    if name == "reshape":
        return _reshaped(source, shape, dim)
    return PARTIAL


def _spreads(source: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether an elementwise operation may broadcast an array from `source` to `shape`."""
    pairs = zip(source, shape, strict=False)
    return not source or (len(source) == len(shape) and all(a in (1, b) for a, b in pairs))


def _reshaped(source: tuple[int, ...], shape: tuple[int, ...], dim: int) -> Layout:
    """The sharded dimension, if a reshape only adds or removes dimensions of one; else PARTIAL."""
    longer = [i for i, size in enumerate(shape) if size != 1]
    if [source[i] for i in range(len(source)) if source[i] != 1] != [shape[i] for i in longer]:
        return PARTIAL
    before = sum(size != 1 for size in source[:dim])
    return longer[before] if source[dim] != 1 else PARTIAL


def _joined(layouts: Any) -> Layout:
    """The layout of a result, from its operands' layouts."""
    found = {layout for layout in layouts if layout is not WHOLE}
    if found <= {PLACE} or len(found) <= 1:
        return found.pop() if found else WHOLE
    if PARTIAL in found:
        return PARTIAL
    if {PLACE, PLACED} & found:  # which contain the device's index
        found -= {PLACE, PLACED, POSITION}
        return found.pop() if len(found) == 1 else PLACED if not found else PARTIAL
    return PARTIAL
