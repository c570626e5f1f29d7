# SPDX-License-Identifier: Apache-2.0
"""Clipping, against NumPy in float64 and against Optax, on ordinary and on hostile numbers."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from adamx.transforms.clipping import (
    adaptive_grad_clip,
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_leaf_norm,
)
from tests import cases

LINKS = {
    "clip": clip,
    "clip_by_leaf_norm": clip_by_leaf_norm,
    "clip_by_global_norm": clip_by_global_norm,
    "clip_by_block_rms": clip_by_block_rms,
    "adaptive_grad_clip": adaptive_grad_clip,
}
NORMS = [name for name in LINKS if name != "clip"]
IN_OPTAX = [name for name in LINKS if name != "clip_by_leaf_norm"]
BOUNDS = dict(zip(LINKS, "max_delta max_norm max_norm threshold clipping".split(), strict=True))
OVERRIDES = BOUNDS | {"clip_by_block_rms": "max_rms"}  # RAdam has a `threshold`, too
DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64")
# Each result is rounded once, to the dtype of the gradient.
TOLERANCES = {"float16": 1e-3, "bfloat16": 8e-3, "float64": 1e-14}


def wide(x):
    return np.asarray(x).astype(np.complex128 if np.iscomplexobj(x) else np.float64)


def norm(x, axes=None):
    return np.sqrt(np.sum(np.abs(wide(x)) ** 2, axis=axes, keepdims=True))


def unit_axes(x):
    return {2: (0,), 3: (0,), 4: (0, 1, 2), 5: (0, 1, 2, 3)}.get(x.ndim)


def oracle(name, bound, grads, params=None):
    """What the papers say, for a list of arrays, in float64."""
    if name == "clip":
        parts = [(np.clip(wide(g).real, -bound, bound), wide(g).imag) for g in grads]
        return [a + 1j * np.clip(b, -bound, bound) if b.any() else a for a, b in parts]
    if name == "clip_by_global_norm":
        limits = [bound / np.sqrt(sum(norm(g).item() ** 2 for g in grads))] * len(grads)
    elif name == "clip_by_leaf_norm":
        limits = [bound / norm(g).item() for g in grads]
    elif name == "clip_by_block_rms":
        limits = [bound * np.sqrt(np.size(g)) / norm(g).item() for g in grads]
    else:
        pairs = zip(grads, params, strict=True)
        limits = [
            bound * np.maximum(norm(p, unit_axes(p)), 1e-3) / norm(g, unit_axes(g))
            for g, p in pairs
        ]
    return [wide(g) * np.minimum(1, limit) for g, limit in zip(grads, limits, strict=True)]


def eager(name, bound, grads, params=None, **options):
    link = LINKS[name](bound, **options)
    return link.update(grads, link.init(grads), grads if params is None else params)[0]


compiled = jax.jit(eager, static_argnums=0)


def clipped(name, bound, grads, params=None):
    """With a traced bound, so that the tests that share shapes share a compilation."""
    return compiled(name, bound, grads, grads if params is None else params)


def randoms(dtype, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = [(3, 4), (5,), (2, 3, 4), (2, 2, 3, 4), (2, 1, 2, 3, 2)]
    arrays = [scale * rng.normal(size=shape) for shape in shapes]
    if dtype == "complex64":
        arrays = [x + 1j * scale * rng.normal(size=x.shape) for x in arrays]
    return [jnp.asarray(x).astype(dtype) for x in arrays]


def leaves(name, dtype):
    """Gradients and parameters; of every rank for AGC, which takes its norms along some axes."""
    grads, params = randoms(dtype), randoms(dtype, seed=1)
    return (grads, params) if name == "adaptive_grad_clip" else (grads[:2], params[:2])


def close(got, want, rtol=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(wide(a), b, rtol, 0), got, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LINKS)
def test_the_rule_is_the_papers_in_every_dtype(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        grads, params = leaves(name, dtype)
        for bound in (0.3, 1e3):
            got = clipped(name, bound, grads, params)
            assert [x.dtype for x in got] == [x.dtype for x in grads]
            close(got, oracle(name, bound, grads, params), TOLERANCES.get(dtype, 2e-6))
        jax.tree.map(np.testing.assert_array_equal, got, grads)


@pytest.mark.parametrize("name", IN_OPTAX)
def test_ordinary_numbers_come_out_as_from_optax(name):
    grads, params = leaves(name, "float32")

    @jax.jit
    def by_optax(bound, grads, params):
        return getattr(optax, name)(bound).update(grads, optax.EmptyState(), params)[0]

    for bound in (0.01, 0.3, 1e3):
        want = jax.tree.map(np.asarray, by_optax(bound, grads, params))
        close(clipped(name, bound, grads, params), want, 1e-6)
        assert LINKS[name](bound).init(params) == getattr(optax, name)(bound).init(params)
    close(eager(name, 1e3, grads, params), want, 1e-6)  # a Python number, not traced


HOSTILE = {
    "1e20": np.float32([1e20, 1e20]),
    "fp16 1e4": np.float16([1e4] * 4),
    "fp16 tiny": np.float16([6e-8, 3e-7]),
    "largest": np.float32([3.4e38, -3.4e38, 3.4e38]),
    "bf16 largest": jnp.full(64, 3.38e38, jnp.bfloat16),
    "1e-30": np.float32([3e-30, 4e-30]),
    "wide apart": np.float32([1e-30, 1e30]),
    "complex": np.complex64([3e20 + 4e20j, 1e-20]),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("name", NORMS)
def test_no_magnitude_breaks_a_norm(name, case):
    g = jnp.asarray(HOSTILE[case])
    size = norm(g).item()
    params = jnp.ones_like(g)
    for bound in (size / 4, size * 4):
        if not 1e-35 < bound < 3e38:
            continue
        if name == "adaptive_grad_clip":
            bound /= np.sqrt(g.size)
        rtol = TOLERANCES.get(str(g.dtype), 2e-6)
        tiny = 1e-38 if g.dtype != jnp.float16 else 3e-8  # half of the least denormal
        got = clipped(name, bound, [g], [params])[0]
        want = oracle(name, bound, [g], [params])[0]
        np.testing.assert_allclose(wide(got), want, rtol, tiny)


@pytest.mark.parametrize("name", ["clip_by_global_norm", "clip_by_block_rms", "adaptive_grad_clip"])
@pytest.mark.parametrize("case", ["1e20", "fp16 1e4"])
def test_optax_returns_zero_where_ours_does_not(name, case):
    g = jnp.asarray(HOSTILE[case])
    theirs = getattr(optax, name)(1.0)
    with np.errstate(all="ignore"):
        broken, _ = theirs.update([g], theirs.init(g), [g / 4e3])
    assert np.all(np.asarray(clipped(name, 1.0, [g], [g / 4e3])[0]) > 0)
    if np.all(np.asarray(broken[0]) > 0):
        cases.skip_where_optax_is_right()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    exponents=st.lists(st.floats(-34, 38), min_size=6, max_size=6),
    bound=st.floats(-20, 20).map(lambda e: 10.0**e),
)
def test_any_mix_of_magnitudes_is_clipped_right(exponents, bound):
    values = np.float32([(-1) ** i * 10.0**e for i, e in enumerate(exponents)])
    grads = [jnp.asarray(values[:2]), jnp.asarray(values[2:])]
    for name in ("clip", "clip_by_leaf_norm", "clip_by_global_norm", "clip_by_block_rms"):
        got = clipped(name, bound, grads)
        want = oracle(name, bound, grads)
        # What falls below float32's normal numbers may be flushed to zero.
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(wide(a), b, 3e-6, 2e-38)


@pytest.mark.parametrize("name", LINKS)
def test_what_is_not_finite_stays_visible(name):
    rest = [jnp.array([3.0, 4.0])]
    for bad in (np.inf, -np.inf):
        for dtype in ("float16", "float32"):
            g = [jnp.asarray([bad, 1.0], dtype), *rest]
            got = clipped(name, 0.5, g, jax.tree.map(jnp.ones_like, g))
            assert got[0][0] == bad
            assert not np.isnan(got[0]).any()
            assert np.isfinite(got[1]).all()
    got = clipped(name, 0.5, [jnp.array([np.nan, np.inf]), *rest])
    assert np.isnan(got[0][0])
    assert not np.isfinite(got[0][1])
    assert np.isnan(got[1]).all() == (name == "clip_by_global_norm")
    z = clipped(name, 0.5, jnp.array([complex(1.0, np.inf)]), jnp.ones(1, jnp.complex64))
    assert z.imag == np.inf
    assert np.isfinite(z.real)


@pytest.mark.parametrize("name", LINKS)
def test_zero_and_small_gradients_pass_unchanged_and_so_does_their_gradient(name):
    for g in (jnp.zeros(3), jnp.array([0.0, 1e-3, 2e-3])):
        call = functools.partial(lambda g: clipped(name, 1e3, [g], [jnp.ones(3)])[0])
        np.testing.assert_array_equal(call(g), g)
        for jacobian in (jax.jacrev, jax.jacfwd):
            np.testing.assert_array_equal(jacobian(call)(g), np.eye(3))


@pytest.mark.parametrize("size", [1.0, 1e20, 1e-25])
@pytest.mark.parametrize("name", LINKS)
def test_the_derivative_is_right_at_any_magnitude_and_in_the_bound(name, size):
    base, bound = np.array([3.0, -4.0, 1.0]), 0.5
    params = np.array([0.5, 1.0, 0.2])

    def total(g, b):
        p = [jnp.asarray(params * size, jnp.float32)]
        agc = name == "adaptive_grad_clip"
        link = LINKS[name](b, eps=0.0) if agc else LINKS[name](b * size)
        return jnp.vdot(jnp.array([1.0, 2.0, -1.0]), link.update([g], link.init(g), p)[0][0] / size)

    def reference(g, b):
        limit = [params] if name == "adaptive_grad_clip" else None
        return np.dot([1.0, 2.0, -1.0], oracle(name, b, [g], limit)[0])

    g, b = jnp.asarray(base * size, jnp.float32), jnp.float32(bound)
    by_g, by_b = jax.jit(jax.grad(total, (0, 1)))(g, b)
    step = 1e-6
    want = [
        (reference(base + step * e, bound) - reference(base - step * e, bound)) / (2 * step)
        for e in np.eye(3)
    ]
    np.testing.assert_allclose(wide(by_g) * size, want, 1e-5, 1e-5)
    want = (reference(base, bound + step) - reference(base, bound - step)) / (2 * step)
    np.testing.assert_allclose(by_b, want, 1e-5)


@pytest.mark.parametrize("name", LINKS)
def test_jit_vmap_scan_and_cond_change_nothing(name):
    link = LINKS[name](0.3)
    grads, params = randoms("float32")[:2], randoms("float32", seed=1)[:2]
    want = link.update(grads, optax.EmptyState(), params)[0]

    def update(g):
        return link.update(g, optax.EmptyState(), params)[0]

    rows = jax.tree.map(lambda x: jnp.stack([x, 1e25 * x, 1e-28 * x, 0 * x]), grads)
    each = [update(jax.tree.map(lambda x, i=i: x[i], rows)) for i in range(4)]
    each = jax.tree.map(lambda *xs: np.stack(xs), *each)
    close(jax.jit(update)(grads), jax.tree.map(np.asarray, want))
    close(jax.vmap(update)(rows), each)
    close(lax.scan(lambda _, g: (None, update(g)), None, rows)[1], each)
    picked = lax.cond(jnp.bool_(True), update, lambda g: g, grads)
    close(picked, jax.tree.map(np.asarray, want))


@pytest.mark.parametrize(
    "kind", ["float", "numpy", "array", "float16", "int", "traced", "override"]
)
@pytest.mark.parametrize("name", LINKS)
def test_a_bound_may_be_any_kind_of_number_and_never_promotes(name, kind):
    grads, params = randoms("bfloat16", scale=9.0)[:1], randoms("float32", seed=1)[:1]
    want = eager(name, 2.0, grads, params)
    casts = {"float": float, "numpy": np.float64, "array": jnp.asarray, "int": int}
    if kind == "override":
        link = LINKS[name](77.0)
        got = link.update(grads, optax.EmptyState(), params, **{OVERRIDES[name]: 2.0, "other": 1})[
            0
        ]
    elif kind == "traced":
        got = jax.jit(lambda b: eager(name, b, grads, params))(2.0)
    else:
        got = eager(name, casts.get(kind, jnp.float16)(2.0), grads, params)
    assert {x.dtype for x in got} == {jnp.dtype("bfloat16")}
    assert not any(x.aval.weak_type for x in got)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_weak_types_do_not_leak():
    for name in LINKS:
        weak = jnp.asarray(2.0)
        assert weak.aval.weak_type
        out = eager(name, 0.5, {"a": weak, "b": 3.0}, {"a": weak, "b": 3.0})
        assert not any(x.aval.weak_type for x in jax.tree.leaves(out))


@pytest.mark.parametrize("name", LINKS)
def test_one_compilation_serves_all_values_of_a_bound(name):
    grads, traces = randoms("float32")[:2], []

    @jax.jit
    def update(bound):
        traces.append(1)
        return eager(name, bound, grads)

    close(update(0.5), oracle(name, 0.5, grads, grads))
    close(update(0.25), oracle(name, 0.25, grads, grads))
    assert len(traces) == 1
    both = jax.vmap(lambda b: eager(name, b, grads))(jnp.array([0.5, 0.25]))
    close([x[1] for x in both], oracle(name, 0.25, grads, grads))


@pytest.mark.parametrize("name", LINKS)
def test_a_schedule_is_counted_in_optaxs_state_and_one_call_may_override_it(name):
    link = LINKS[name](lambda count: 1.0 / (1.0 + count.astype(jnp.float32)))
    grads = randoms("float32", scale=9.0)[:2]
    state = link.init(grads)
    assert type(state) is optax.ScaleByScheduleState
    for step in range(3):
        got, state = link.update(grads, state, grads)
        close(got, oracle(name, 1.0 / (1 + step), grads, grads))
    got, state = jax.jit(link.update)(grads, state, grads, **{OVERRIDES[name]: 0.7})
    close(got, oracle(name, 0.7, grads, grads))
    assert state.count == 4
    assert state.count.dtype == jnp.int32


class Pair(NamedTuple):
    left: object
    right: object


@pytest.mark.parametrize("name", LINKS)
def test_every_kind_of_tree_comes_back_in_its_form(name):
    tree = {
        "pair": Pair(jnp.array([3e20, 4e20]), None),
        "empty": {},
        "no elements": jnp.zeros((0, 3)),
        "scalar": jnp.float16(3.0),
        "number": 4.0,
        "complex": jnp.array([3 + 4j], jnp.complex64),
        "masked": optax.MaskedNode(),
    }
    got = eager(name, 0.5, tree)
    assert jax.tree.structure(got) == jax.tree.structure(tree)
    assert [jnp.shape(x) for x in jax.tree.leaves(got)] == [
        jnp.shape(x) for x in jax.tree.leaves(tree)
    ]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(got))
    for nothing in ({}, (), [None]):
        assert eager(name, 0.5, nothing) == nothing


def test_a_global_norm_with_a_float64_leaf_is_float64():
    with jax.enable_x64(True):
        grads = [jnp.array([3e20], jnp.float32), jnp.array([4e200], jnp.float64)]
        got = clip_by_global_norm(1.0).update(grads, optax.EmptyState())[0]
        assert [x.dtype for x in got] == [jnp.float32, jnp.float64]
        np.testing.assert_allclose(got[1], 1.0, rtol=1e-15)


def test_agc_takes_its_norms_along_the_axes_that_it_is_given():
    g, p = randoms("float32")[2], randoms("float32", seed=1)[2]
    for axis in (-1, 1, (0, 2), (-1, 0), ()):
        got = eager("adaptive_grad_clip", 0.1, [g], [p], axis=axis)[0]
        limit = 0.1 * np.maximum(norm(p, axis), 1e-3) / norm(g, axis)
        close(got, wide(g) * np.minimum(1, limit))


def test_agc_treats_a_vector_of_any_rank_as_one_unit():
    g, p = 9 * jnp.ones((1, 4, 1)), jnp.ones((1, 4, 1))
    close(clipped("adaptive_grad_clip", 0.5, [g], [p])[0], 0.5 * np.ones((1, 4, 1)))


def test_parameters_that_are_zero_can_still_move():
    g = jnp.array([3.0, 4.0])
    got = eager("adaptive_grad_clip", 0.5, g, jnp.zeros(2), eps=0.1)
    close(got, np.array([0.03, 0.04]))


@pytest.mark.parametrize("name", LINKS)
def test_optaxs_wrappers_compose_with_ours(name):
    grads = {"w": jnp.array([3.0, 4.0]), "b": jnp.array([6.0, 8.0])}
    link = optax.masked(LINKS[name](0.5), {"w": True, "b": False})
    got, _ = link.update(grads, link.init(grads), grads)
    np.testing.assert_array_equal(got["b"], grads["b"])
    close([got["w"]], oracle(name, 0.5, [grads["w"]], [grads["w"]]))
    link = optax.inject_hyperparams(LINKS[name])(0.5)
    got, _ = jax.jit(link.update)(grads, link.init(grads), grads)
    leaves = [grads["b"], grads["w"]]
    close([got["b"], got["w"]], oracle(name, 0.5, leaves, leaves))
    chain = optax.chain(LINKS[name](77.0), optax.sgd(1.0))
    got, _ = chain.update(grads, chain.init(grads), grads, **{OVERRIDES[name]: 0.5})
    close([-got["b"], -got["w"]], oracle(name, 0.5, leaves, leaves))


def equations(jaxpr):
    """How many a program has, and each function that it calls, which is lowered once."""
    found, todo = {}, [jaxpr]
    while todo:
        jaxpr = todo.pop()
        if id(jaxpr) not in found:
            found[id(jaxpr)] = jaxpr
            todo += [e.params["jaxpr"].jaxpr for e in jaxpr.eqns if "jaxpr" in e.params]
    return [len(jaxpr.eqns) for jaxpr in found.values()]


@pytest.mark.parametrize("name", LINKS)
def test_many_leaves_cost_a_few_equations_each(name):
    grads = [jnp.ones((8, 8 + i % 5)) for i in range(500)]
    link = LINKS[name](0.5)
    traced = jax.make_jaxpr(lambda g: link.update(g, optax.EmptyState(), g)[0])(grads)
    # A square, a sum and a product; clip has one in all, AGC the parameters' norms, too.
    each = {"clip": 1, "clip_by_block_rms": 4, "adaptive_grad_clip": 5}.get(name, 3)
    assert sum(equations(traced.jaxpr)) <= len(grads) * each + 300


def reductions(jaxpr):
    """How many sums a program runs outside of the branches of its `cond`s."""
    count = 0
    for e in jaxpr.eqns:
        count += e.primitive.name == "reduce_sum"
        if "jaxpr" in e.params:
            count += reductions(e.params["jaxpr"])
    return count


@pytest.mark.parametrize("name", NORMS)
def test_the_common_path_reads_each_gradient_once_for_its_norm(name):
    grads = randoms("float32")
    link = LINKS[name](0.5)
    jaxpr = jax.make_jaxpr(lambda g: link.update(g, optax.EmptyState(), g)[0])(grads).jaxpr
    assert reductions(jaxpr) == len(grads) * (2 if name == "adaptive_grad_clip" else 1)


@pytest.mark.parametrize("name", LINKS)
def test_it_lowers_for_every_platform(name):
    grads = randoms("float32")
    step = jax.jit(lambda g: clipped(name, 0.5, g))
    exported = jax.export.export(step, platforms=("cpu", "cuda", "rocm", "tpu"))(grads)
    assert exported.platforms == ("cpu", "cuda", "rocm", "tpu")


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize(
    "value, error, rule",
    [
        (-1.0, ValueError, "must be > 0, got -1.0"),
        (0, ValueError, "must be > 0, got 0"),
        (np.float32(-2), ValueError, "must be > 0, got -2.0"),
        (float("nan"), ValueError, "must be > 0, got nan"),
        (jnp.ones(3), ValueError, "must be a scalar"),
        ("1", TypeError, "must be a number, an array or a schedule, got '1'"),
        (None, TypeError, "must be a number, an array or a schedule, got None"),
        (True, TypeError, "must be a number, an array or a schedule, got True"),
        (1j, TypeError, "must be a number, an array or a schedule, got 1j"),
    ],
)
def test_a_wrong_bound_is_refused_by_its_name(name, value, error, rule):
    with pytest.raises(error, match=f"`{BOUNDS[name]}` {rule}"):
        LINKS[name](value)
    if value is not None:  # None asks for no override
        link = LINKS[name](1.0)
        rule = rule.split(", an array")[0]
        with pytest.raises(error, match=f"`{OVERRIDES[name]}` {rule}"):
            link.update(jnp.ones(2), optax.EmptyState(), jnp.ones(2), **{OVERRIDES[name]: value})


@pytest.mark.parametrize("name", LINKS)
def test_bounds_beyond_float32_never_clip(name):
    for bound in (float("inf"), 1e50, 10**60):
        np.testing.assert_array_equal(eager(name, bound, jnp.ones(2)), np.ones(2))


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize(
    "leaf, kind", [(jnp.ones(2, jnp.int32), "int32"), (True, "bool"), ("text", "str")]
)
def test_a_leaf_that_is_not_floating_point_is_refused_by_its_path(name, leaf, kind):
    grads = {"params": {"dense": {"bias": jnp.ones(2), "kernel": leaf}}}
    with pytest.raises(TypeError, match=rf"params/dense/kernel: gradient is {kind}, .*float"):
        eager(name, 1.0, grads)


@pytest.mark.parametrize("name", LINKS)
def test_a_schedule_without_its_count_is_refused(name):
    link = LINKS[name](lambda count: 1.0)
    with pytest.raises(ValueError, match=f"`{BOUNDS[name]}` needs .* got EmptyState"):
        link.update(jnp.ones(2), optax.EmptyState(), jnp.ones(2))
    with pytest.raises(TypeError, match=f"`{OVERRIDES[name]}` must be a number or an array here"):
        link.update(
            jnp.ones(2), link.init(None), jnp.ones(2), **{OVERRIDES[name]: lambda count: 1.0}
        )


def test_agc_says_what_it_lacks():
    link, state = adaptive_grad_clip(0.1), optax.EmptyState()
    grads = {"dense": {"kernel": jnp.ones((2, 3))}}
    with pytest.raises(ValueError, match="adaptive_grad_clip needs the parameters: call"):
        link.update(grads, state)
    with pytest.raises(ValueError, match=r"dense/kernel: gradient has shape \(2, 3\), parameter"):
        link.update(grads, state, {"dense": {"kernel": jnp.ones((3, 2))}})
    with pytest.raises(
        ValueError, match="adaptive_grad_clip: dense/bias: params has this leaf, the"
    ):
        link.update(grads, state, {"dense": {"bias": jnp.ones(3)}})
    with pytest.raises(TypeError, match="dense/kernel: parameter is int32"):
        link.update(grads, state, {"dense": {"kernel": jnp.ones((2, 3), jnp.int32)}})
    with pytest.raises(ValueError, match=r"deep: `axis` must be given from rank 6 on.*\(2, 2, 2"):
        eager("adaptive_grad_clip", 0.1, {"deep": jnp.ones((2,) * 6)})
    with pytest.raises(ValueError, match=r"bias: `axis` \(0, 1\) does not fit .* \(3,\)"):
        eager("adaptive_grad_clip", 0.1, {"bias": jnp.ones(3)}, axis=(0, 1))
    with pytest.raises(ValueError, match=r"w: `axis` \(0, -2\) does not fit .* \(3, 4\)"):
        eager("adaptive_grad_clip", 0.1, {"w": jnp.ones((3, 4))}, axis=(0, -2))
    with pytest.raises(TypeError, match=r"`axis` must be None, an int or a tuple of ints, got 1.5"):
        adaptive_grad_clip(0.1, axis=1.5)
    with pytest.raises(ValueError, match=r"`eps` must be >= 0, got -1\.0"):
        adaptive_grad_clip(0.1, -1.0)
