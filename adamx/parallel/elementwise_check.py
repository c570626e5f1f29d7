# SPDX-License-Identifier: Apache-2.0
"""Whether an optimizer may be given shards: what it computes must not be one shard's alone.

A global norm of a shard is too small by what the others have, and training goes on as if nothing
were wrong. So the optimizer's jaxpr is followed from the shards that come in to the updates and the
state that leave. An array is cut along a dimension; a sum along it is *partial*, until a collective
makes it whole again; what a partial number meets becomes partial. What is not known to work element
by element makes partial what it is given.
"""

from typing import Any

from jax.extend.core import Literal

# How an array lies over the devices: all have it; it is cut along a dimension (a number); each
# device has its own; it numbers the elements of a shard as if they were all (an iota, random bits);
# it says which device this is; or it is made with that in mind, and fits wherever it is met.
WHOLE, PARTIAL, POSITION, PLACE, PLACED = None, -1, -2, -3, -4
Lie = int | None

_ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e
    bitcast_convert_type cbrt ceil clamp clz complex conj convert_element_type copy copy_p cos cosh
    device_put digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge ge_to gt
    gt_to igamma igammac imag integer_pow is_finite le le_to lgamma log log1p logistic lt lt_to max
    min mul ne neg nextafter not optimization_barrier or pcast polygamma population_count pow pvary
    real reduce_precision rem reshard round rsqrt select_n sharding_constraint shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh
    xor
    """.split()
)
_REDUCTIONS = frozenset(
    "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor "
    "squeeze".split()
)
_SUMS = frozenset("pmax pmin psum psum2 psum_invariant pmax_invariant pmin_invariant".split())
_GATHERS = frozenset("all_gather all_gather_invariant all_gather_reduced".split())
_NUMBERING = frozenset("iota random_bits threefry2x32 rng_uniform rng_bit_generator".split())


def partial_outputs(jaxpr: Any, lies: list[Lie], wanted: list[Lie]) -> dict[int, str]:
    """The outputs that do not lie as they should, by number, with the operation that made them so.

    Args:
      jaxpr: a function of arrays of which some are shards.
      lies: how its arguments lie.
      wanted: how its outputs should. Where all devices have the same, it may stand for any part.
    """
    blamed: dict[str, str] = {}
    outs = _follow(jaxpr, lies, blamed)
    why = blamed.get("first", "operation across elements")
    return {
        i: why
        for i, (lie, want) in enumerate(zip(outs, wanted, strict=True))
        if lie != want and lie is not WHOLE and not (lie == PLACED and want is not WHOLE)
    }


def _follow(jaxpr: Any, lies: list[Lie], blamed: dict[str, str]) -> list[Lie]:
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    known: dict[Any, Lie] = dict(zip(jaxpr.invars, lies, strict=True))
    known |= {v: _numbering(v) for v in jaxpr.constvars}

    def lie(v: Any) -> Lie:
        return WHOLE if isinstance(v, Literal) else known.get(v, WHOLE)

    for eqn in jaxpr.eqns:
        ins = [lie(v) for v in eqn.invars]
        outs = _equation(eqn, ins, blamed)
        outs = [_settled(x, v) for x, v in zip(outs, eqn.outvars, strict=True)]
        if PARTIAL in outs and PARTIAL not in ins:
            blamed.setdefault("first", eqn.primitive.name)
        known |= zip(eqn.outvars, outs, strict=True)
    return [lie(v) for v in jaxpr.outvars]


def _settled(lie: Lie, v: Any) -> Lie:
    """A single number has no position."""
    return WHOLE if lie == POSITION and _numbering(v) is WHOLE else lie


def _numbering(v: Any) -> Lie:
    """An array that numbers elements, or one number, which does not."""
    size = getattr(v.aval, "size", 1)
    return POSITION if size > 1 else WHOLE


def _equation(eqn: Any, ins: list[Lie], blamed: dict[str, str]) -> list[Lie]:
    """How the results of one operation lie."""
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
    if name in _SUMS:  # of different elements where arrays are cut
        return [WHOLE if lie in (WHOLE, PARTIAL, PLACE) else PARTIAL for lie in ins]
    return [_moved(eqn, ins, v.aval.shape) for v in eqn.outvars]


def _loop(eqn: Any, ins: list[Lie], blamed: dict[str, str]) -> list[Lie]:
    """A scan, whose carry is followed until it stays; arrays that it walks over, which have a
    dimension more outside, lose their first one within."""
    body = eqn.params["jaxpr"]
    inner = getattr(body, "jaxpr", body)
    walked = sum(_ranks_differ(*pair) for pair in zip(eqn.invars, inner.invars, strict=True))
    made = sum(_ranks_differ(*pair) for pair in zip(eqn.outvars, inner.outvars, strict=True))
    carries, stop = len(eqn.outvars) - made, len(ins) - walked
    consts, carry = ins[: stop - carries], ins[stop - carries : stop]
    xs = [_shifted(lie, -1) for lie in ins[stop:]]
    while True:
        outs = _follow(body, [*consts, *carry, *xs], blamed)
        after = [_joined(pair) for pair in zip(carry, outs[:carries], strict=True)]
        if after == carry:
            return [*carry, *(_shifted(lie, 1) for lie in outs[carries:])]
        carry = after


def _ranks_differ(outside: Any, inside: Any) -> bool:
    return len(outside.aval.shape) != len(inside.aval.shape)


def _shifted(lie: Lie, by: int) -> Lie:
    return lie if lie is None or lie < 0 else lie + by


def _moved(eqn: Any, ins: list[Lie], shape: tuple[int, ...]) -> Lie:
    """Where the cut is after an operation on arrays."""
    name, params = eqn.primitive.name, eqn.params
    if name in _ELEMENTWISE:
        same = all(_spreads(v.aval.shape, shape) for v in eqn.invars)
        return _joined(ins) if same else PARTIAL
    found = _joined(ins)
    if found is None or found < 0:  # which stays what it is, wherever elements go
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
    """How what is made of arrays that lie so lies."""
    found = {lie for lie in lies if lie is not WHOLE}
    if found <= {PLACE} or len(found) <= 1:
        return found.pop() if found else WHOLE
    if PARTIAL in found:
        return PARTIAL
    if {PLACE, PLACED} & found:  # that knows where it is
        found -= {PLACE, PLACED, POSITION}
        return found.pop() if len(found) == 1 else PLACED if not found else PARTIAL
    return PARTIAL
