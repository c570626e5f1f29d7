# SPDX-License-Identifier: Apache-2.0
"""Multipliers are those of the paper's tables, and make a step's effect the same at any width."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx import knobs
from adamx.core import shards


def shapes(width, heads=2, depth=3):
    sizes = {
        "embedding": (50, width),
        "layers": {"query": (width, heads, width // 2), "out": (heads, width // 2, width)},
        "stack": (depth, width, 4 * width),
        "conv": (3, 3, width, width),
        "bias": (width,),
        "gain": (),
        "head": (width, 50),
        "frozen": None,
    }
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), sizes, is_leaf=is_shape)


INPUTS = {"*/query": (0,), "*/out": (0, 1), "stack": (-2,)}


@pytest.mark.parametrize("logits, head", [("plain", 0.25), ("divided", 1.0)])
def test_the_tables_of_the_paper(logits, head):
    found = knobs.mup_multipliers(shapes(64), shapes(16), inputs=INPUTS, logits=logits)
    hidden = {"layers": {"query": 0.25, "out": 0.25}, "stack": 0.25, "conv": 0.25}
    rest = {"embedding": 1.0, "bias": 1.0, "gain": 1.0, "head": head, "frozen": None}
    assert found == {**hidden, **rest}
    same = knobs.mup_multipliers(shapes(16), shapes(16), inputs=INPUTS, logits=logits)
    assert set(jax.tree.leaves(same)) == {1.0}


def test_one_step_moves_a_hidden_layer_alike_at_every_width():
    def moved(width):
        base = {"kernel": jnp.zeros((8, 8))}
        opt = optax.chain(adamx.scale_by_adam(), knobs.scale_by_mup(base))
        x = jax.random.normal(jax.random.key(0), (width,))
        x = x / jnp.mean(jnp.abs(x))
        params = {"kernel": jnp.zeros((width, width))}
        grads = {"kernel": jnp.outer(x, jnp.ones(width))}
        updates, _ = opt.update(grads, opt.init(params), params)
        return float((x @ updates["kernel"])[0])

    # Adam's first step is the sign: it adds up to width times the mean |x|, here 1.
    np.testing.assert_allclose([moved(8), moved(32)], [8, 8], 1e-4)


def test_groups_by_multiplier_keep_decay_and_landing():
    params = {"dense": jnp.ones((8, 8), jnp.bfloat16), "bias": jnp.ones(8, jnp.bfloat16)}
    base = {"dense": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    labels = knobs.mup_multipliers(params, base)
    rate, decay = 1e-2, 0.1
    groups = {
        m: adamx.adamw(m * rate, weight_decay=decay / m, landing="exact")
        for m in sorted(set(jax.tree.leaves(labels)))
    }
    opt = optax.partition(groups, labels)
    after, state = adamx.step(opt, params, opt.init(params), params)
    found = adamx.master_params(state, after)
    # the first step of Adam is 1
    np.testing.assert_allclose(found["dense"], 1 - rate * (0.25 + decay), 1e-6)
    np.testing.assert_allclose(found["bias"], 1 - rate * (1 + decay), 1e-6)


def test_it_sees_whole_shapes_and_its_part_of_a_partition():
    base = {"a": jnp.ones((2, 2)), "b": jnp.ones(2)}
    link = knobs.scale_by_mup(base)
    part = {"a": jnp.ones((8, 8)), "b": optax.MaskedNode()}
    updates, _ = link.update(part, link.init(part))
    assert float(updates["a"][0, 0]) == 0.25
    with shards.cutting(
        shards.Cuts("x", (("a", shards.Cut((8, 8), 0)), ("b", shards.Cut((2,), None))))
    ):
        shard = {"a": jnp.ones((1, 8)), "b": jnp.ones(2)}
        assert float(link.update(shard, optax.EmptyState())[0]["a"][0, 0]) == 0.25


@pytest.mark.parametrize(
    "params, inputs, said",
    [
        ({"a": (4, 4)}, None, "b: the base model has this leaf, the parameters do not"),
        (
            {"a": (4, 4), "b": (4,), "c": (4,)},
            None,
            "c: the parameters have this leaf, the base model does not",
        ),
        (
            {"a": (4, 4, 4), "b": (4,)},
            None,
            r"a: must have as many dimensions as in the base model, got \(4, 4, 4\) and \(2, 2\)",
        ),
        ({"a": (4, 4), "b": (4,)}, {"a": (2,)}, "a: `inputs` must be axes of 2 dimensions, got 2"),
        ({"a": (4, 4), "b": (4,)}, {"kernel": (0,)}, "`inputs`: no leaf matches 'kernel'"),
    ],
)
def test_a_wrong_tree_is_refused_by_name(params, inputs, said):
    base = {"a": jnp.ones((2, 2)), "b": jnp.ones(2)}
    params = {k: jnp.ones(shape) for k, shape in params.items()}
    with pytest.raises(ValueError, match=said):
        knobs.mup_multipliers(params, base, inputs=inputs)


def test_a_wrong_word_is_refused():
    with pytest.raises(ValueError, match="`logits` must be one of 'plain', 'divided', got 'half'"):
        knobs.scale_by_mup({}, logits="half")
