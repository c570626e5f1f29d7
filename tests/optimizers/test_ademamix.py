# SPDX-License-Identifier: Apache-2.0
"""AdEMAMix beyond the laws: its two schedules, its second counter, and a mean no root bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import adamx

B3 = {1: 0.9499637432, 100: 0.999008912, 500: 0.9998001996, 1000: 0.9999, 5000: 0.9999}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_schedules_are_the_published_ones(dtype):
    """From moments of zero, one gradient of 1 makes m2 = 1 - b3, and adds alpha m2 / sqrt(v)."""
    with jax.enable_x64(dtype == "float64"):
        link = adamx.scale_by_ademamix(eps=0.0, b2=0.0, alpha=6.0, warmup_steps=1000)
        one = jnp.ones((), dtype)
        update, blank = jax.jit(link.update), link.init(one)
        for t, b3 in B3.items():
            at = {k: jnp.int32(t - 1) for k in ("count", "count_m2")}
            direction, state = update(one, blank._replace(**at))
            # The figures have ten digits, of 1 - b3 six to nine.
            np.testing.assert_allclose(state.m2, 1 - b3, rtol=1e-6, atol=1e-10)
            fast = 0.1 / -np.expm1(t * np.log(0.9))
            slow = 6.0 * min(t / 1000, 1) * float(state.m2)
            np.testing.assert_allclose(direction, fast + slow, rtol=1e-6)


def test_schedules_go_by_the_second_counter_as_in_optax():
    """Whoever sets `count_m2` back to 0 starts them anew, while the fast mean goes on."""
    schedules = {
        "b3": optax.linear_schedule(0.9, 0.99, 10),
        "alpha": optax.linear_schedule(0.0, 5.0, 10),
    }
    g = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)))
    found = []
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        for home in (adamx, optax.contrib):
            link = home.scale_by_ademamix(**schedules)
            state = link.init(jnp.zeros(5, jnp.float64))
            state = state._replace(count=jnp.int32(7), m1=jnp.full(5, 0.1), nu=jnp.full(5, 0.2))
            for row in g:
                direction, state = link.update(row.astype(jnp.float64), state)
            assert (state.count, state.count_m2) == (13, 6)
            found.append(direction)
    np.testing.assert_allclose(*found, rtol=1e-5)  # Optax's schedules are float32: 1e-6 of 1 - b3


WAYS = {"alpha": 3.0, "b3": 0.99, "warmup_steps": 6.0}


def test_every_way_to_give_its_hyperparameters_takes_the_same_steps():
    grads = jnp.asarray(np.random.default_rng(0).normal(size=(4, 7)), jnp.float32)

    def steps(link, given, grads):
        state, found = link.init(grads[0]), []
        for g in grads:
            u, state = link.update(g, state, **given)
            found.append(u)
        return jnp.stack(found)

    arrays = {k: jnp.float32(v) for k, v in WAYS.items()}
    constant = {k: lambda count, v=v: v + 0 * count.astype(jnp.float32) for k, v in WAYS.items()}
    other = adamx.scale_by_ademamix(alpha=1.0, warmup_steps=99)
    want = steps(adamx.scale_by_ademamix(**WAYS), {}, grads)
    by = {
        "array": steps(adamx.scale_by_ademamix(**arrays), {}, grads),
        "schedule": steps(adamx.scale_by_ademamix(**constant), {}, grads),
        "override": steps(other, WAYS, grads),
        "traced": jax.jit(lambda h: steps(adamx.scale_by_ademamix(**h), {}, grads))(arrays),
        "vmap": jax.vmap(lambda a: steps(other, WAYS | {"alpha": a}, grads))(jnp.full(2, 3.0))[1],
    }
    for way, got in by.items():  # float32's 1 - 0.99 is 2e-6 off
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6, err_msg=way)


def test_conversion_keeps_the_second_counter():
    before, after = optax.contrib.ademamix(0.1), adamx.ademamix(0.1, storage="int8")
    first, *rest = before.init(jnp.ones(4))
    first = first._replace(count=jnp.int32(9), count_m2=jnp.int32(2))
    converted = adamx.convert((first, *rest), before, after)[0]
    assert (converted.count, converted.count_m2) == (9, 2)
    assert (converted.m1.dtype, converted.m2.dtype) == ("int8", "bfloat16")
    packed = adamx.ademamix(0.1, storage="int4")
    with pytest.raises(ValueError, match="counts 9 steps, its `count_m2` 2: packed moments have"):
        adamx.convert((first, *rest), before, packed)
    same = first._replace(count_m2=first.count)
    assert adamx.convert((same, *rest), before, packed)[0].count == 9


def test_a_state_from_packed_moments_may_be_donated():
    before, after = adamx.ademamix(0.1, storage="int4"), adamx.ademamix(0.1)
    params = jnp.ones(4)
    state = adamx.convert(before.init(params), before, after)
    step = jax.jit(lambda s: after.update(params, s, params), donate_argnums=0)
    assert step(state)[1][0].count_m2 == 1


def ran(link, grads):
    def step(state, g):
        return link.update(g, state)[1], None

    return jax.jit(lambda gs: jax.lax.scan(step, link.init(gs[0]), gs)[0])(grads)


def check_slow_mean_moves_in_bfloat16(home):
    grads = jnp.ones((1_000, 256), "bfloat16")
    m2 = np.asarray(ran(home.scale_by_ademamix(mu_dtype="bfloat16"), grads).m2, np.float64)
    # The units there are 2^-11; the mean of 256 roundings is known to a tenth of one.
    assert m2.mean() == pytest.approx(1 - 0.9999**1_000, abs=1e-4)


def test_the_slow_mean_moves_in_bfloat16():
    check_slow_mean_moves_in_bfloat16(adamx)


def test_the_slow_mean_of_optax_stands_still_in_bfloat16():
    with jax.numpy_dtype_promotion("standard"), pytest.raises(AssertionError):
        check_slow_mean_moves_in_bfloat16(optax.contrib)


@pytest.mark.parametrize("name", ["ademamix", "simplified_ademamix"])
def test_no_code_clips_a_mean_that_outgrows_its_root(name):
    """Gradients fall to a thousandth: the slow mean is soon a hundred roots, the codes hold 8."""
    rng = np.random.default_rng(0)
    grads = (1 + 0.3 * rng.normal(size=(1_000, 512))).astype(np.float32)
    grads[800:] *= 1e-3
    kwargs = {"b2": 0.95, **({"b3": 0.999} if name == "ademamix" else {})}
    scale = getattr(adamx, f"scale_by_{name}")
    want, got = (ran(scale(**kwargs, storage=s), jnp.asarray(grads)) for s in ("float32", "int8"))
    slow, square = ("m2", "nu") if name == "ademamix" else ("m", "n")
    mean, root = getattr(want, slow), jnp.sqrt(getattr(want, square))
    assert (mean > 50 * root).all()
    # One unit is 2^-8 of a mean. While it grew to it by a thousand parts, it was rounded up or down
    # by a unit some hundred times: 3% for one of them, for all 512 together a tenth of that.
    held = getattr(got, slow).astype(jnp.float32)
    np.testing.assert_allclose(held, mean, rtol=0.15)
    assert float(held.mean() / mean.mean()) == pytest.approx(1, abs=0.01)
    if name == "ademamix":
        assert np.abs(got.m1.astype(jnp.int32)).max() < 127


def test_a_slow_mean_in_float16_is_refused():
    for name in ("ademamix", "simplified_ademamix"):
        opt = getattr(adamx, name)(0.1, mu_dtype="float16")
        with pytest.raises(TypeError, match=f"w: `mu_dtype` must not be float16: .* \\({name}\\)"):
            opt.init({"w": jnp.ones(2)})


def test_packed_moments_keep_the_slow_mean_whole():
    state = adamx.ademamix(0.1, storage="int4").init(jnp.ones(3))[0]
    assert {k: x.dtype for k, x in state.arrays.items()} == {"packed": "uint8", "m2": "bfloat16"}
    summed = adamx.simplified_ademamix(0.1, storage="int4").init(jnp.ones(3))[0]
    assert (summed.m.dtype, summed.n.dtype) == ("bfloat16", "uint8")
