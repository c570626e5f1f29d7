# SPDX-License-Identifier: Apache-2.0
"""Contract 10: random bits come from a counter hash."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import adamx
from adamx.core import random_bits


@pytest.mark.parametrize("spec", [PartitionSpec("x"), PartitionSpec(None, "x"), PartitionSpec()])
def test_codes_do_not_depend_on_sharding(spec):
    mesh = Mesh(np.array(jax.devices()), "x")
    params = jnp.asarray(np.random.default_rng(0).normal(size=(16, 24)), jnp.float32)
    opt = adamx.adam(0.1, storage="bfloat16")
    plain, spread = params, jax.device_put(params, NamedSharding(mesh, spec))
    s, z = opt.init(plain), opt.init(spread)
    for _ in range(3):
        _, s = opt.update(plain, s)
        _, z = opt.update(spread, z)
    np.testing.assert_array_equal(s[0].nu, z[0].nu)


def test_codes_do_not_depend_on_restarts_nor_on_the_company_of_other_leaves():
    opt = adamx.adam(0.1, storage="bfloat16")
    params = {"a": jnp.ones(100), "b": 2 * jnp.ones(100)}
    _, state = opt.update(params, opt.init(params))
    _, ahead = opt.update(params, state)
    restored = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), state)
    chex.assert_trees_all_equal(opt.update(params, restored)[1], ahead)
    alone, _ = {"b": params["b"]}, None
    _, one = opt.update(alone, opt.init(alone))
    np.testing.assert_array_equal(one[0].nu["b"], state[0].nu["b"])


def noise(words, size, draw):
    return random_bits.noise(random_bits.Key(words), (size,)).draw(draw)


def test_noise_is_uniform_and_its_streams_differ():
    streams = np.stack(
        [
            np.asarray(
                random_bits.noise(
                    random_bits.Key(random_bits.words(seed, 5, leaf)), (1 << 14,)
                ).draw(draw)
            ).view(np.uint32)
            for seed, leaf, draw in itertools.product((0, 1), (7, 8), range(5))
        ]
    )
    unit = streams / 2.0**32
    # A mean of 2^14 uniforms has a standard deviation of 0.00226: five of them.
    assert np.abs(unit.mean(1) - 0.5).max() < 0.0113
    for bit in range(32):  # each bit is a fair coin: 2^14 tosses, five standard deviations
        assert np.abs(((streams >> bit) & 1).mean(1) - 0.5).max() < 0.0196
    correlation = np.corrcoef(unit) - np.eye(len(unit))
    assert np.abs(correlation).max() < 0.039
    assert np.abs(np.corrcoef(unit[0, :-1], unit[0, 1:])[0, 1]) < 0.039
    assert np.unique(streams[0]).size == 1 << 14


@pytest.mark.parametrize("draw", range(5))
def test_noise_is_even_over_time_in_every_element(draw):
    """Of n steps, an element spends its share in each part of the circle, to 8 in place of
    the sqrt(n) of chance: what is rounded up too often now is rounded down soon."""
    steps = 987
    at = jax.vmap(lambda t: noise(random_bits.words(3, t, 7), 64, draw))
    unit = np.asarray(at(jnp.arange(steps))).view(np.uint32) / 2.0**32
    for part in (0.001, 0.1, 0.25, 0.5, 0.9):
        assert np.abs((unit < part).sum(0) - part * steps).max() < 8


def test_members_of_a_vmap_draw_their_own_bits_if_their_seeds_are_their_own():
    """The mean of 32 members is then 32 times as exact as one; with one seed for all it is not."""
    grads = jnp.asarray(np.random.default_rng(0).normal(size=(20, 500)), jnp.float32)

    def direction(storage):
        opt = adamx.scale_by_adam(storage=storage)
        _, updates = jax.lax.scan(lambda s, g: opt.update(g, s)[::-1], opt.init(grads[0]), grads)
        return updates[-1]

    exact = direction("float32")

    @jax.jit
    @jax.vmap
    def member(seed):
        return direction(adamx.storage.int8(seed=seed)) - exact

    off = member(jnp.arange(32))
    ratio = jnp.mean(off.mean(0) ** 2) / jnp.mean(off**2)
    assert 0.5 / 32 < ratio < 2 / 32
    alike = member(jnp.zeros(32, jnp.int32))
    np.testing.assert_array_equal(alike, jnp.broadcast_to(alike[0], alike.shape))
    np.testing.assert_allclose(off[3], direction(adamx.storage.int8(seed=3)) - exact, atol=1e-6)


def test_members_of_a_vmap_land_by_their_own_bits_if_their_seeds_are_their_own():
    params = jnp.ones(1_000, jnp.bfloat16)

    @jax.vmap
    def member(seed):
        opt = optax.chain(optax.sgd(2.0**-10), adamx.landing.stochastic(seed=seed))
        return opt.update(params, opt.init(params), params)[0]

    landed = member(jnp.arange(16))
    assert np.abs(np.corrcoef(landed) - np.eye(16)).max() < 0.16  # five deviations of 1000^-1/2
