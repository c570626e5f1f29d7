# SPDX-License-Identifier: Apache-2.0
"""A function as one map must be what it is without, to the bit, and only if it is elementwise."""

import contextlib
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import adamx
from adamx.core import kernel_use, one_map
from tests.cases import LANDINGS, STORAGES
from tests.products import rest_slow

P = PartitionSpec


@pytest.fixture
def everywhere(monkeypatch):
    """Uses maps on this machine's CPU, too, from when it is called."""
    contexts = contextlib.ExitStack()

    def start() -> None:
        jax.clear_caches()
        contexts.enter_context(kernel_use.compiling_for("gpu"))
        monkeypatch.setattr(
            one_map.primitive, "bind", lambda *args, jaxpr: one_map.mapped(*args, jaxpr=jaxpr)
        )

    yield start
    contexts.close()
    monkeypatch.undo()
    jax.clear_caches()


def text(function, *args, platform="cuda"):
    """The program of `function` as JAX hands it to XLA."""
    with kernel_use.compiling_for("gpu" if platform == "cuda" else platform):
        return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def long(x, scalar: Any = 1.5):
    for _ in range(20):
        x = jnp.abs(x * scalar) - 0.25
    return x


@rest_slow(
    "recipe, storage, dtype",
    itertools.product(["adamw", "adan", "amsgrad"], STORAGES, ["float32", "bfloat16"]),
    [
        ("adamw", "int8", "bfloat16"),
        ("adan", "int4", "float32"),
        ("amsgrad", "bfloat16", "bfloat16"),
    ],
)
def test_maps_change_no_bit(everywhere, recipe, storage, dtype):
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
        return jax.tree.map(np.asarray, (updates, state))

    with kernel_use.using(False):
        plain = {landing: stepped(landing) for landing in landings}
    everywhere()
    for landing in landings:
        jax.tree.map(np.testing.assert_array_equal, stepped(landing), plain[landing])


@pytest.mark.parametrize("storage", ["bfloat16", "int8", "int4"])
def test_moments_in_few_bits_are_a_map(storage):
    params = {"w": jnp.ones((24, 35))}
    opt = adamx.adamw(0.1, storage=storage)
    assert text(opt.update, params, opt.init(params), params).count("stablehlo.map") == 1


def test_only_gpus_get_maps():
    f, x = functools.partial(one_map.one_map, long), jnp.ones((3, 5))
    assert text(f, x).count("stablehlo.map") == 1
    for platform in ("cpu", "tpu"):
        assert "stablehlo.map" not in text(f, x, platform=platform)


def test_kernels_that_are_turned_off_are_no_maps(monkeypatch):
    f, x = functools.partial(one_map.one_map, long), jnp.ones((3, 5))
    with kernel_use.using(False):
        assert "stablehlo.map" not in text(f, x)
    monkeypatch.setenv("ADAMX_KERNELS", "0")
    assert "stablehlo.map" not in text(lambda x: f(x), x)


def test_arrays_that_a_function_holds_are_operands(everywhere):
    held = np.arange(15.0, dtype=np.float32).reshape(3, 5)

    def f(x):
        return long(x * held) + jax.lax.broadcasted_iota(jnp.float32, (3, 5), 1)

    x = jnp.linspace(-1, 1, 15).reshape(3, 5)
    want = jax.jit(f)(x)
    everywhere()
    assert text(lambda x: one_map.one_map(f, x), x).count("stablehlo.map") == 1
    np.testing.assert_array_equal(jax.jit(lambda x: one_map.one_map(f, x))(x), want)


def test_scalars_of_a_step_are_operands_of_the_map():
    program = text(lambda x, s: one_map.one_map(long, x, s), jnp.ones((3, 5)), jnp.float32(2))
    assert program.count("stablehlo.map") == 1
    assert "broadcast_in_dim" in program


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
    ],
)
def test_a_function_that_mixes_elements_is_no_map(mixing):
    x = jnp.arange(16.0).reshape(4, 4)
    assert "stablehlo.map" not in text(lambda x: one_map.one_map(lambda x: long(mixing(x)), x), x)
    assert "stablehlo.map" in text(lambda x: one_map.one_map(long, x), x)


@pytest.mark.parametrize(
    "results",
    [
        lambda x: (long(x), x * 2, x + 1),  # 96 bits
        lambda x: (long(x), jnp.sum(x)),
        lambda x: jax.lax.complex(long(x), x),
        lambda x: None,
    ],
)
def test_results_that_fit_into_no_word_make_no_map(results):
    assert "stablehlo.map" not in text(lambda x: one_map.one_map(results, x), jnp.ones((3, 5)))


@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_a_number_or_nothing_is_no_map(shape):
    assert "stablehlo.map" not in text(lambda x: one_map.one_map(long, x), jnp.ones(shape))


def test_derivatives_and_vmap_are_those_of_the_function():
    x = jnp.linspace(-1, 1, 12).reshape(3, 4)
    f = functools.partial(one_map.one_map, long)
    for of in (lambda f: jax.grad(lambda x, s: f(x, s).sum(), (0, 1)), jax.vmap):
        args = (x, jnp.float32(1.5)) if of is not jax.vmap else (x, jnp.ones(3))
        jax.tree.map(np.testing.assert_array_equal, of(f)(*args), of(long)(*args))


def test_sharded_leaves_stay_where_they_are(everywhere):
    everywhere()
    mesh = jax.make_mesh((4, 2), ("x", "y"))

    def put(x, *spec):
        return jax.device_put(x, NamedSharding(mesh, P(*spec)))

    params = {"w": put(jnp.ones((16, 8), "bfloat16"), "x", "y"), "b": put(jnp.ones(8), "y")}
    opt = adamx.adamw(1e-3, storage="int8", landing="stochastic")
    lowered = jax.jit(opt.update).lower(params, opt.init(params), params)
    program = lowered.compile()
    assert "stablehlo.map" in str(lowered.as_text())
    assert not any(f" {op}" in str(program.as_text()) for op in ("all-", "collective-"))
    updates, state = program.output_shardings
    assert updates["w"].is_equivalent_to(params["w"].sharding, 2)
    assert state[0].mu["b"].is_equivalent_to(params["b"].sharding, 1)
