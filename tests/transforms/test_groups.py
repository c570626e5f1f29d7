# SPDX-License-Identifier: Apache-2.0
"""Groups of leaves, each with an optimizer of its own, against `optax.partition` and by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx import kernels, parallel
from tests import cases


def model(dtype="float32"):
    """Leaves for three groups."""
    rng = np.random.default_rng(0)
    shapes = {"embedding": (10, 4), "dense": {"kernel": (4, 16), "bias": (16,)}, "scale": (4,)}
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda s: isinstance(s, tuple))


def table(**more):
    return {
        "*/kernel": optax.contrib.muon(0.02),
        "*/embedding": adamx.adamw(1e-2, storage="int8", **more),
        "*": adamx.adamw(1e-3, weight_decay=0.1, mask="!*/bias|*/scale", **more),
    }


def test_each_leaf_steps_as_by_its_own_optimizer_alone():
    params, opt = model(), adamx.groups(table())
    kernel, embedding, rest = table().values()

    def split(tree):
        return [
            (kernel, {"dense": {"kernel": tree["dense"]["kernel"]}}),
            (embedding, {"embedding": tree["embedding"]}),
            (rest, {"dense": {"bias": tree["dense"]["bias"]}, "scale": tree["scale"]}),
        ]

    state = opt.init(params)
    assert isinstance(state, optax.PartitionState)
    parts = [part for _, part in split(params)]
    states = [own.init(part) for own, part in split(params)]
    with jax.numpy_dtype_promotion("standard"):  # of Muon by itself
        for seed in range(2):
            grads = cases.grads(params, seed)
            params, state = adamx.step(opt, params, state, grads)
            for i, (own, g) in enumerate(split(grads)):
                parts[i], states[i] = adamx.step(own, parts[i], states[i], g)
    for (_, got), want in zip(split(params), parts, strict=True):
        chex.assert_trees_all_close(got, want, rtol=1e-6)  # two programs, of two shapes


@pytest.mark.optimized
def test_a_clip_in_front_sees_all_leaves_and_a_step_in_one_pass_is_the_plain_step():
    """Loops in C++ in the groups that have them: the same bits as by XLA alone."""
    params = model("bfloat16")
    rest = {"*/kernel": optax.sgd(0.1, momentum=0.9), "*": adamx.adamw(1e-2, landing="kahan")}
    opt, grads = optax.chain(adamx.clip_by_global_norm(0.5), adamx.groups(rest)), params
    state, found = opt.init(params), []
    for loops in (True, False):
        with kernels.using(loops):
            step = jax.jit(lambda *args: adamx.step(opt, *args))
            calls = step.lower(params, state, grads).as_text().count("custom_call @adamx_step")
            assert calls == (3 if loops and kernels.available() else 0)
            found.append(step(*step(params, state, grads), grads))
    chex.assert_trees_all_equal(*found)
    clipped = found[0][1][1].inner_states["*"].inner_state[0].mu
    norm = np.sqrt(sum(float(jnp.sum(x.astype(jnp.float32) ** 2)) for x in jax.tree.leaves(grads)))
    want = (1 - 0.9**2) * params["scale"].astype(jnp.float32) * 0.5 / norm
    np.testing.assert_allclose(clipped["scale"], want, rtol=0.01)  # bfloat16 gradients


def test_what_a_call_overrides_reaches_all_groups_or_one():
    params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
    opt = adamx.groups({"kernel": adamx.adam(0.1), "*": adamx.adam(0.1)})

    def moved(rate):
        updates, _ = opt.update(params, opt.init(params), params, learning_rate=rate)
        return [round(float(updates[k][0]), 6) for k in ("kernel", "bias")]

    assert moved(0.5) == [-0.5, -0.5]
    assert moved({"kernel": 0.25}) == [-0.25, -0.1]


def test_masks_none_and_frameworks_trees_are_no_hindrance():
    params = {"a": {"kernel": jnp.ones(2)}, "b": {"kernel": jnp.ones(2), "bias": None}}
    opt = adamx.groups({"b/kernel": adamx.adam(0.1), "*": optax.sgd(0.5)})
    state = opt.init(params)
    params, _ = jax.jit(lambda *args: adamx.step(opt, *args))(params, state, params)
    np.testing.assert_allclose([params[k]["kernel"][0] for k in "ab"], [0.5, 0.9], rtol=1e-6)
    mask = {"a": {"kernel": False}, "b": {"kernel": True, "bias": None}}
    assert optax.masked(opt, mask).init(params) is not None  # a pattern for a hidden leaf is right


@pytest.mark.parametrize(
    "patterns, said",
    [
        (["*/kernel", "*/biass", "*"], r"no leaf matches '\*/biass'; the nearest are dense/bias"),
        (["*/kernel", "scale"], r"dense/bias: no pattern of `groups` matches this leaf; the near"),
        (["*", "scale"], r"no leaf is left for 'scale': '\*' comes first and takes scale"),
        ([], "must have at least one pattern"),
    ],
)
def test_patterns_and_leaves_without_each_other_are_named(patterns, said):
    with pytest.raises(ValueError, match=said):
        adamx.groups(dict.fromkeys(patterns, optax.sgd(0.1))).init(model())


def test_what_is_no_optimizer_and_what_is_no_state_of_these_groups_is_named():
    with pytest.raises(TypeError, match=r"optimizers of Optax's kind, got '\*': str"):
        adamx.groups({"*": "adam"})
    params, opt = model(), adamx.groups({"*": adamx.adam(0.1)})
    other = adamx.groups({"*/kernel": adamx.adam(0.1), "*": adamx.adam(0.1)}).init(params)
    with pytest.raises(ValueError, match=r"should be one of '\*'; got one of"):
        opt.update(params, other, params)


def test_a_leaf_without_a_gradient_is_named():
    params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
    opt = adamx.groups({"kernel": adamx.adam(0.1), "*": optax.sgd(0.1)})
    said = "groups: bias: the tree of parameters has this leaf, the gradient does not"
    with pytest.raises(ValueError, match=said):
        opt.update({"kernel": jnp.ones(2), "bias": None}, opt.init(params), params)


@pytest.mark.parametrize("how", ["shard_map", pytest.param("jit", marks=pytest.mark.slow)])
def test_zero_on_eight_devices_takes_the_steps_of_one(how):
    params = model("bfloat16")
    opt = optax.chain(
        adamx.clip_by_global_norm(0.5),
        adamx.groups({"*/kernel": adamx.lion(1e-3), "*": adamx.adamw(1e-2, landing="stochastic")}),
    )
    batch = jnp.ones((8, 1))

    def loss(p, x):
        return (
            sum(jnp.mean(leaf.astype(jnp.float32) ** 2) for leaf in jax.tree.leaves(p)) * x.mean()
        )

    train = parallel.data_parallel(loss, opt, params, how=how, zero=True)
    run = train.init(params)
    for _ in range(2):
        run, _ = train.step(run, batch)
    state = opt.init(params)
    for _ in range(2):
        params, state = adamx.step(opt, params, state, jax.grad(loss)(params, batch))
    chex.assert_trees_all_equal(train.collect(run).params, params)


def test_a_rate_that_no_group_takes_is_refused():
    params = {"dense": {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}}
    muon = adamx.store(optax.contrib.muon(0.02), "bfloat16")
    opt = adamx.groups({"*/kernel": muon, "*": adamx.adam(1e-3)})
    state = opt.init(params)
    opt.update(params, state, params, learning_rate={"*": 1e-4})
    with pytest.raises(ValueError, match=r"the optimizer of '\*/kernel' is Optax's"):
        opt.update(params, state, params, learning_rate={"*/kernel": 1e-4})
    with pytest.raises(ValueError, match=r"there is no group '\*/kernle'; the nearest are"):
        opt.update(params, state, params, learning_rate={"*/kernle": 1e-4})
