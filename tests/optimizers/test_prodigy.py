# SPDX-License-Identifier: Apache-2.0
"""Prodigy against its paper's algorithm, and where Optax's divides by zero."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P
from optax import contrib

import adamx
from tests import cases


def oracle(
    params, noises, rate=1.0, *, b1=0.9, b2=0.999, b3=None, eps=1e-8, d0=1e-6, coef=1.0, decay=0.0,
    safeguard=False,
):  # fmt: skip
    """Mishchenko & Defazio (2306.06101), Algorithm 4 with the authors' bias correction, on a list
    of arrays: all parameters, and all d. The gradients are those of `slope`."""
    b3 = np.sqrt(b2) if b3 is None else b3
    first = [np.asarray(p, np.float64) for p in params]
    ps, d, r = list(first), d0, 0.0
    m, v, s = ([np.zeros_like(p) for p in first] for _ in range(3))
    path, ds = [], []
    for t, noise in enumerate(noises, start=1):
        gs = [slope(p, x, np) for p, x in zip(ps, noise, strict=True)]
        lr = rate(t - 1) if callable(rate) else rate
        dlr = d * lr * np.sqrt(1 - b2**t) / (1 - b1**t)
        inner = sum(np.sum(g * (p0 - p)) for g, p0, p in zip(gs, first, ps, strict=True))
        r = b3 * r + d / d0 * dlr * inner
        m = [b1 * x + (1 - b1) * d * g for x, g in zip(m, gs, strict=True)]
        v = [b2 * x + (1 - b2) * (d * g) ** 2 for x, g in zip(v, gs, strict=True)]
        s = [b3 * x + d / d0 * (d if safeguard else dlr) * g for x, g in zip(s, gs, strict=True)]
        size = sum(np.abs(x).sum() for x in s)
        d = max(d, coef * r / size) if size else d
        ps = [
            p - dlr * (x / (np.sqrt(y) + d * eps) + decay * p)
            for p, x, y in zip(ps, m, v, strict=True)
        ]
        path.append(np.concatenate([p.ravel() for p in ps]))
        ds.append(d)
    return np.stack(path), np.stack(ds)


def slope(p, noise, of=jnp):
    """A gradient, which is only noise where the noise is zero."""
    return (of.tanh(p) + of.asarray(0.3, p.dtype) * noise) * (noise != 0)


def problem(steps=40, dtype=np.float64):
    """Parameters, noise by step, and both as lists for the oracle."""
    rng = np.random.default_rng(5)
    params = {k: np.asarray(rng.normal(size=s), dtype) for k, s in SHAPES.items()}
    noise = {k: np.asarray(rng.normal(size=(steps, *s)), dtype) for k, s in SHAPES.items()}
    return params, noise, lists(params, noise)


SHAPES = {"kernel": (4, 3), "bias": (3,), "gain": ()}


def lists(params, noise):
    rows = [[noise[k][t].astype(float) for k in SHAPES] for t in range(len(noise["bias"]))]
    return [params[k].astype(float) for k in SHAPES], rows


def flat(tree):
    return np.concatenate([np.reshape(tree[k], (len(tree["bias"]), -1)) for k in SHAPES], 1)


def trained(opt, params, noise, **extra):
    """All parameters, all estimates and the last state, in one program."""
    path, ds, state = run(opt, params, noise, **extra)
    return flat(path), ds, state


def run(opt, params, noise, **extra):

    def step(carry, noise):
        params, state = carry
        grads = jax.tree.map(slope, params, noise)
        updates, state = opt.update(grads, state, params, **extra)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state.estim_lr)

    params, noise = jax.tree.map(jnp.asarray, (params, noise))
    with jax.numpy_dtype_promotion("standard"):
        (_, state), (path, ds) = lax.scan(step, (params, opt.init(params)), noise)
    return path, ds, state


def warm_up(t):
    return jnp.minimum((t.astype(jnp.float64) + 1) / 10, 1)


VARIANTS = {
    "defaults": ({}, {}),
    "all of them": (
        {
            "betas": (0.8, 0.95),
            "beta3": 0.9,
            "eps": 1e-4,
            "estim_lr0": 1e-5,
            "estim_lr_coef": 2.0,
            "weight_decay": 0.1,
        },
        {"b1": 0.8, "b2": 0.95, "b3": 0.9, "eps": 1e-4, "d0": 1e-5, "coef": 2.0, "decay": 0.1},
    ),
    "a warm-up": ({"learning_rate": warm_up}, {"rate": lambda t: min((t + 1) / 10, 1.0)}),
    "a guarded warm-up": (
        {"learning_rate": warm_up, "safeguard_warmup": True},
        {"rate": lambda t: min((t + 1) / 10, 1.0), "safeguard": True},
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_float64_trajectory_is_the_papers(variant):
    ours, theirs = VARIANTS[variant]
    with jax.enable_x64(True):
        params, noise, both = problem()
        path, ds, _ = trained(adamx.prodigy(**ours), params, noise)
    want, want_d = oracle(*both, **theirs)
    assert want_d[-1] > 5 * want_d[0]
    np.testing.assert_allclose(ds, want_d, rtol=1e-11)
    np.testing.assert_allclose(path, want, rtol=1e-11)


def test_a_float32_trajectory_is_optaxs_with_optaxs_state():
    """Sums over 40 steps, of distances that float32 parameters hold to 6e-8 of themselves."""
    params, noise, _ = problem(dtype=np.float32)
    path, ds, state = trained(adamx.prodigy(), params, noise)
    expected, their_ds, their_state = trained(contrib.prodigy(), params, noise)
    np.testing.assert_allclose(ds, their_ds, rtol=1e-4)
    np.testing.assert_allclose(path, expected, atol=1e-4)
    assert jax.tree.structure(state) == jax.tree.structure(their_state)
    assert cases.form(state) == jax.tree.map(lambda x: (x.shape, x.dtype, False), their_state)


@pytest.mark.parametrize("first", ["a gradient of zeros", "a rate of zero"])
def test_nothing_is_divided_by_zero_before_the_first_step(first):
    """Optax's estimate is 0 / 0 then, and NaN ever after: a warm-up from 0 is enough."""
    params, noise, _ = problem(4)
    rate = 1.0
    if first == "a rate of zero":
        rate = lambda t: t / 4  # noqa: E731
    else:
        noise = jax.tree.map(lambda x: np.concatenate([0 * x[:1], x[1:]]), noise)
    with jax.enable_x64(True):
        path, ds, _ = trained(adamx.prodigy(rate), params, noise)
        theirs, _, _ = trained(contrib.prodigy(rate), params, noise)
    want, want_d = oracle(*lists(params, noise), rate)
    np.testing.assert_allclose(ds, want_d, rtol=1e-11)
    np.testing.assert_allclose(path, want, rtol=1e-11)
    if np.isfinite(theirs).all():
        cases.skip_where_optax_is_right()
    assert np.isnan(theirs[-1]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_estimates_as_float32(dtype):
    """With an exact landing the weights are float32's, and so are all sums: d is to 1e-5."""
    params, grads, _ = problem(20, dtype=np.float32)
    grads = jax.tree.map(lambda g, p: 0.1 * g + np.sign(p), grads, params)
    params, grads = jax.tree.map(lambda x: jnp.asarray(x, dtype), (params, grads))

    def end(opt, params, grads):
        def step(carry, g):
            params, state = carry
            updates, state = opt.update(g, state, params)
            with jax.numpy_dtype_promotion("standard"):
                return (optax.apply_updates(params, updates), state), None

        return lax.scan(step, (params, opt.init(params)), grads)[0]

    _, (ours, _) = end(adamx.prodigy(landing="exact"), params, grads)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (params, grads))
    _, plain = end(adamx.prodigy(), *wide)
    assert ours.estim_lr.dtype == ours.grad_sum["kernel"].dtype == jnp.float32
    assert ours.params0["kernel"].dtype == dtype
    assert plain.estim_lr > 1e-5
    np.testing.assert_allclose(ours.estim_lr, plain.estim_lr, rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3),
        ours.exp_avg,
        plain.exp_avg,
    )


def test_moments_rest_in_bfloat16_and_codes_are_refused():
    params, noise, both = problem(dtype=np.float32)
    path, _, state = trained(adamx.prodigy(storage="bfloat16"), params, noise)
    assert state.exp_avg["kernel"].dtype == state.exp_avg_sq["kernel"].dtype == jnp.bfloat16
    want, want_d = oracle(*both)
    # A step of d, of which a thirtieth may be rounding.
    np.testing.assert_allclose(path, want, atol=40 * want_d[-1] / 30)
    for storage in ("int8", "int4"):
        with pytest.raises(ValueError, match=r"prodigy: `storage` must be of floats"):
            adamx.prodigy(storage=storage).init(params)


def test_every_hyperparameter_may_be_traced_without_a_recompile():
    params, noise, both = problem(10)
    with jax.enable_x64(True):
        traces = []

        @jax.jit
        def traced(rate, b2, coef, decay):
            traces.append(1)
            opt = adamx.prodigy(rate, (0.9, b2), estim_lr_coef=coef, weight_decay=decay)
            return run(opt, params, noise)[1]

        for rate, b2, coef, decay in ((1.0, 0.99, 1.0, 0.0), (0.5, 0.9, 2.0, 0.1)):
            ds = traced(*map(jnp.float64, (rate, b2, coef, decay)))
            want = oracle(*both, rate, b2=b2, coef=coef, decay=decay)[1]
            np.testing.assert_allclose(ds, want, rtol=1e-11)
        assert len(traces) == 1
        _, ds, _ = trained(adamx.prodigy(), params, noise, learning_rate=0.5)
        np.testing.assert_allclose(ds, oracle(*both, 0.5)[1], rtol=1e-11)


def loss(params, batch):
    out = jnp.tanh(batch @ params["kernel"]) * params["gain"] + params["bias"]
    return jnp.mean(out**2)


@functools.cache
def on_one_device():
    rng = np.random.default_rng(0)
    params = {
        "kernel": rng.normal(size=(12, 3)),
        "bias": rng.normal(size=(3,)),
        "gain": np.ones(()),
    }
    params, data = jax.tree.map(jnp.asarray, params), jnp.asarray(rng.normal(size=(8, 12)))
    opt = adamx.prodigy(estim_lr0=1e-2)
    now, state = params, opt.init(params)
    for _ in range(3):
        now, state = adamx.step(opt, now, state, jax.grad(loss)(now, data))
    return opt, params, data, (now, state)


@pytest.mark.parametrize("how", ["jit", "shard_map", "pmap"])
def test_on_eight_devices_it_makes_the_steps_of_one(how):
    """Under ZeRO a device sees its shard, padded: 12 rows and 3 numbers over 8 devices."""
    with jax.enable_x64(True):
        opt, params, data, want = on_one_device()
        train = adamx.parallel.data_parallel(loss, opt, params, how=how, zero=True)
        run = train.init(params)
        for _ in range(3):
            run, _ = train.step(run, data)
        got = train.collect(run)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15),
            (got.params, got.state),
            want,
        )


def test_shards_along_a_named_axis_have_one_estimate():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        params, grads = jnp.asarray(rng.normal(size=(16, 2))), jnp.asarray(rng.normal(size=(16, 2)))

        def update(axis_name):
            opt = adamx.prodigy(estim_lr0=1e-2, axis_name=axis_name)

            def twice(params, grads):
                state = opt.init(params)
                for _ in range(2):
                    updates, state = opt.update(grads, state, params)
                    params = optax.apply_updates(params, updates)
                return params

            return twice

        mesh = jax.make_mesh((8,), ("x",), (jax.sharding.AxisType.Auto,))
        mapped = jax.shard_map(update("x"), mesh=mesh, in_specs=P("x"), out_specs=P("x"))
        np.testing.assert_allclose(
            jax.jit(mapped)(params, grads), jax.jit(update(None))(params, grads), rtol=1e-12
        )


@pytest.mark.parametrize("tree", ["nested", "none", "zero-size", "mixed dtypes", "python scalars"])
def test_every_tree_goes_through(tree):
    params = cases.TREES[tree]()
    opt = adamx.prodigy(estim_lr0=0.1, storage=None)
    state = opt.init(params)
    stepped, after = adamx.step(opt, params, state, jax.tree.map(jnp.ones_like, params))
    assert cases.form(after) == cases.form(jax.tree.map(jnp.asarray, state))
    rows = zip(*map(jax.tree.leaves, (stepped, params)), strict=True)
    for a, b in ((np.asarray(a, complex), np.asarray(b, complex)) for a, b in rows):
        np.testing.assert_allclose(a, b - 0.1, atol=4e-3)


def test_the_link_alone_is_the_step_at_rate_one_uphill():
    params, grads, _ = problem(1)
    params, grads = jax.tree.map(jnp.float32, (params, jax.tree.map(lambda g: g[0], grads)))
    link, opt = adamx.scale_by_prodigy(), adamx.prodigy()
    up, _ = link.update(grads, link.init(params), params)
    down, _ = opt.update(grads, opt.init(params), params)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, -b), up, down)


def test_a_mask_and_a_form_of_decay():
    params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    opt = adamx.prodigy(weight_decay=0.5, mask="!*/bias", estim_lr0=1.0)
    updates, _ = opt.update(zeros, opt.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.5 * np.sqrt(0.001) / 0.1, rtol=1e-5)
    np.testing.assert_array_equal(updates["bias"], 0)
    opt = adamx.prodigy(weight_decay=adamx.decay.cautious(0.5), estim_lr0=1.0)
    updates, _ = opt.update(jax.tree.map(lambda p: -p, params), opt.init(params), params)
    assert (updates["kernel"] > 0).all()


def test_errors_name_the_argument_and_the_rule():
    with pytest.raises(ValueError, match="`betas` must be two numbers"):
        adamx.prodigy(betas=(0.9,))
    with pytest.raises(ValueError, match=r"`b2` must be in \[0, 1\)"):
        adamx.prodigy(betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="`estim_lr0` must be positive, got 0"):
        adamx.prodigy(estim_lr0=0.0)
    with pytest.raises(ValueError, match="`weight_decay` of prodigy must be"):
        adamx.prodigy(weight_decay=adamx.decay.l2(0.1))
    opt, params = adamx.prodigy(), {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match="prodigy needs the parameters"):
        opt.update(params, opt.init(params))
    with pytest.raises(ValueError, match="prodigy: the state is a tuple"):
        opt.update(params, adamx.adamw(0.1).init(params), params)
