# SPDX-License-Identifier: Apache-2.0
"""Contracts 12 and 13: no shared buffers, and steps that lower for every platform."""

import functools

import chex
import jax
import optax
from jax import export

import adamx
from tests import cases
from tests.cases import every_pair


@every_pair
def test_no_state_leaf_shares_a_buffer(recipe, storage):
    opt = recipe(lambda count: 0.1, storage=storage, weight_decay=lambda count: 0.1)
    params = cases.params()
    state = opt.init(params)
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((params, state)) if x.size]
    assert len(set(pointers)) == len(pointers)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        updates, state = opt.update(params, state, params)
        return optax.apply_updates(params, updates), state

    params, state = step(params, state)
    params, state = step(params, state)
    chex.assert_tree_all_finite((params, state))


@every_pair
def test_exports_for_every_platform(recipe, storage):
    opt = recipe(storage=storage)
    params = cases.params("bfloat16")
    step = jax.jit(lambda g, s, p: adamx.step(opt, p, s, g))
    exported = export.export(step, platforms=("cpu", "cuda", "rocm", "tpu"))(
        params, opt.init(params), params
    )
    assert exported.platforms == ("cpu", "cuda", "rocm", "tpu")
