# SPDX-License-Identifier: Apache-2.0
"""A leaf has one name in every framework: the same model gives the same run, leaf by leaf."""

import typing

import chex
import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import adamx
from adamx import health
from adamx.core import paths
from adamx.parallel import Run
from tests.products import some_slow

SHAPES = {
    "embedder": {"embedding": (5, 4)},
    "dense": {"kernel": (4, 3), "bias": (3,)},
    "norm": {"scale": (3,), "bias": (3,)},
}
STEPS = 3

CONFIGURED = {
    "mask": lambda: adamx.adamw(0.1, weight_decay=0.5, mask="!*/bias|*/scale"),
    "mask of one": lambda: adamx.adamw(0.1, weight_decay=0.5, mask="*/kernel"),
    "table": lambda: adamx.adam(0.1, storage={"*/embedding": "float32", "*": "int8"}),
    "packed table": lambda: adamx.adam(0.1, storage={"*/embedding": "int8", "*": "int4"}),
    "lamb": lambda: adamx.lamb(0.1, storage={"norm/*": "bfloat16", "*": "float32"}),
    "observed": lambda: health.observe(adamx.adam(0.1), groups=["*/bias"], per_leaf=True),
    "guarded": lambda: health.skip_nonfinite(health.skip_spikes(adamx.adam(0.1))),
    "partition": lambda: optax.partition(
        {True: adamx.adamw(0.1, mask="!*/bias", weight_decay=0.5), False: adamx.lion(0.1)},
        paths.mask("dense/*"),
    ),
}


def values(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


class Group(equinox.Module):
    """Some layer of Equinox, with any parameters."""

    embedding: typing.Any = None
    kernel: typing.Any = None
    scale: typing.Any = None
    bias: typing.Any = None


class Model(equinox.Module):
    """A model of Equinox."""

    embedder: Group
    dense: Group
    norm: Group


class Linen(linen.Module):
    """The parameters as a model of linen makes them, boxed if it says how they are split."""

    boxed: bool
    seed: int

    def setup(self):
        box = (lambda f: linen.with_partitioning(f, (None,))) if self.boxed else (lambda f: f)
        given = values(self.seed)
        self.groups = {name: LinenGroup(group, box, name=name) for name, group in given.items()}

    def __call__(self):
        return [group() for group in self.groups.values()]


class LinenGroup(linen.Module):
    given: typing.Any
    box: typing.Any

    @linen.compact
    def __call__(self):
        return [
            self.param(name, self.box(lambda key, x=x: jnp.asarray(x)))
            for name, x in self.given.items()
        ]


class Nnx(nnx.Module):
    """The same as a model of nnx."""

    def __init__(self, seed):
        for name, group in values(seed).items():
            made = nnx.Module()
            for leaf, x in group.items():
                setattr(made, leaf, nnx.Param(x))
            setattr(self, name, made)


TREES = {
    "linen": lambda seed: Linen(False, seed).init(jax.random.key(0))["params"],
    "linen, boxed": lambda seed: Linen(True, seed).init(jax.random.key(0))["params"],
    "nnx": lambda seed: nnx.split(Nnx(seed), nnx.Param)[1],
    "equinox": lambda seed: Model(**{k: Group(**group) for k, group in values(seed).items()}),
}


def trained(opt, build):
    """The parameters after some steps, by name, and what the state says."""
    params = build(0)
    state, update = opt.init(params), jax.jit(opt.update)
    for seed in range(1, 1 + STEPS):
        updates, state = update(build(seed), state, params)
        params = optax.apply_updates(params, updates)
    return dict(zip(paths.names(params), jax.tree.leaves(params), strict=True)), said(state)


def trained_by_nnx(opt):
    """As `trained`, by `nnx.Optimizer`, whose `init` sees boxes and whose `update` sees none."""
    model = Nnx(0)
    optimizer = nnx.Optimizer(model, opt, wrt=nnx.Param)
    step = nnx.jit(lambda optimizer, model, grads: optimizer.update(model, grads))
    for seed in range(1, 1 + STEPS):
        step(optimizer, model, nnx.split(Nnx(seed), nnx.Param)[1])
    params = nnx.split(model, nnx.Param)[1]
    named = dict(zip(paths.names(params), jax.tree.leaves(params), strict=True))
    return named, said(nnx.as_pure(optimizer.opt_state))


def said(state):
    try:
        return health.read(state)
    except ValueError:
        return {}


@some_slow("configured", CONFIGURED, [name for name in CONFIGURED if name != "observed"])
def test_the_same_leaves_are_chosen_in_every_framework(configured):
    configured = CONFIGURED[configured]
    want, figures = trained(configured(), values)
    for name, build in TREES.items():
        got, seen = trained(configured(), build)
        chex.assert_trees_all_equal(got, want, custom_message=name)
        chex.assert_trees_all_close(seen, figures, rtol=1e-5, custom_message=name)  # other orders
    got, seen = trained_by_nnx(configured())
    chex.assert_trees_all_close(
        got, want, rtol=1e-6, atol=1e-7
    )  # the step is fused into its addition
    chex.assert_trees_all_close(seen, figures, rtol=1e-5)


@pytest.mark.parametrize("build", [values, *TREES.values()], ids=["dict", *TREES])
def test_states_are_converted_by_name_in_every_framework(build):
    table = {"*/embedding": "float32", "*": "int8"}
    before, after = adamx.adam(0.1), adamx.adam(0.1, storage=table)
    params = build(0)
    _, state = before.update(build(1), before.init(params), params)
    converted = adamx.convert(state, before, after, params)
    made = jax.eval_shape(after.init, params)
    assert jax.tree.structure(converted) == jax.tree.structure(made)
    kept = {
        n: x.dtype
        for n, x in zip(paths.names(params), jax.tree.leaves(converted[0].nu), strict=True)
    }
    assert kept == {n: jnp.float32 if n.endswith("embedding") else jnp.uint8 for n in kept}


@pytest.mark.parametrize("build", [values, *TREES.values()], ids=["dict", *TREES])
def test_checkpoints_come_back_in_every_framework(build, tmp_path):
    opt = adamx.adamw(0.1, storage={"*/embedding": "float32", "*": "int8"}, mask="*/kernel")
    params = build(0)
    updates, state = opt.update(build(1), opt.init(params), params)
    run = Run(optax.apply_updates(params, updates), state)
    with adamx.Checkpoints(tmp_path, opt) as kept:
        kept.save(1, run)
        back = kept.restore(Run(build(0), opt.init(build(0))))
    chex.assert_trees_all_equal(back, run)
