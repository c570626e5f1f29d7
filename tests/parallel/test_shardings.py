# SPDX-License-Identifier: Apache-2.0
"""Where states lie: with their parameters, whatever class holds them; and what knows Optax's state
knows ours."""

import functools
import math

import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx
from adamx.parallel import init_sharded, state_shardings

PARAMS = {
    "dense": {"kernel": jnp.ones((16, 64)), "bias": jnp.ones(64)},
    "mu": {"kernel": jnp.ones((64, 16))},
    "kernel": jnp.ones((8, 8)),
}
SPECS = {
    "dense": {"kernel": P(None, "model"), "bias": P("model")},
    "mu": {"kernel": P("model")},
    "kernel": P(),
}
OPTIMIZERS = {
    "adam": optax.adam(1e-3),
    "adamw, ours": adamx.adamw(1e-3),
    "int8": adamx.adamw(1e-3, storage="int8"),
    "int4": adamx.adamw(1e-3, storage="int4", landing="stochastic"),
    "multi steps": optax.MultiSteps(adamx.adam(1e-3), 2).gradient_transformation(),
    "accumulate": adamx.accumulate(adamx.adam(1e-3), 2),
    "fold": adamx.fold_micro_batches(adamx.adam(1e-3), 2),
    "masked": optax.masked(optax.adam(1e-3), {"dense": True, "mu": False, "kernel": True}),
    "partition": optax.partition(
        {"a": adamx.adam(1e-3), "b": optax.sgd(1e-3, 0.9)}, {"dense": "a", "mu": "b", "kernel": "a"}
    ),
    "inject": optax.inject_hyperparams(optax.adam)(1e-3),
    "schedule free": optax.contrib.schedule_free_adamw(1e-3),
    "adafactor": optax.adafactor(1e-3, min_dim_size_to_factor=8),
    "muon": optax.contrib.muon(1e-3),
    "lbfgs": optax.scale_by_lbfgs(),
}


def mesh(kind="Auto"):
    return jax.make_mesh((4, 2), ("data", "model"), (getattr(AxisType, kind),) * 2)


def spec_of(leaf):
    return leaf.sharding.spec


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_leaves_of_a_parameter_lie_as_it_does(name):
    opt = OPTIMIZERS[name]
    with jax.numpy_dtype_promotion("standard"):
        shardings, report = state_shardings(opt, PARAMS, mesh(), SPECS)
        state = init_sharded(opt, PARAMS, shardings)
        want = jax.eval_shape(opt.init, PARAMS)
    assert jax.tree.structure(state) == jax.tree.structure(want)
    assert report.axis is None
    by_shape = {
        (16, 64): P(None, "model"), (64,): P("model"), (64, 16): P("model"), (8, 8): P(),
    }  # fmt: skip
    found = set()
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        is_factored = "v_" in jax.tree_util.keystr(path)  # (64,) there is no bias
        if leaf.shape in by_shape and not is_factored:
            assert leaf.sharding.spec == by_shape[leaf.shape], path
            found.add(leaf.shape)
        elif is_factored and leaf.shape == (64,):  # means of a parameter, cut as its columns are
            assert leaf.sharding.spec == P("model"), path
        else:
            assert leaf.sharding.is_fully_replicated, path
    assert len(found) >= 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zero_splits_what_divides_and_reports_the_rest(name):
    opt = OPTIMIZERS[name]
    with jax.numpy_dtype_promotion("standard"):
        shardings, report = state_shardings(opt, PARAMS, mesh(), SPECS, zero_axis="data")
        state = init_sharded(opt, PARAMS, shardings)
    flat = jax.tree_util.tree_flatten_with_path(state)[0]
    shares = {jax.tree_util.keystr(p): leaf for p, leaf in flat if leaf.ndim}
    split = {k: x for k, x in shares.items() if "data" in jax.tree.leaves(tuple(spec_of(x)))}
    assert report.split == sum(x.addressable_shards[0].data.nbytes for x in split.values())
    reported = {w.name for w in report.whole}
    for path, leaf in flat:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if leaf.size > 1 and jax.tree_util.keystr(path) not in split:
            owned = any(part in name for part in ("kernel", "bias"))
            assert (name in reported) == owned, name
    if name == "int8":
        assert spec_of(state[0].mu["dense"]["kernel"]) == P("data", "model")
        assert spec_of(state[0].mu["dense"]["bias"]) == P(("model", "data"))


def test_the_price_of_what_does_not_divide_is_told():
    params = {"odd": jnp.ones((3, 5)), "scale": jnp.ones(()), "even": jnp.ones((3, 8))}
    _, report = state_shardings(adamx.adam(1e-3), params, mesh(), zero_axis="data")
    assert {w.name: w.nbytes for w in report.whole} == {
        "0/mu/odd": 45, "0/nu/odd": 45, "0/mu/scale": 3, "0/nu/scale": 3,
    }  # fmt: skip
    assert report.split == 2 * 3 * 8 * 4 // 4
    lines = str(report).splitlines()
    assert lines[0] == "split over 'data': 48 bytes on each device; no dimension divides in"
    assert lines[-1].split() == ["all", "of", "these", "96"]
    assert "no axis" in str(state_shardings(adamx.adam(1e-3), params, mesh()).report)
    one = jax.make_mesh((1,), ("data",))
    assert not state_shardings(adamx.adam(1e-3), params, one, zero_axis="data").report.whole


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
@pytest.mark.parametrize("zero_axis", [None, "data"])
def test_a_state_made_in_place_compiles_one_step_only(kind, zero_axis):
    opt, over = adamx.adamw(1e-3, storage="int8"), mesh(kind)
    params = jax.tree.map(
        lambda p, s: jax.device_put(np.asarray(p), NamedSharding(over, s)), PARAMS, SPECS
    )
    shardings, _ = state_shardings(opt, params, over, zero_axis=zero_axis)
    state = init_sharded(opt, params, shardings)
    assert jax.tree.map(lambda x: x.sharding, state) == shardings
    places = jax.tree.map(lambda p: p.sharding, params), shardings

    def step(params, state):
        def moved(x, at):
            if kind == "Explicit":
                return jax.sharding.reshard(x, at)
            return jax.lax.with_sharding_constraint(x, at)

        part = jax.tree.map(moved, params, shardings[0].mu)
        part, state = adamx.step(opt, part, state, jax.tree.map(jnp.ones_like, part))
        return jax.tree.map(moved, part, places[0]), state

    compiled = jax.jit(step, out_shardings=places, donate_argnums=(0, 1))
    for _ in range(3):
        params, state = compiled(params, state)
    assert compiled._cache_size() == 1


def test_no_device_makes_a_whole_state():
    big = {"kernel": jax.ShapeDtypeStruct((1 << 20, 8), jnp.float32)}
    opt = adamx.adamw(1e-3)
    shardings, _ = state_shardings(opt, big, mesh(), zero_axis="data")
    make = jax.jit(opt.init, out_shardings=shardings).lower(big).compile()
    whole = 2 * math.prod(big["kernel"].shape) * 4
    found = make.memory_analysis()
    assert found.output_size_in_bytes + found.temp_size_in_bytes < whole / 4 * 1.1


def test_moments_may_rest_on_the_host():
    shardings, _ = state_shardings(adamx.adam(1e-3), PARAMS, mesh(), memory_kind="pinned_host")
    assert shardings[0].mu["kernel"].memory_kind == "pinned_host"
    assert shardings[0].count.memory_kind != "pinned_host"


def test_mistakes_are_named():
    with pytest.raises(
        ValueError, match=r"`zero_axis` must be one of \('data', 'model'\), got 'x'"
    ):
        state_shardings(adamx.adam(1e-3), PARAMS, mesh(), zero_axis="x")
    with pytest.raises(ValueError, match="`param_specs` must be a tree like `params`, or a prefix"):
        state_shardings(adamx.adam(1e-3), PARAMS, mesh(), {"dense": P()})


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_flax_takes_ours_for_an_optimizer_of_its_own(storage):
    class Net(flax.nnx.Module):
        def __init__(self, rngs):
            init = flax.nnx.with_partitioning(flax.nnx.initializers.lecun_normal(), (None, "model"))
            self.dense = flax.nnx.Linear(8, 4, kernel_init=init, rngs=rngs)

    def trained(opt):
        net = Net(flax.nnx.Rngs(0))
        optimizer = flax.nnx.Optimizer(net, opt, wrt=flax.nnx.Param)
        x = jnp.ones((2, 8))
        for _ in range(3):
            grads = flax.nnx.grad(lambda net: jnp.mean(net.dense(x) ** 2))(net)
            optimizer.update(net, grads)
        return net, optimizer

    with jax.numpy_dtype_promotion("standard"), jax.set_mesh(mesh()):
        net, optimizer = trained(adamx.adamw(1e-2, storage=storage))
        theirs, other = trained(optax.adamw(1e-2))
        specs = flax.nnx.get_partition_spec(flax.nnx.state(optimizer, flax.nnx.optimizer.OptState))
        wanted = flax.nnx.get_partition_spec(flax.nnx.state(other, flax.nnx.optimizer.OptState))
    assert jax.tree.structure(specs) == jax.tree.structure(wanted)
    assert jax.tree.leaves(specs) == jax.tree.leaves(wanted)
    np.testing.assert_allclose(
        net.dense.kernel[...], theirs.dense.kernel[...], atol=1e-6 if storage == "float32" else 0.03
    )


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_rules_that_look_for_the_class_of_optax_find_ours(storage):
    """As T5X's and MaxText's do, and `optax.tree`; packed moments have a class of their own."""
    opt = adamx.adamw(1e-3, storage=storage)
    state = opt.init(PARAMS)

    def rule(node):
        if isinstance(node, optax.ScaleByAdamState):
            return optax.ScaleByAdamState(count=P(), mu=SPECS, nu=SPECS)
        return node

    specs = jax.tree.map(rule, state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState))
    assert specs[0].mu == SPECS
    placed = optax.tree.map_params(opt, lambda p, s: s, state, SPECS)
    assert placed[0].mu == placed[0].nu == SPECS
    assert optax.tree.get(state, "nu") is state[0].nu


def test_means_of_a_parameter_take_what_is_left_of_its_spec():
    mesh = jax.make_mesh((4, 2), ("data", "model"))
    params = {"kernel": jnp.ones((8, 6)), "square": jnp.ones((8, 8))}
    specs = {"kernel": P("data", "model"), "square": P("data", "model")}
    opt = adamx.adafactor(1e-3, min_dim_size_to_factor=2)
    found = state_shardings(opt, params, mesh, specs).shardings[0]
    assert found.v_row["kernel"].spec == P("model")  # the longer dimension is averaged
    assert found.v_col["kernel"].spec == P("data")
    assert found.v_row["square"].spec == P()  # rows or columns, their shapes do not tell
    found = state_shardings(adamx.adam_mini(1e-3), params, mesh, specs).shardings[0]
    assert found.mu["square"].spec == P("data", "model")
    assert found.nu["square"].spec == P(None, "model")


@pytest.mark.parametrize(
    "make",
    [adamx.adam_mini, adamx.came, functools.partial(adamx.adafactor, min_dim_size_to_factor=2)],
)
def test_means_of_shards_lie_as_their_types_say(make):
    """With ZeRO and tensor parallelism on a mesh of explicit axes; else JAX refuses to add them."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), (AxisType.Explicit,) * 2)
    opt, params = make(1e-3), {"kernel": jnp.ones((32, 16))}
    layout = state_shardings(opt, params, mesh, {"kernel": P(None, "model")}, "data")
    split = jax.ShapeDtypeStruct(
        (32, 16), jnp.float32, sharding=NamedSharding(mesh, P("data", "model"))
    )

    def place(x, sharding):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    state = jax.tree.map(place, jax.eval_shape(opt.init, params), layout.shardings)
    with jax.set_mesh(mesh):
        _, after = jax.eval_shape(opt.update, {"kernel": split}, state, {"kernel": split})
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert NamedSharding(mesh, new.sharding.spec).is_equivalent_to(old.sharding, old.ndim)
