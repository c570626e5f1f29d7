# SPDX-License-Identifier: Apache-2.0
"""Compact storage around Optax's transformations: what is coded, how exactly, and where."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import adamx
from adamx import parallel
from adamx.health import leaf_stats
from tests import cases


def params(dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = {"dense": {"kernel": (12, 16), "bias": (16,)}}
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda s: isinstance(s, tuple))


# Optax's optimizers, each with the moments of a leaf that are coded and the bytes that they take.
OPTIMIZERS = {
    "muon": (optax.contrib.muon(0.02), {"mu": "int8"}),
    "adamw": (optax.adamw(1e-2), {"mu": "int8", "nu": "uint8"}),
    "adamax": (optax.adamax(1e-2), {"mu": "int8", "nu": "uint8"}),
    "adopt": (optax.contrib.adopt(1e-2), {"mu": "int8", "nu": "uint8"}),
    "amsgrad": (optax.amsgrad(1e-2), {"mu": "int8", "nu": "uint8", "nu_max": "uint8"}),
    "adabelief": (optax.adabelief(1e-2), {"mu": "bfloat16", "nu": "uint8"}),
    "lion": (optax.lion(1e-2), {"mu": "int8"}),
    "adan": (optax.adan(1e-2), {"m": "int8", "v": "int8", "n": "uint8", "g": "int8"}),
    "rmsprop": (optax.rmsprop(1e-2, momentum=0.9), {"nu": "uint8", "trace": "int8"}),
    "centred": (optax.rmsprop(1e-2, centered=True), {"mu": "float32", "nu": "float32"}),
    "adadelta": (optax.adadelta(1e-2), {"e_g": "uint8", "e_x": "uint8"}),
    "rprop": (optax.rprop(1e-2), {"step_sizes": "uint8", "prev_updates": "int8"}),
    "sgd": (optax.sgd(1e-2, momentum=0.9), {"trace": "int8"}),
    "adafactor": (optax.adafactor(1e-2, momentum=0.9), {"v": "uint8", "ema": "int8"}),
    "ademamix": (optax.contrib.ademamix(1e-2), {"m1": "int8", "m2": "float32", "nu": "uint8"}),
    "schedule_free": (optax.contrib.schedule_free_adamw(1e-2), {"z": "float32", "nu": "uint8"}),
    "prodigy": (optax.contrib.prodigy(), {"exp_avg": "float32", "exp_avg_sq": "float32"}),
}


@pytest.mark.parametrize("opt, want", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_moments_of_known_classes_are_coded_and_the_rest_stays(opt, want):
    tree = params()
    state = jax.eval_shape(adamx.store(opt, "int8").init, tree)
    plain = jax.eval_shape(opt.init, tree)
    assert jax.tree.structure(state.inner) == jax.tree.structure(plain)
    for name, dtype in want.items():
        found = [x for _, x in optax.tree.get_all_with_path(state, name)]
        leaf = next(x["dense"]["kernel"] for x in found if "dense" in x and _is_leaf(x))
        assert leaf.dtype == dtype, name
    same = [x.shape for x in jax.tree.leaves(state.inner)]
    assert same == [x.shape for x in jax.tree.leaves(plain)]


TELLING = ("muon", "adamw", "adamax", "adopt", "rprop", "ademamix")  # one of each kind of code


@pytest.mark.parametrize(
    "opt, want",
    [
        pytest.param(*x, id=name, marks=() if name in TELLING else pytest.mark.slow)
        for name, x in OPTIMIZERS.items()
    ],
)
def test_each_moment_keeps_its_size_in_its_code(opt, want):
    """Of gradients of 1e-3, whose roots, squares and means are of very different sizes."""
    tree = {"kernel": params()["dense"]["kernel"]}
    state = opt.init(tree)
    with jax.numpy_dtype_promotion("standard"):  # of Optax's own
        for seed in range(2):
            grads = jax.tree.map(lambda g: 1e-3 * g, cases.grads(tree, seed))
            _, state = opt.update(grads, state, tree)
    link = adamx.store(opt, "int8").update.link
    back = link.widened(link.narrowed(state, tree), tree)
    for name, dtype in want.items():
        a, b = (_kernel(x, name) for x in (state, back))
        off = float(jnp.linalg.norm(a - b) / jnp.maximum(jnp.linalg.norm(a), 1e-30))
        # Four numbers an octave, rounded by chance: 7% on average. Rprop's are eight.
        assert (off == 0) if dtype == "float32" else 1e-4 < off < 0.15, (name, off)


def _kernel(state, name):
    found = [x["kernel"] for _, x in optax.tree.get_all_with_path(state, name)]
    return next(x for x in found if not isinstance(x, optax.MaskedNode))


def _is_leaf(x):
    return not isinstance(x["dense"]["kernel"], optax.MaskedNode)


def remembering(storage="int8", **more):
    """Its state is the last gradient."""
    return adamx.store(optax.trace(0.0), storage, **more)


@pytest.mark.parametrize("storage", ["bfloat16", "int8", "int4"])
def test_a_mean_alone_is_rounded_without_bias_and_within_its_code(storage):
    """4,096 elements at eight steps; a quarter of an octave is 19% of a number at most."""
    sizes = jnp.asarray([0.0, 1e-9, 1e-6, 3e-4, 0.0123, -0.7, 50.0])
    grads = jnp.broadcast_to(sizes[:, None], (7, 4096))
    opt = remembering(storage)

    @jax.jit
    def last(state):
        _, state = opt.update(grads, state)
        return state, opt.update.link.widened(state, grads).trace

    state, found = opt.init(grads), []
    for _ in range(8):
        state, stored = last(state)
        found.append(np.asarray(stored, np.float64))
    found = np.concatenate(found, 1)
    width = 2**-8 if storage == "bfloat16" else 0.26  # 1 / 4 above a power of two
    want = np.asarray(sizes, np.float64)[:, None]
    assert (np.abs(found - want) <= width * np.abs(want) + 2.0**-25 / 4).all()
    assert (found[0] == 0).all()
    if storage != "bfloat16":  # to nearest there, and far finer
        off = found.std(1) / np.sqrt(found.shape[1]) * 5 + 1e-7 * np.abs(want[:, 0])
        assert (np.abs(found.mean(1) - want[:, 0]) <= off).all()


def test_what_is_not_finite_stays_visible_and_what_is_too_large_is_held():
    grads = jnp.asarray([np.nan, np.inf, -np.inf, 1e30, 0.0])
    opt = remembering()
    _, state = opt.update(grads, opt.init(grads))
    back = opt.update.link.widened(state, grads).trace
    assert np.isnan(back).tolist() == [True, True, True, False, False]
    assert 112 <= float(back[3]) < 128
    assert back[4] == 0
    link = adamx.store(optax.scale_by_adam(), "int8").update.link  # its mean's code has no NaN
    wide = optax.ScaleByAdamState(jnp.int32(1), grads, jnp.ones(5))
    back = link.widened(link.narrowed(wide, grads), grads)
    assert np.isnan(back.mu).tolist() == np.isnan(back.nu).tolist() == 3 * [True] + 2 * [False]


def test_a_step_is_that_of_the_wrapped_optimizer_from_the_decoded_state():
    tree = params()
    plain = optax.contrib.muon(0.02)
    opt = adamx.store(plain, "int8")
    state = opt.init(tree)
    with jax.numpy_dtype_promotion("standard"):  # of Muon by itself
        for seed in range(3):
            grads = cases.grads(tree, seed)
            before = adamx.convert(state, opt, plain, tree)
            assert jax.tree.structure(before) == jax.tree.structure(plain.init(tree))
            want, _ = plain.update(grads, before, tree)
            got, state = opt.update(grads, state, tree)
            chex.assert_trees_all_equal(got, want)
    assert int(state.count) == 3
    mean = before.inner_states["muon"].inner_state[0].mu["dense"]["kernel"]
    assert 0 < float(jnp.abs(mean).max()) < 1


@pytest.mark.parametrize("name", ["muon", "adafactor"])
def test_in_float32_nothing_is_lost(name):
    tree, plain = params(), OPTIMIZERS[name][0]
    opt = adamx.store(plain, "float32")

    @jax.jit
    def both(state, other, grads):
        with jax.numpy_dtype_promotion("standard"):
            return opt.update(grads, state, tree), plain.update(grads, other, tree)

    state, other = opt.init(tree), plain.init(tree)
    for seed in range(2):
        (got, state), (want, other) = both(state, other, cases.grads(tree, seed))
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-9)
    chex.assert_trees_all_close(state.inner, other, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("storage", ["int8", "int4"])
def test_dtypes_stay_in_a_scan_of_half_precision_parameters(storage):
    tree = params("bfloat16")
    opt = adamx.store(optax.adamw(1e-2), storage)

    def one(carry, _):
        return adamx.step(opt, *carry, carry[0]), None

    first = (tree, opt.init(tree))
    (end, state), _ = jax.lax.scan(one, first, length=3)
    assert cases.form((end, state)) == cases.form(first)
    assert optax.tree.norm(jax.tree.map(lambda p: p.astype(jnp.float32), end)) < optax.tree.norm(
        jax.tree.map(lambda p: p.astype(jnp.float32), tree)
    )
    if storage == "int4":  # the two share a byte, as in recipes of ours
        ours = adamx.adamw(1e-2, storage="int4").init(tree)[0]
        assert jax.tree.structure(state.inner[0]) == jax.tree.structure(ours)
        assert adamx.nbytes(opt, tree).per_parameter.moments == 1


def test_members_of_a_vmap_and_leaves_and_nodes_draw_bits_of_their_own():
    grads = {"a": jnp.full(64, 0.3), "b": jnp.full(64, 0.3)}

    @jax.vmap
    def member(seed):
        twice = optax.chain(optax.trace(0.0), optax.trace(0.0))
        opt = adamx.store(twice, adamx.storage.int8(seed=seed))
        return opt.update(grads, opt.init(grads))[1].inner

    found = member(jnp.arange(2))
    rows = [np.asarray(x[i]) for node in found for x in node.trace.values() for i in range(2)]
    assert len({row.tobytes() for row in rows}) == 8


def test_init_keeps_shardings_and_takes_shapes():
    mesh = jax.make_mesh((8,), ("data",))
    split = NamedSharding(mesh, PartitionSpec(None, "data"))
    tree = {"kernel": jax.device_put(jnp.ones((4, 16)), split)}
    opt = adamx.store(optax.contrib.muon(0.02), "int8")
    mu = opt.init(tree).inner.inner_states["muon"].inner_state[0].mu["kernel"]
    assert mu.sharding.is_equivalent_to(split, 2)
    assert mu.dtype == jnp.int8
    state = opt.init({"kernel": jax.ShapeDtypeStruct((4, 16), jnp.float32)})
    assert jax.tree.structure(state) == jax.tree.structure(opt.init(tree))


def test_zero_under_shard_map_takes_the_steps_of_one_device_to_the_bit():
    tree = params()
    opt = optax.chain(
        adamx.clip_by_global_norm(0.5), adamx.store(optax.sgd(0.1, momentum=0.9), "int8")
    )

    def loss(p, x):
        return sum(jnp.mean(leaf**2) for leaf in jax.tree.leaves(p)) * x.mean()

    batch = jnp.ones((8, 1))
    train = parallel.data_parallel(loss, opt, tree, how="shard_map", zero=True)
    run, state = train.init(tree), opt.init(tree)
    for _ in range(2):
        run, _ = train.step(run, batch)
        tree, state = adamx.step(opt, tree, state, jax.grad(loss)(tree, batch))
    got = train.collect(run)
    chex.assert_trees_all_equal(got.state[1].inner, state[1].inner)
    chex.assert_trees_all_close(got.params, tree, rtol=1e-6)


def test_optaxs_tools_and_a_table_of_paths_work():
    tree = params()
    opt = adamx.store(optax.adamw(1e-2), {"*/bias": "float32", "*": "int8"})
    state = opt.init(tree)
    nu = optax.tree.get(state, "nu")
    assert [nu["dense"][k].dtype for k in ("bias", "kernel")] == [jnp.float32, jnp.uint8]
    marked = optax.tree.map_params(opt, lambda x: x.dtype.name, state)
    assert marked.inner[0].mu["dense"]["kernel"] == "int8"
    other = adamx.store(optax.adamw(1e-2), "int4")
    again = adamx.convert(adamx.convert(state, opt, other, tree), other, opt, tree)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    _, state = other.update(tree, other.init(tree), tree)
    seen = leaf_stats.remembered(other, tree, state)["dense/kernel"]  # as `health.observe` does
    mean = adamx.convert(state, other, optax.adamw(1e-2), tree)[0].mu["dense"]["kernel"]
    np.testing.assert_array_equal(seen.mean, mean)


def test_checkpoints_restore_the_very_bits(tmp_path):
    tree = params()
    opt = adamx.store(optax.contrib.muon(0.02), "int8")
    run = parallel.Run(*adamx.step(opt, tree, opt.init(tree), tree), None, None)
    with adamx.Checkpoints(tmp_path / "kept", opt) as kept:
        kept.save(1, run)
        back = kept.restore(run, 1)
    chex.assert_trees_all_equal(back, run)
    assert optax.tree.get(back.state.inner.inner_states["muon"], "mu")["dense"]["kernel"].any()


def test_patterns_say_what_the_table_does_not_know():
    tree, plain = params(), optax.contrib.ademamix(1e-2)
    opt = adamx.store(plain, "int8", kinds={"*/m2": "signed", "*/nu": None})
    state = opt.init(tree).inner[0]
    found = [getattr(state, k)["dense"]["kernel"].dtype for k in ("m1", "m2", "nu")]
    assert found == [jnp.int8, jnp.int8, jnp.float32]
    hidden = optax.inject_hyperparams(optax.adamw)(1e-2)
    with pytest.raises(ValueError, match=r"inner_state/0: it cannot be told whether Adam or Adam"):
        adamx.store(hidden, "int8").init(tree)
    told = adamx.store(hidden, "int8", kinds={"*/mu": "signed", "*/nu": "squared"}).init(tree)
    assert optax.tree.get(told, "nu")["dense"]["kernel"].dtype == jnp.uint8


def test_recipes_of_ours_are_coded_by_their_rule_unless_they_are_already():
    tree = params()
    state = adamx.store(adamx.adamax(1e-2), "int8").init(tree)
    assert state.inner[0].mu["dense"]["kernel"].dtype == jnp.int8
    twice = adamx.store(adamx.adamw(1e-2, storage="int4"), "int8")
    assert adamx.nbytes(twice, tree).per_parameter.moments == 1


def test_mistakes_are_named():
    tree = params()
    opt = adamx.store(optax.adam(1e-2), "int8")
    with pytest.raises(ValueError, match=r"should be a StoredState.*got tuple"):
        opt.update(tree, optax.adam(1e-2).init(tree), tree)
    with pytest.raises(
        TypeError, match=r"dense/bias: the state's `mu` is bfloat16, storage 'int8'"
    ):
        opt.update(tree, adamx.store(optax.adam(1e-2), "bfloat16").init(tree), tree)
    with pytest.raises(
        ValueError, match="the state is a PackedState, storage 'int8' keeps a Scale"
    ):
        opt.update(tree, adamx.store(optax.adam(1e-2), "int4").init(tree), tree)
    with pytest.raises(ValueError, match=r"`kinds`: no field matches '\*/mv'; the nearest are"):
        adamx.store(optax.adam(1e-2), "int8", kinds={"*/mv": "signed"}).init(tree)
    with pytest.raises(ValueError, match=r"must be one of 'signed', .* or None, got 'mean'"):
        adamx.store(optax.adam(1e-2), "int8", kinds={"*/mu": "mean"})
    with pytest.raises(ValueError, match=r"`storage`: no leaf matches 'kern'"):
        adamx.store(optax.adam(1e-2), {"kern": "int8", "*": "float32"}).init(tree)
    with pytest.raises(TypeError, match="must be an Optax transformation, got str"):
        adamx.store("adam", "int8")
