# SPDX-License-Identifier: Apache-2.0
"""SOAP against its paper's algorithm, with eigenvectors and QR by NumPy.

Where a covariance has equal eigenvalues, as that of one gradient with more rows than columns, its
eigenvectors are anyone's choice. The leaves here have covariances of full rank.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import adamx
from tests import cases


def turned(x, bases, back=False):
    """`x` in the coordinates of its bases, or out of them."""
    for dim, q in enumerate(bases):
        if q is not None:
            matrix = q.T if back else q.conj()
            x = np.moveaxis(np.tensordot(x, matrix, ((dim,), (0,))), -1, dim)
    return x


def oracle(grads, *, b1=0.95, b2=0.95, eps=1e-8, every=10, most=10_000, beta=None):
    """Vyas et al. (2409.11321), Algorithm 3, one leaf, with the authors' first step: directions."""
    beta = b2 if beta is None else beta
    wide = np.complex128 if np.iscomplexobj(grads) else np.float64
    grads, shape = np.asarray(grads, wide), grads.shape[1:]
    is_matrix = sum(n > 1 for n in shape) > 1
    dims = [is_matrix and 1 < n <= most for n in shape]
    covs = [np.zeros((n, n), wide) if turns else None for n, turns in zip(shape, dims, strict=True)]
    bases, m, v, path = [None] * len(shape), np.zeros(shape, wide), np.zeros(shape), []
    for t, g in enumerate(grads):
        if t == 0:
            path.append(np.zeros(shape, wide))
        else:
            m = b1 * m + (1 - b1) * g  # in the coordinates of the gradient, as in the paper
            inside = turned(g, bases)
            v = b2 * v + (1 - b2) * np.abs(inside) ** 2
            size = np.sqrt(1 - b2**t) / (1 - b1**t)
            path.append(turned(size * turned(m, bases) / (np.sqrt(v) + eps), bases, back=True))
        for dim, cov in enumerate(covs):
            if cov is not None:
                flat = np.moveaxis(g, dim, 0).reshape(shape[dim], -1)
                covs[dim] = beta * cov + (1 - beta) * flat @ flat.conj().T
        for dim, cov in enumerate(covs):
            if cov is None:
                continue
            if t == 0:
                bases[dim] = np.linalg.eigh(cov)[1][:, ::-1]
            elif t % every == 0:
                q = bases[dim]
                order = np.argsort(-np.diag(q.conj().T @ cov @ q).real)
                v = np.take(v, order, axis=dim)
                bases[dim] = np.linalg.qr(cov @ q[:, order])[0]
    return np.stack(path)


def directions(grads, params=None, **kwargs):
    """All directions of the link, and its last state, in one program."""
    opt = adamx.scale_by_soap(**kwargs)

    def step(state, g):
        updates, state = opt.update(g, state, params)
        return state, updates

    grads = jax.tree.map(jnp.asarray, grads)
    first = jax.tree.map(lambda g: g[0], grads)
    state, path = lax.scan(step, opt.init(first), grads)
    return path, state


SHAPES = {"kernel": (4, 4), "conv": (2, 3, 2), "bias": (3,), "row": (1, 3)}


def problem(steps=9, dtype=np.float64):
    rng = np.random.default_rng(2)
    return {k: np.asarray(rng.normal(size=(steps, *s)), dtype) for k, s in SHAPES.items()}


KNOBS = {"b1": 0.8, "b2": 0.9, "eps": 1e-3}


def close(got, want, rtol):
    """To a part of the largest number of a leaf: rotations mix its elements."""
    for k, x in want.items():
        np.testing.assert_allclose(got[k], x, rtol=0, atol=rtol * np.abs(x).max(), err_msg=k)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ({"precondition_frequency": 3}, {"every": 3}),
        (
            {"precondition_frequency": 1, "shampoo_beta": 0.7, "max_precond_dim": 3, **KNOBS},
            {"every": 1, "beta": 0.7, "most": 3, **KNOBS},
        ),
    ],
)
def test_float64_directions_are_the_papers(ours, theirs):
    with jax.enable_x64(True):
        path, _ = directions(problem(), **ours)
    # Eigenvectors lose as many digits as eigenvalues are near each other.
    close(path, {k: oracle(g, **theirs) for k, g in problem().items()}, 1e-9)


def test_complex_directions_are_the_papers():
    rng = np.random.default_rng(4)
    grads = rng.normal(size=(5, 3, 3)) + 1j * rng.normal(size=(5, 3, 3))
    with jax.enable_x64(True):
        path, _ = directions({"w": grads}, precondition_frequency=2)
    close(path, {"w": oracle(grads, every=2)}, 1e-9)


def test_without_bases_it_is_adam():
    """One step behind, as the first gradient moves nothing."""
    grads = problem()
    with jax.enable_x64(True):
        path, _ = directions(grads, max_precond_dim=1, **KNOBS)
        adam = adamx.scale_by_adam(**KNOBS, eps_mode="hat")
        rest = jax.tree.map(lambda g: jnp.asarray(g[1:]), grads)
        first = jax.tree.map(lambda g: g[0], rest)
        _, want = lax.scan(lambda s, g: adam.update(g, s)[::-1], adam.init(first), rest)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.asarray(a)[1:], b, rtol=1e-12), path, want
    )
    assert not any(np.asarray(p)[0].any() for p in jax.tree.leaves(path))


def test_a_rotated_problem_takes_the_rotated_steps():
    """As Adam's do not. Both bases are exact after the first gradient."""
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(4, 3, 3))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    with jax.enable_x64(True):
        path, _ = directions({"w": grads})
        other, _ = directions({"w": turn @ grads})
    np.testing.assert_allclose(other["w"], turn @ np.asarray(path["w"]), atol=1e-9)


@pytest.mark.parametrize("storage", cases.STORAGES)
def test_moments_rest_in_any_storage(storage):
    grads = {"w": problem(12, np.float32)["kernel"]}
    path, state = directions(grads, precondition_frequency=4, storage=storage)
    want = oracle(grads["w"], every=4)
    nu, basis = state.moments.nu["w"], state.bases["w"][0]
    assert nu.dtype.itemsize == {"float32": 4, "bfloat16": 2}.get(storage, 1)
    assert basis.dtype == jnp.float32
    error = np.sqrt(np.mean((path["w"] - want) ** 2) / np.mean(want**2))
    # A code of a square is off by 9%, a mean by 6% of its root, once more when bases turn.
    assert error < {"float32": 1e-4, "bfloat16": 0.02}.get(storage, 0.2)


def test_the_state_has_bases_for_short_dimensions_only():
    params = {"embedding": jnp.ones((9, 2)), "scalars": jnp.ones((2, 0)), "bias": jnp.ones(5)}
    state = adamx.scale_by_soap(max_precond_dim=8).init(params)
    hole = optax.MaskedNode()
    assert state.bases["embedding"][0] == hole
    assert state.bases["embedding"][1].shape == (2, 2)
    assert state.covariances["scalars"] == (hole, hole)
    assert state.covariances["bias"] == (hole,)


def test_half_precision_has_float32_inside():
    half = {"w": jnp.asarray(problem(5, np.float32)["kernel"], jnp.bfloat16)}
    path, state = directions(half, precondition_frequency=3)
    wide, _ = directions(jax.tree.map(jnp.float32, half), precondition_frequency=3)
    assert path["w"].dtype == jnp.bfloat16
    assert state.covariances["w"][0].dtype == state.moments.mu["w"].dtype == jnp.float32
    np.testing.assert_array_equal(path["w"], wide["w"].astype(jnp.bfloat16))


@pytest.mark.parametrize("size", [1e-30, 1e38])
def test_no_finite_gradient_breaks_it(size):
    """The one gradient of this size is the third; all before and after are ordinary."""
    rng = np.random.default_rng(1)
    grads = rng.normal(size=(150, 3, 3)).astype(np.float32)
    grads[2] *= np.float32(size) / np.abs(grads[2]).max()
    path, state = directions({"w": grads}, b1=0.5, b2=0.5, precondition_frequency=2)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((path, state)))
    assert np.abs(path["w"][-1]).max() > 0.1
    q = np.asarray(state.bases["w"][0], np.float64)
    np.testing.assert_allclose(q.T @ q, np.eye(3), atol=1e-5)


def test_a_gradient_that_is_not_finite_stays_visible():
    grads = np.ones((3, 2, 2), np.float32)
    grads[1, 0, 0] = np.inf
    path, _ = directions({"w": grads})
    assert not np.isfinite(path["w"][2]).all()


def test_every_hyperparameter_may_be_traced_or_a_schedule_without_a_recompile():
    grads = problem(6)["kernel"]
    traces = []
    with jax.enable_x64(True):

        @jax.jit
        def traced(b1, b2, eps, beta):
            traces.append(1)
            return directions(
                grads, b1=b1, b2=b2, eps=eps, shampoo_beta=beta, precondition_frequency=2
            )[0]

        for b1, b2, eps, beta in ((0.9, 0.95, 1e-8, 0.9), (0.5, 0.8, 1e-2, 0.7)):
            found = traced(*map(jnp.float64, (b1, b2, eps, beta)))
            want = oracle(grads, b1=b1, b2=b2, eps=eps, beta=beta, every=2)
            np.testing.assert_allclose(found, want, atol=1e-9)
        assert len(traces) == 1
        found, _ = directions(
            grads, b2=lambda t: 0.8, shampoo_beta=lambda t: 0.8, precondition_frequency=2
        )
        np.testing.assert_allclose(found, oracle(grads, b2=0.8, every=2), atol=1e-5)


def loss(params, batch):
    out = jnp.tanh(batch @ params["kernel"]) * params["gain"] + params["bias"]
    return jnp.mean((out - 1) ** 2)


@functools.cache
def on_one_device():
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(8, 8)), "bias": rng.normal(size=8), "gain": np.ones(())}
    params, data = jax.tree.map(jnp.asarray, params), jnp.asarray(rng.normal(size=(16, 8)))
    opt = adamx.soap(0.01, precondition_frequency=2)
    now, state = params, opt.init(params)
    for _ in range(4):
        now, state = adamx.step(opt, now, state, jax.grad(loss)(now, data))
    return opt, params, data, now


@pytest.mark.parametrize("how, zero", [("jit", True), ("shard_map", False), ("pmap", False)])
def test_on_eight_devices_it_makes_the_steps_of_one(how, zero):
    with jax.enable_x64(True):
        opt, params, data, want = on_one_device()
        train = adamx.parallel.data_parallel(loss, opt, params, how=how, zero=zero)
        run = train.init(params)
        for _ in range(4):
            run, _ = train.step(run, data)
        got = train.collect(run).params
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-11), got, want)


def test_on_a_mesh_of_explicit_axes_results_lie_as_their_arguments():
    mesh = jax.make_mesh((4, 2), ("x", "y"), (AxisType.Explicit,) * 2)
    opt, params = adamx.soap(0.01), {"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8)}
    specs = {"kernel": P("x", "y"), "bias": P("x")}
    placed = jax.tree.map(lambda p, s: jax.device_put(p, NamedSharding(mesh, s)), params, specs)
    state = opt.init(placed)
    got = jax.eval_shape(functools.partial(adamx.step, opt, b2=0.9), placed, state, placed)
    assert got[0]["kernel"].sharding.spec == P("x", "y")
    assert got[1][0].moments.mu["kernel"].sharding.spec == P("x", "y")


@pytest.mark.parametrize("how", ["shard_map", "pmap"])
def test_shards_are_refused_by_name(how):
    params = {"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8), "gain": jnp.ones(())}
    with pytest.raises(ValueError, match=r"soap: parameters are shards over .*whole arrays"):
        adamx.parallel.data_parallel(loss, adamx.soap(0.01), params, how=how, zero=True)


@pytest.mark.parametrize("tree", ["none", "zero-size", "mixed dtypes", "nested"])
def test_every_tree_goes_through(tree):
    params = cases.TREES[tree]()
    opt = adamx.soap(0.1)
    state = opt.init(params)
    _, after = adamx.step(opt, params, state, jax.tree.map(jnp.ones_like, params))
    assert cases.form(after) == cases.form(jax.tree.map(jnp.asarray, state))


def test_derivatives_are_finite_where_eigenvalues_are_equal():
    def end(g):
        opt = adamx.scale_by_soap(precondition_frequency=1)
        state = opt.init(g)
        for _ in range(3):
            u, state = opt.update(g, state)
        return jnp.sum(u)

    for g in (jnp.zeros((2, 2)), jnp.eye(2)):
        assert np.isfinite(jax.grad(end)(g)).all()


def test_exports_for_every_platform():
    opt, params = adamx.soap(0.1, storage="int8"), {"w": jnp.ones((3, 3))}
    step = jax.jit(lambda p, s, g: adamx.step(opt, p, s, g))
    args = (params, opt.init(params), params)
    made = jax.export.export(step, platforms=("cpu", "cuda", "rocm", "tpu"))(*args)
    assert set(made.platforms) == {"cpu", "cuda", "rocm", "tpu"}


def test_errors_name_the_argument_and_the_rule():
    with pytest.raises(ValueError, match="`precondition_frequency` must be a positive integer"):
        adamx.soap(0.1, precondition_frequency=0)
    with pytest.raises(ValueError, match="`max_precond_dim` must be a positive integer"):
        adamx.soap(0.1, max_precond_dim=0.5)
    with pytest.raises(ValueError, match=r"`shampoo_beta` must be in \[0, 1\), got 1.0"):
        adamx.soap(0.1, shampoo_beta=1.0)
    opt, params = adamx.soap(0.1), {"w": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match="soap: the state is a ScaleByAdamState"):
        opt.update(params, (adamx.scale_by_adam().init(params), *opt.init(params)[1:]), params)
    with pytest.raises(TypeError, match="w: parameter is int32, soap needs floating point"):
        opt.init({"w": jnp.ones((2, 2), jnp.int32)})
