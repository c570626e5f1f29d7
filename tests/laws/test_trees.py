# SPDX-License-Identifier: Apache-2.0
"""Contract 9: every tree goes through, and `init` needs shapes only."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import adamx
from tests import cases
from tests.cases import every_pair, form


@pytest.mark.parametrize("tree", cases.TREES.values(), ids=cases.TREES)
@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(cases.RECIPES[k], id=k, marks=() if k == "adamw" else pytest.mark.slow)
        for k in ("adamw", *cases.RULES)
    ],
)
def test_every_tree_goes_through(recipe, tree):
    opt, params = recipe(), tree()
    state = opt.init(params)
    grads = jax.tree.map(lambda p: 0.5 * p, params)
    updates, new = opt.update(grads, state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert jax.tree.structure(state) == jax.tree.structure(new)
    assert form(state) == form(new)
    optax.apply_updates(params, updates)


@every_pair
def test_init_needs_shapes_only(recipe, storage):
    params = cases.params("bfloat16")
    shapes = jax.eval_shape(lambda: params)
    opt = recipe(storage=storage)
    assert (
        form(jax.eval_shape(opt.init, shapes)) == form(opt.init(shapes)) == form(opt.init(params))
    )


@pytest.mark.parametrize("storage", cases.STORAGES)
def test_init_keeps_a_parameters_sharding(storage):
    mesh = Mesh(np.array(jax.devices()), "x")
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    params = jax.device_put(jnp.ones((16, 3)), sharding)
    state = adamx.amsgrad(0.1, storage=storage).init(params)
    moments = [x for x in jax.tree.leaves(state) if x.ndim]
    assert len(moments) == 3
    assert all(x.sharding.is_equivalent_to(sharding, 2) for x in moments)
