# SPDX-License-Identifier: Apache-2.0
"""Clipping of shards: the result is that of the whole gradient, in pmap, vmap and shard_map."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from adamx.core import norms
from adamx.transforms.clipping import (
    adaptive_grad_clip,
    clip_by_block_rms,
    clip_by_global_norm,
    clip_by_leaf_norm,
)
from tests import cases

LINKS = {
    "clip_by_leaf_norm": clip_by_leaf_norm,
    "clip_by_global_norm": clip_by_global_norm,
    "clip_by_block_rms": clip_by_block_rms,
    "adaptive_grad_clip": adaptive_grad_clip,
}
MAGNITUDES = {
    "ordinary": np.ones(8),
    "large": np.full(8, 1e25),
    "small": np.full(8, 1e-26),
    "one huge": np.array([1, 1, 1e30, 1, 1, 1e-30, 1, 1]),
    "one in range": np.array([1e-30, 1, 1e-30, 1e-25, 0, 0, 1e-30, 1e-30]),
    "large together": np.full(8, 1.5e19),  # each shard's sum of squares is in range, all are not
    "small, one zero": np.array([1e-25, 1e-26, 0, 1e-25, 1e-25, 1e-25, 1e-25, 1e-25]),
}
EMPTY = optax.EmptyState()


def tree(magnitude):
    rng = np.random.default_rng(0)
    rows = MAGNITUDES[magnitude]
    return {
        "kernel": jnp.asarray(rng.normal(size=(16, 4)) * np.repeat(rows, 2)[:, None], jnp.float32),
        "bias": jnp.asarray(rng.normal(size=16) * np.repeat(rows, 2), jnp.float32),
    }


def bound_for(name, magnitude):
    return 0.1 if name == "adaptive_grad_clip" else float(MAGNITUDES[magnitude].max() / 10)


def update(name, axis_name, bound, grads, params):
    return LINKS[name](bound, axis_name=axis_name).update(grads, EMPTY, params)[0]


def setting(name, magnitude):
    """A bound, gradients, parameters, and what they become where nothing is sharded."""
    args = bound_for(name, magnitude), tree(magnitude), tree("ordinary")
    return args, update(name, None, *args)


def close(got, want):
    for key in want:
        np.testing.assert_allclose(
            np.reshape(got[key], want[key].shape), want[key], rtol=2e-6, atol=1e-38
        )
    assert any(np.any(np.asarray(x) != 0) for x in jax.tree.leaves(want))


def mesh(kind=AxisType.Auto):
    return jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))


# One program serves all magnitudes: the bound is one of its arguments.


@pytest.mark.parametrize("name", LINKS)
def test_shards_in_pmap_and_vmap_are_clipped_as_one(name):
    one = functools.partial(update, name, "i")
    ways = (jax.pmap(one, "i", in_axes=(None, 0, 0)), jax.jit(jax.vmap(one, (None, 0, 0), 0, "i")))
    for magnitude in MAGNITUDES:
        (bound, *whole), want = setting(name, magnitude)
        pieces = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), whole)
        for mapped in ways:
            close(mapped(bound, *pieces), want)


@pytest.mark.parametrize(
    "axes, check_vma",
    [
        ("x", True),
        (("x", "y"), True),
        (["y", "x"], False),
        pytest.param("x", False, marks=pytest.mark.slow),
        pytest.param(("x", "y"), False, marks=pytest.mark.slow),
        pytest.param(["y", "x"], True, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", LINKS)
def test_shards_in_shard_map_are_clipped_as_one(name, axes, check_vma):
    spec = P(axes) if axes == "x" else P(tuple(axes))
    mapped = jax.shard_map(
        functools.partial(update, name, axes),
        mesh=mesh(),
        in_specs=(P(), spec, spec),
        out_specs=spec,
        check_vma=check_vma,
    )
    mapped = jax.jit(mapped)
    for magnitude in ("ordinary", "one huge", "large together", "one in range"):
        args, want = setting(name, magnitude)
        close(mapped(*args), want)


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize(
    "specs, axes",
    [
        ({"kernel": P("x"), "bias": P()}, "x"),
        ({"kernel": P(), "bias": P("x")}, ("x", "y")),
        ({"kernel": P("x"), "bias": P("y")}, ("x", "y")),
        ({"kernel": P(), "bias": P()}, ("x", "y")),
        ({"kernel": P(("x", "y")), "bias": P("x")}, ("y", "x")),
    ],
)
def test_a_leaf_known_to_be_the_same_everywhere_counts_once(name, specs, axes):
    one = functools.partial(update, name, axes)
    mapped = jax.shard_map(one, mesh=mesh(), in_specs=(P(), specs, specs), out_specs=specs)
    mapped = jax.jit(mapped)
    for magnitude in ("ordinary", "large"):
        args, want = setting(name, magnitude)
        close(mapped(*args), want)


@pytest.mark.parametrize("name", ["clip_by_leaf_norm", "clip_by_block_rms", "adaptive_grad_clip"])
def test_a_leaf_that_does_not_vary_is_not_made_to_by_its_neighbours(name):
    # With `out_specs` P(), shard_map itself refuses a bias that came to vary along x.
    args, want = setting(name, "ordinary")
    specs = {"kernel": P(None, "x"), "bias": P()}
    one = functools.partial(update, name, None)
    mapped = jax.shard_map(one, mesh=mesh(), in_specs=(P(), specs, specs), out_specs=specs)
    np.testing.assert_allclose(jax.jit(mapped)(*args)["bias"], want["bias"], rtol=2e-6)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("name", LINKS)
def test_sharded_arrays_need_no_axis_name_and_keep_their_sharding(name, kind):
    (bound, grads, params), want = setting(name, "one huge")
    one = functools.partial(update, name, None, bound)
    with jax.set_mesh(mesh(kind)) as now:
        specs = {"kernel": P("x", "y"), "bias": P("y")}
        place = jax.tree.map(
            lambda spec: NamedSharding(now or jax.sharding.get_mesh(), spec), specs
        )
        placed = jax.device_put((grads, params), (place, place))
        for call in (one, jax.jit(one)):
            got = call(*placed)
            close(got, want)
            for key in got:
                assert got[key].sharding.is_equivalent_to(place[key], got[key].ndim)


@pytest.mark.parametrize("magnitude", ["ordinary", "large", "one in range"])
def test_the_derivative_on_shards_is_that_of_the_whole(magnitude):
    grads = tree(magnitude)["bias"]
    weights = jnp.asarray(np.random.default_rng(1).normal(size=16), jnp.float32)
    bound = bound_for("clip_by_global_norm", magnitude)

    def loss(axis_name, g, w):
        out = clip_by_global_norm(bound, axis_name=axis_name).update(g, EMPTY)[0] / bound
        return jnp.vdot(out, w) if axis_name is None else jax.lax.psum(jnp.vdot(out, w), axis_name)

    mapped = jax.shard_map(
        functools.partial(loss, "x"), mesh=mesh(), in_specs=(P("x"), P("x")), out_specs=P()
    )
    got = jax.jit(jax.grad(mapped))(grads, weights)
    want = jax.grad(functools.partial(loss, None))(grads, weights)
    np.testing.assert_allclose(got * bound, want * bound, rtol=1e-5, atol=1e-6)
    assert np.any(np.asarray(want) != 0)


def test_the_norms_of_shards_are_those_of_the_whole_and_invariant():
    x = tree("one huge")["kernel"]
    want = np.linalg.norm(np.float64(x))

    def all_norms(x):
        return (
            norms.leaf_norm(x, "x"),
            norms.global_norm([x, x], axis_name="x"),
            norms.rms(x, ["x"]),
            norms.safe_norm(x, axis=0, axis_name="x"),
        )

    got = jax.jit(jax.shard_map(all_norms, mesh=mesh(), in_specs=P("x"), out_specs=P()))(x)
    each = [want, want * 2**0.5, want / 64**0.5, np.linalg.norm(np.float64(x), axis=0)]
    for a, b in zip(got, each, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_shard_that_hides_its_units_asks_for_the_axis():
    kernel = jnp.ones((8, 4))

    def clipped(axis, g):
        return adaptive_grad_clip(0.1, axis=axis, axis_name="i").update({"k": g}, EMPTY, {"k": g})[
            0
        ]

    with pytest.raises(ValueError, match=r"k: `axis` must be given, as a shard of shape \(1, 4\)"):
        jax.pmap(functools.partial(clipped, None), axis_name="i")(kernel[:, None])
    got = jax.pmap(functools.partial(clipped, 0), axis_name="i")(kernel[:, None])
    np.testing.assert_allclose(got["k"], 0.1 * np.ones((8, 1, 4)), rtol=1e-6)


def test_optax_takes_the_norm_of_a_shard_for_that_of_the_gradient():
    g = jnp.full(8, 1.206 / 8**0.5)
    seen = {}
    for name, link in {
        "optax": optax.clip_by_global_norm(0.5),
        "ours": clip_by_global_norm(0.5, axis_name="i"),
    }.items():
        got = jax.pmap(lambda g, link=link: link.update(g, EMPTY)[0], axis_name="i")(g[:, None])
        seen[name] = np.linalg.norm(np.float64(got))
    np.testing.assert_allclose(np.linalg.norm(np.float64(g[:1])), 0.4264, rtol=1e-3)
    np.testing.assert_allclose(seen["ours"], 0.5, rtol=1e-6)
    if not np.isclose(seen["optax"], 1.206, rtol=1e-6):
        cases.skip_where_optax_is_right()
