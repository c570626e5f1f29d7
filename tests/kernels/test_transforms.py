# SPDX-License-Identifier: Apache-2.0
"""The loops under JAX's transformations, on several devices, and where they cannot be used."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx
from adamx import kernels

pytestmark = [
    pytest.mark.optimized,
    pytest.mark.skipif(not kernels.available(), reason=str(kernels.available())),
]

RNG = np.random.default_rng(0)
HALF = {
    "k": jnp.asarray(RNG.normal(size=(64, 16)), jnp.bfloat16),
    "b": jnp.asarray(RNG.normal(size=(16,)), jnp.bfloat16),
}
GRADS = jax.tree.map(lambda x: jnp.asarray(RNG.normal(size=x.shape), jnp.bfloat16), HALF)
WHOLE = jax.tree.map(lambda x: x.astype(jnp.float32), HALF)
OPT = adamx.adamw(1e-2, storage="int8", landing="compensated8", mask="k")


def step(params, state, grads):
    return adamx.step(OPT, params, state, grads)


def stacked(tree):
    return jax.tree.map(lambda x: jnp.stack([x, 2 * x]), tree)


def scanned(params, state, grads):
    def body(carry, _):
        return step(*carry, grads), None

    return jax.lax.scan(body, (params, state), length=3)[0]


def branched(params, state, grads):
    taken = jnp.sum(grads["b"]) < 1e9
    return jax.lax.cond(taken, lambda: step(params, state, grads), lambda: (params, state))


WAYS = {
    "jit": lambda: jax.jit(step)(HALF, OPT.init(HALF), GRADS),
    "eager": lambda: step(HALF, OPT.init(HALF), GRADS),
    "scan": lambda: jax.jit(scanned)(HALF, OPT.init(HALF), GRADS),
    "cond": lambda: jax.jit(branched)(HALF, OPT.init(HALF), GRADS),
    "vmap": lambda: jax.vmap(step, (0, None, 0))(stacked(HALF), OPT.init(HALF), stacked(GRADS)),
    "pmap": lambda: jax.pmap(step)(stacked(HALF), stacked(OPT.init(HALF)), stacked(GRADS)),
    "remat": lambda: jax.jit(jax.checkpoint(step))(HALF, OPT.init(HALF), GRADS),
    "update": lambda: OPT.update(GRADS, OPT.init(HALF), HALF),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_run_a_step_gives_the_same(way):
    with kernels.using(False):
        want = WAYS[way]()
    same(WAYS[way](), want)


def same(got, want):
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))


def alike(got, want):
    """Compiled together or one by one, sums of products are rounded once or twice."""
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["learning_rate", "b1", "b2", "weight_decay"])
def test_derivatives_are_those_of_plain_jax(name):
    at = {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "weight_decay": 0.1}

    def loss(x):
        opt = adamx.adamw(**(at | {name: x}))
        params, _ = adamx.step(opt, WHOLE, opt.init(WHOLE), WHOLE)
        return jnp.sum(params["k"] ** 2)

    got = jax.jit(jax.value_and_grad(loss))(at[name])
    with kernels.using(False):
        want = jax.jit(jax.value_and_grad(loss))(at[name])
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_through_the_parameters_too():
    opt = adamx.adam(0.1)

    def loss(params, grads):
        return jnp.sum(adamx.step(opt, params, opt.init(params), grads)[0] ** 2)

    x = jnp.linspace(0.1, 1, 9)
    got = jax.grad(loss, (0, 1))(x, x)
    with kernels.using(False):
        same(got, jax.grad(loss, (0, 1))(x, x))


@pytest.mark.parametrize("types", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("spec", [P("x", "y"), P(None, "x"), P(("x", "y"), None), P()])
def test_over_a_mesh_each_device_steps_its_shard(spec, types):
    jitted = jax.jit(step, donate_argnums=(0, 1))
    with kernels.using(False):
        want = jax.jit(step)(HALF, OPT.init(HALF), GRADS)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(types,) * 2)
    shardings = {"k": NamedSharding(mesh, spec), "b": NamedSharding(mesh, P("x"))}
    with jax.set_mesh(mesh):
        copied = jax.tree.map(jnp.copy, (HALF, GRADS))
        params, grads = (jax.device_put(x, shardings) for x in copied)
        state = OPT.init(params)
        compiled = jitted.lower(params, state, grads).compile()
        got = jitted(params, state, grads)
    same(got, want)
    text = compiled.as_text()
    assert text.count('custom_call_target="adamx_step"') == 2
    assert not re.search("all-gather|all-reduce|all-to-all|collective-permute", text)
    assert got[0]["k"].sharding.is_equivalent_to(shardings["k"], 2)
    assert got[1][0].mu["k"].sharding.is_equivalent_to(shardings["k"], 2)


@pytest.mark.parametrize("sharded", [False, True])
def test_inside_shard_map_results_vary_as_their_operands_do(sharded):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    opt = adamx.adamw(1e-2)
    state = opt.init(WHOLE)
    spec = P("x") if sharded else P()
    specs = jax.tree.map(lambda x: spec if x.ndim else P(), (WHOLE, state, WHOLE))
    mapped = jax.shard_map(
        functools.partial(adamx.step, opt), mesh=mesh, in_specs=specs, out_specs=specs[:2]
    )
    got = jax.jit(mapped)(WHOLE, state, WHOLE)
    with kernels.using(False):
        same(got, adamx.jit_step(opt)(jax.tree.map(jnp.copy, WHOLE), opt.init(WHOLE), WHOLE))
    assert "adamx_step" in jax.jit(mapped).lower(WHOLE, state, WHOLE).as_text()


def test_a_file_for_other_machines_has_no_loop_in_it():
    exported = export.export(jax.jit(step))(HALF, OPT.init(HALF), GRADS)
    assert "adamx_step" not in exported.mlir_module()
    same(exported.call(HALF, OPT.init(HALF), GRADS), step(HALF, OPT.init(HALF), GRADS))


@pytest.mark.parametrize("opt", [OPT, adamx.adam(0.1), adamx.lion(0.1, storage="bfloat16")])
def test_a_donated_step_copies_nothing(opt):
    params = HALF if opt is OPT else WHOLE
    args = (params, opt.init(params), params)
    compiled = adamx.jit_step(opt).lower(*args).compile()
    arrays = re.findall(r"= (\S+)\[[\d,]{3,}\]\S* copy\(", compiled.as_text())
    assert not arrays
    assert compiled.memory_analysis().temp_size_in_bytes < 4096


def test_an_eager_step_keeps_its_operands():
    opt = adamx.adamw(1e-2)
    before, state = jax.tree.map(np.array, WHOLE), opt.init(WHOLE)
    adamx.step(opt, WHOLE, state, WHOLE)
    same(WHOLE, before)
    assert not any(np.any(x) for x in jax.tree.leaves(state[0].mu))


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex64"])
def test_other_dtypes_are_stepped_by_xla(dtype):
    with jax.enable_x64(dtype == "float64"):
        x = jnp.ones(5, dtype)
        opt = adamx.adam(0.1)
        text = jax.jit(functools.partial(adamx.step, opt)).lower(x, opt.init(x), x).as_text()
    assert "adamx_" not in text


def test_a_tree_with_one_leaf_of_another_dtype_still_has_loops_for_the_rest():
    params = {"a": jnp.ones(5), "b": jnp.ones(5, jnp.float16)}
    opt = adamx.adamw(0.1, storage="int8")
    stepped = jax.jit(functools.partial(adamx.step, opt))
    text = stepped.lower(params, opt.init(params), params).as_text()
    assert text.count("custom_call @adamx_direction") == 1


CLIPPED = {
    "ours last": lambda opt: optax.chain(optax.scale(2.0), adamx.clip_by_global_norm(0.5), opt),
    "ours first": lambda opt: optax.chain(adamx.clip_by_global_norm(0.5), optax.scale(2.0), opt),
    "schedule": lambda opt: optax.chain(adamx.clip_by_global_norm(lambda count: 0.5), opt),
    "optax": lambda opt: optax.chain(optax.clip_by_global_norm(0.5), opt),
    "by value": lambda opt: optax.chain(adamx.clip(0.1), opt),
}


@pytest.mark.parametrize("way", CLIPPED)
@pytest.mark.parametrize("params", [WHOLE, HALF])
def test_at_the_end_of_an_optax_chain_the_whole_step_is_one_loop(params, way):
    opt = CLIPPED[way](adamx.adamw(0.1, storage="int8"))
    found = []
    for loops in (True, False):
        step, moved = adamx.jit_step(opt, kernels=loops), jax.tree.map(jnp.copy, params)
        state = opt.init(moved)
        text = step.lower(moved, state, GRADS).as_text()
        assert text.count("custom_call @adamx_step") == 2 * loops
        assert text.count("scales = 1") == 2 * loops * (way in ("ours last", "schedule"))
        for _ in range(2):
            moved, state = step(moved, state, GRADS)
        found.append((moved, state))
    same(*found)


def test_a_clip_before_leaves_that_no_loop_covers_still_clips():
    opt = optax.chain(adamx.clip_by_global_norm(0.5), adamx.adamw(0.1))
    params = {"a": jnp.ones(5), "b": jnp.ones(5, jnp.float16)}
    step, plain = adamx.jit_step(opt), adamx.jit_step(opt, kernels=False)
    args = (jax.tree.map(jnp.copy, params), opt.init(params))
    same(step(*args, params), plain(params, opt.init(params), jax.tree.map(jnp.ones_like, params)))


@pytest.mark.parametrize(
    "opt",
    [
        optax.chain(adamx.adamw(0.1, storage="int8"), optax.scale(2.0)),
        adamx.adamw(0.1, storage="int8", weight_decay=adamx.decay.cautious(0.1)),
        adamx.adamw(0.1, storage="int4", weight_decay=adamx.decay.l2(0.1)),
        adamx.lamb(0.1, storage="bfloat16"),
    ],
)
def test_chains_that_no_loop_covers_still_have_one_for_the_rule(opt):
    args = (WHOLE, opt.init(WHOLE), WHOLE)
    text = adamx.jit_step(opt).lower(*args).as_text()
    assert text.count("custom_call @adamx_direction") == 2
    got = adamx.jit_step(opt)(jax.tree.map(jnp.copy, WHOLE), opt.init(WHOLE), WHOLE)
    want = adamx.jit_step(opt, kernels=False)(jax.tree.map(jnp.copy, WHOLE), args[1], WHOLE)
    for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loops", [True, False])
def test_a_chain_of_one_and_a_chain_in_a_chain_keep_their_states(loops):
    inner = adamx.adamw(0.1)
    for opt in (optax.chain(inner), optax.chain(optax.chain(inner)), optax.chain(optax.clip(1.0))):
        state = opt.init(WHOLE)
        with kernels.using(loops):
            params, after = adamx.step(opt, WHOLE, state, WHOLE)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        updates, want = opt.update(WHOLE, state, WHOLE)
        alike((params, after), (optax.apply_updates(WHOLE, updates), want))


def test_a_compiled_chain_is_called_as_it_is():
    opt = optax.chain(optax.clip(1.0), adamx.adamw(0.1))
    compiled = optax.GradientTransformation(opt.init, jax.jit(opt.update))
    same(
        adamx.step(compiled, WHOLE, opt.init(WHOLE), WHOLE),
        adamx.step(opt, WHOLE, opt.init(WHOLE), WHOLE),
    )


def test_a_function_that_is_only_named_like_optax_chain_is_called_as_it_is():
    def chain(*links):
        update_fns = [link.update for link in links]

        def update_fn(updates, state, params=None, **extra):
            after = []
            for update, old in zip(update_fns, state, strict=True):
                updates, new = update(updates, old, params, **extra)
                after.append(new)
            return jax.tree.map(lambda u: u / 2, updates), tuple(after)

        init = optax.chain(*links).init
        return optax.GradientTransformationExtraArgs(init, update_fn)

    chain.__qualname__ = "chain"
    opt = chain(optax.identity(), adamx.adamw(0.1))
    opt.update.__qualname__ = "chain.<locals>.update_fn"
    got, _ = adamx.step(opt, WHOLE, opt.init(WHOLE), WHOLE)
    updates, _ = opt.update(WHOLE, opt.init(WHOLE), WHOLE)
    alike(got, optax.apply_updates(WHOLE, updates))


@pytest.mark.parametrize("state", [None, 3, jnp.zeros(3), ()])
def test_a_wrong_state_is_named_by_the_recipe(state):
    with pytest.raises(ValueError, match="adamw: the state should be a tuple of 3 parts"):
        adamx.step(adamx.adamw(0.1), WHOLE, state, WHOLE)


def test_where_jit_is_disabled_plain_jax_takes_the_step():
    opt = adamx.adamw(0.1)
    want = adamx.step(opt, WHOLE, opt.init(WHOLE), WHOLE)
    with jax.disable_jit():
        alike(adamx.step(opt, WHOLE, opt.init(WHOLE), WHOLE), want)


def test_nan_is_found_where_jax_looks_for_it():
    bad = jax.tree.map(lambda x: x.at[0].set(jnp.nan), WHOLE)
    opt = adamx.adamw(0.1, storage="int8")
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        adamx.jit_step(opt)(jax.tree.map(jnp.copy, WHOLE), opt.init(WHOLE), bad)


@pytest.mark.parametrize("size", [1, 2])
def test_a_partly_mapped_mesh_is_stepped_by_xla(size):
    axes = (AxisType.Auto,) * 2
    mesh = jax.make_mesh((4, size), ("x", "y"), axis_types=axes, devices=jax.devices()[: 4 * size])
    opt, x = adamx.adamw(0.1), jnp.ones((8, 4))
    mapped = jax.shard_map(
        lambda x: adamx.step(opt, x, opt.init(x), x)[0],
        mesh=mesh,
        in_specs=P("x"),
        out_specs=P("x"),
        axis_names={"x"},
    )
    np.testing.assert_allclose(jax.jit(mapped)(x), 0.9 - 1e-5, rtol=1e-6)


def test_moments_that_are_cut_finer_than_parameters_stay_where_they_are():
    """As those of ZeRO: the parameters are gathered after the step, and nothing else is."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    rows, everywhere = NamedSharding(mesh, P("x")), NamedSharding(mesh, P())
    opt, x = adamx.adamw(0.1, storage="int8"), jnp.ones((64, 16))
    params, grads = jax.device_put(jnp.copy(x), everywhere), jax.device_put(x, everywhere)
    state = jax.tree.map(
        lambda s: jax.device_put(s, rows if s.ndim else everywhere), opt.init(params)
    )
    laid = jax.tree.map(lambda s: s.sharding, state)
    stepped = jax.jit(functools.partial(adamx.step, opt), out_shardings=(everywhere, laid))
    text = stepped.lower(params, state, grads).compile().as_text()
    assert len(re.findall(r" all-gather(?:-start)?\(", text)) == 1
    assert not re.search(r"[su]8\S* all-gather", text)
    with kernels.using(False):
        want = jax.jit(functools.partial(adamx.step, opt))(x, opt.init(x), x)
    same(stepped(params, state, grads), want)


def test_in_an_explicit_mesh_results_have_the_types_that_plain_jax_gives_them():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    opt = adamx.adamw(0.1)
    with jax.set_mesh(mesh):
        params = jax.device_put(jnp.ones((64, 16)), NamedSharding(mesh, P()))
        state = opt.init(jax.device_put(jnp.ones((64, 16)), NamedSharding(mesh, P("x"))))
        got = jax.eval_shape(functools.partial(adamx.step, opt), params, state, params)
        with kernels.using(False):
            want = jax.eval_shape(functools.partial(adamx.step, opt), params, state, params)
    assert str(got) == str(want)


def test_shards_of_different_sizes_are_stepped_as_whole_arrays():
    """`with_sharding_constraint` may ask for them, and no custom call can have them."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    opt, params = adamx.adamw(0.1, storage="int8"), {"even": jnp.ones((10, 8)), "odd": jnp.ones(13)}
    specs = {"even": P(None, "x"), "odd": P("x")}
    uneven = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)

    def step(params):
        grads = jax.lax.with_sharding_constraint(params, uneven)
        return adamx.step(opt, params, opt.init(params), grads)

    got = jax.jit(step)(params)
    with kernels.using(False):
        same(got, jax.jit(step)(params))
