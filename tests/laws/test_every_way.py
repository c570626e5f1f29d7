# SPDX-License-Identifier: Apache-2.0
"""A step is the same eager, jitted, scanned, vmapped and mapped over devices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests import cases


class Variants(chex.TestCase):
    """`chex.all_variants` makes this one test five: eager and jitted, on this device or on all."""

    @chex.all_variants
    def test_all_variants_take_the_same_step(self):
        for recipe in cases.RECIPES.values():
            opt = recipe()
            params = {"w": jnp.arange(1.0, 7.0).reshape(2, 3)}
            grads = {"w": jnp.linspace(-3.0, 2.0, 6).reshape(2, 3)}
            want, _ = opt.update(grads, opt.init(params), params)

            def step(grads, params, opt=opt):
                return opt.update(grads, opt.init(params), params)[0]

            chex.assert_trees_all_close(self.variant(step)(grads, params), want, rtol=1e-6)


@cases.pairs(fast_rules=("adam", "lamb"))
def test_plain_jit_vmap_scan_and_pmap_agree(recipe, storage):
    opt = recipe(storage=storage)
    params = cases.params()["dense"]
    grads = [cases.grads(params, seed) for seed in range(3)]

    def run(params, grads):
        state = opt.init(params)
        for g in grads:
            updates, state = opt.update(g, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    def scanned(params, grads):
        def body(carry, g):
            updates, state = opt.update(g, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        stacked = jax.tree.map(lambda *x: jnp.stack(x), *grads)
        return jax.lax.scan(body, (params, opt.init(params)), stacked)[0]

    want = run(params, grads)
    copies = jax.tree.map(lambda x: jnp.stack([x] * 8), (params, grads))
    fourth = functools.partial(jax.tree.map, lambda x: x[3])
    ways = {
        "jit": jax.jit(run)(params, grads),
        "scan": jax.jit(scanned)(params, grads),
        "vmap": fourth(jax.jit(jax.vmap(scanned))(*copies)),
        "pmap": fourth(jax.pmap(scanned)(*copies)),
    }
    # Fused and unfused float32 may differ in the last bit, which stochastic rounding can turn
    # into one unit of bfloat16 (2^-8) in a moment.
    rtol, atol = (2e-6, 1e-6) if storage == "float32" else (1.6e-2, 1e-3)
    for way, got in ways.items():
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=way)
