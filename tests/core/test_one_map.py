# SPDX-License-Identifier: Apache-2.0
"""A function as one map must be what it is without, to the bit, and only if it is elementwise."""

import functools
import itertools
import math
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.interpreters import mlir
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import adamx
from adamx.core import kernel_use, map_lowering, one_map
from tests.cases import LANDINGS, STORAGES
from tests.products import rest_slow

P = PartitionSpec
DTYPES = "float32 bfloat16 float16 int8 uint8 int16 uint16 int32 uint32".split()

# Maps on this machine's CPU, too. Only what is traced for GPUs has the operation.
mlir.register_lowering(one_map.primitive, map_lowering.lower, platform="cpu")


@pytest.fixture(autouse=True)
def not_turned_off(monkeypatch):
    monkeypatch.delenv("ADAMX_KERNELS", raising=False)


@pytest.fixture
def on_gpus():
    """Traces for GPUs."""
    with kernel_use.compiling_for("gpu"):
        yield


def text(function, *args, platform="cuda"):
    """The program of `function`, traced for GPUs, as JAX hands it to XLA for a platform."""
    with kernel_use.compiling_for("gpu"):
        return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def mapped(function):
    return functools.partial(one_map.one_map, function)


def maps(function, *args):
    return text(mapped(function), *args).count("stablehlo.map")


def long(x, scalar: Any = 1.5):
    for _ in range(20):
        x = jnp.abs(x * scalar) - 0.25
    return x


def mesh(*shape, kind=AxisType.Auto):
    if jax.device_count() < math.prod(shape):
        pytest.skip("too few devices")
    return jax.make_mesh(shape, ("x", "y")[: len(shape)], axis_types=(kind,) * len(shape))


def check_same(got, want):
    """Two trees are equal to the bit."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.dtype, a.shape, a.weak_type) == (b.dtype, b.shape, b.weak_type)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@rest_slow(
    "recipe, storage, dtype",
    itertools.product(["adamw", "adan", "amsgrad"], STORAGES, ["float32", "bfloat16"]),
    [
        ("adamw", "int8", "bfloat16"),
        ("adan", "int4", "float32"),
        ("amsgrad", "bfloat16", "bfloat16"),
    ],
)
def test_maps_change_no_bit(recipe, storage, dtype):
    landings = LANDINGS if dtype == "bfloat16" and recipe == "adamw" else ["nearest"]
    keys = jax.random.split(jax.random.key(0), 4)

    def tree(key):
        w = jax.random.normal(key, (24, 35)).astype(dtype)
        return {"w": w, "b": w[0]}

    def stepped(landing):
        opt = getattr(adamx, recipe)(0.1, storage=storage, landing=landing)
        params, update = tree(keys[0]), jax.jit(opt.update)
        state = opt.init(params)
        for key in keys[1:]:
            updates, state = update(tree(key), state, params)
        return updates, state

    for landing in landings:
        with kernel_use.using(False):
            plain = stepped(landing)
        with kernel_use.compiling_for("gpu"):
            check_same(stepped(landing), plain)


STEPS = (
    jnp.add,
    jnp.multiply,
    jnp.maximum,
    lambda x, y: jnp.where(x < y, jax.nn.relu(x), -y),
    lambda x, y: lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}"),
    lambda x, y: x + lax.broadcasted_iota(x.dtype, (3, 5), 1),
)


@pytest.mark.parametrize("seed", range(10))
def test_maps_of_random_functions_change_no_bit(on_gpus, seed):
    """Operands with any bits, results of all sizes in any order."""
    if jax.default_backend() == "gpu":
        pytest.skip("there XLA keeps more bits between operations on halves of one kernel")
    dice, bits = random.Random(seed), np.random.default_rng(seed)
    plan = [
        (dice.choice(STEPS), dice.choice(DTYPES), dice.choices(range(5), k=2)) for _ in "x" * 20
    ]
    results = dice.choices(DTYPES, k=5)
    while sum(jnp.dtype(d).itemsize for d in results) > 8:
        results.pop()

    def array(*shape):
        dtype = jnp.dtype(dice.choice(DTYPES))
        drawn = bits.bytes(dtype.itemsize * math.prod(shape))
        return jnp.asarray(np.frombuffer(drawn, dtype).reshape(shape))

    def function(*xs):
        xs = [*map(jnp.broadcast_to, xs, [(3, 5)] * 5)]
        for step, dtype, at in plan:
            xs = [*xs[1:], step(*(xs[i].astype(dtype) for i in at))]
        return [x.astype(dtype) for x, dtype in zip(xs, results, strict=False)]

    args = [array(3, 5), array(3, 5), array(3, 5), array(3, 5), array()]
    assert maps(function, *args) == 1
    check_same(jax.jit(mapped(function))(*args), jax.jit(function)(*args))


@pytest.mark.parametrize("storage", ["bfloat16", "int8", "int4"])
def test_moments_in_few_bits_are_a_map(storage):
    params = {"w": jnp.ones((24, 35))}
    opt = adamx.adamw(0.1, storage=storage)
    assert text(opt.update, params, opt.init(params), params).count("stablehlo.map") == 1


def test_only_nvidia_gpus_get_maps():
    f, x = mapped(long), jnp.ones((3, 5))
    assert text(f, x).count("stablehlo.map") == 1
    for platform in ("rocm", "tpu"):
        assert "stablehlo.map" not in text(f, x, platform=platform)
    for platform in ("cpu", "tpu"):
        with kernel_use.compiling_for(platform):
            assert str(jax.make_jaxpr(f)(x)) == str(jax.make_jaxpr(long)(x))


def test_kernels_that_are_turned_off_are_no_maps(monkeypatch):
    x = jnp.ones((3, 5))
    with kernel_use.using(False):
        assert not maps(long, x)
    with jax.disable_jit(), kernel_use.compiling_for("gpu"):  # to look into it
        one_map.one_map(lambda x: float(x[0, 0]), x)
    monkeypatch.setenv("ADAMX_KERNELS", "0")
    assert not maps(lambda x: long(x), x)


def test_scalars_of_a_step_are_operands_of_the_map():
    program = text(mapped(long), jnp.ones((3, 5)), jnp.float32(2))
    assert program.count("stablehlo.map") == 1
    assert "broadcast_in_dim" in program


@jax.custom_vjp
def unknown(x):
    return x


unknown.defvjp(lambda x: (x, None), lambda _, t: (t,))


@pytest.mark.parametrize(
    "mixing",
    [
        lambda x: jnp.cumsum(x, 0),
        jnp.sort,
        jnp.flip,
        lambda x: x - x.mean(),
        lambda x: x @ x,
        lambda x: x.T,
        lambda x: jnp.roll(x, 1),
        lambda x: x * np.arange(16.0, dtype=np.float32).reshape(4, 4),
        lambda x: lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.uint8), jnp.float32),
        lambda x: jax.jit(lambda x: x[::-1])(x),
        lambda x: lax.fori_loop(0, 2, lambda _, x: x + 1, x),
        unknown,
    ],
)
def test_a_function_that_may_mix_elements_is_no_map(on_gpus, mixing):
    x = jnp.arange(16.0).reshape(4, 4)
    assert maps(long, x)
    assert not maps(lambda x: long(mixing(x)), x)


def test_bytes_of_one_number_are_no_elements():
    """Shapes do not tell them from the four elements of the leaf."""
    x, cast = jnp.ones(4), lax.bitcast_convert_type
    assert not maps(lambda x: long(x) * cast(x.astype(jnp.uint8), jnp.float32), x)
    assert not maps(lambda x, s: long(x) * cast(s, jnp.uint8).astype(jnp.float32), x, x[0])


@pytest.mark.parametrize(
    "results",
    [
        lambda x: (long(x), x * 2, x + 1),  # 96 bits
        lambda x: (long(x), jnp.sum(x)),
        lambda x: (long(x), x > 0),
        lambda x: long(x).astype(jnp.int4),
        lambda x: lax.complex(long(x), x),
        lambda x: long(jnp.zeros((3, 5))),  # without an operand
        lambda x: None,
    ],
)
def test_results_that_fit_into_no_word_make_no_map(results):
    assert not maps(results, jnp.ones((3, 5)))


def test_operands_without_whole_bytes_make_no_map():
    assert not maps(lambda x: long(x.astype(jnp.float32)), jnp.ones((3, 5), jnp.int4))


@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_a_number_or_nothing_is_no_map(shape):
    assert not maps(long, jnp.ones(shape))


def test_derivatives_and_vmap_are_those_of_the_function(on_gpus):
    x = jnp.linspace(-1, 1, 12).reshape(3, 4)
    for of in (lambda f: jax.grad(lambda x, s: f(x, s).sum(), (0, 1)), jax.vmap):
        args = (x, jnp.float32(1.5)) if of is not jax.vmap else (x, jnp.ones(3))
        check_same(of(mapped(long))(*args), of(long)(*args))


def test_whole_numbers_have_no_derivative(on_gpus):
    x = jnp.linspace(-1, 1, 12).reshape(3, 4)

    def loss(f, x):
        found, codes = f(x)
        return (found * codes.astype(jnp.float32)).sum()

    def coded(x):
        return long(x), lax.bitcast_convert_type(x.astype(jnp.bfloat16), jnp.int16)

    check_same(jax.grad(loss, 1)(mapped(coded), x), jax.grad(loss, 1)(coded, x))


def test_a_function_may_hold_traced_values(on_gpus):
    x = jnp.linspace(-1, 1, 12).reshape(3, 4)

    def loss(scalar, through=jax.jit):
        return through(lambda x: long(x, scalar))(x).sum()

    for of in (jax.jit, jax.grad, lambda f: lambda s: jax.vmap(f)(s[None])):
        want = of(loss)(jnp.float32(1.2))
        got = of(functools.partial(loss, through=lambda f: jax.jit(mapped(f))))(jnp.float32(1.2))
        check_same(got, want)


def test_effects_and_collectives_are_kept(on_gpus, capfd):
    x = jnp.linspace(-1, 1, 12).reshape(3, 4)

    def shouting(x):
        jax.debug.print("heard", ordered=True)
        return long(x)

    check_same(jax.jit(mapped(shouting))(x), jax.jit(long)(x))
    jax.effects_barrier()
    assert capfd.readouterr().out == "heard\n"

    def centred(x):
        return long(x - lax.pmean(x, "i"))

    want = jax.vmap(jax.jit(centred), axis_name="i")(x)
    check_same(jax.vmap(jax.jit(mapped(centred)), axis_name="i")(x), want)


def test_a_shard_may_have_scalars_of_its_own(on_gpus):
    devices = mesh(4)

    def along(f):
        def shard(x, scalar):
            return f(x, scalar, lax.axis_index("x").astype(jnp.float32))

        specs = {"in_specs": (P("x"), P()), "out_specs": P("x")}
        return jax.jit(jax.shard_map(shard, mesh=devices, **specs))

    def function(x, scalar, place):
        return long(x, scalar * 0.5 + place * 3.0)

    args = jnp.linspace(-1, 1, 24).reshape(8, 3), jnp.float32(2)
    assert "stablehlo.map" in text(along(mapped(function)), *args)
    check_same(along(mapped(function))(*args), along(function)(*args))


def test_numbers_have_no_sharding():
    devices = mesh(4, 2, kind=AxisType.Explicit)
    with jax.set_mesh(devices):
        x = jax.device_put(jnp.ones((8, 6)), NamedSharding(devices, P("x", "y")))
        program = text(mapped(long), x, jnp.float32(2))
    assert "stablehlo.map" in program
    assert "sharding_constraint" not in program


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_sharded_leaves_stay_where_they_are(on_gpus, kind):
    devices = mesh(4, 2, kind=kind)

    def put(x, *spec):
        return jax.device_put(x, NamedSharding(devices, P(*spec)))

    params = {"w": put(jnp.ones((16, 8), "bfloat16"), "x", "y"), "b": put(jnp.ones(8), "y")}
    opt = adamx.adamw(1e-3, storage="int8", landing="stochastic")
    lowered = jax.jit(opt.update).lower(params, opt.init(params), params)
    program = lowered.compile()
    assert "stablehlo.map" in str(lowered.as_text())
    assert not any(f" {op}" in str(program.as_text()) for op in ("all-", "collective-"))
    updates, state = program.output_shardings
    assert updates["w"].is_equivalent_to(params["w"].sharding, 2)
    assert state[0].mu["b"].is_equivalent_to(params["b"].sharding, 1)
