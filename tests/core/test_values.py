# SPDX-License-Identifier: Apache-2.0
"""Links are values: two that are built alike are equal and share compiled code."""

import concurrent.futures
import gc
import pickle
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.core.values import bind, value
from tests import cases


@pytest.mark.parametrize("storage", cases.STORAGES)
@cases.every_recipe
def test_recipes_built_alike_are_equal_and_hash_alike(recipe, storage):
    one, two = recipe(0.1, storage=storage), recipe(0.1, storage=storage)
    assert one == two
    assert hash(one) == hash(two)
    assert one != recipe(0.2, storage=storage)


@pytest.mark.parametrize(
    "build",
    [
        lambda: adamx.adamw(1e-3, mask={"a": True, "b": False}, landing="kahan"),
        lambda: adamx.scale_by_yogi(storage="int8"),
        lambda: adamx.clip_by_block_rms(1.0),
        lambda: adamx.clip_by_zscore(),
        lambda: adamx.scale_by_trust_ratio(),
        lambda: adamx.landing.kahan(seed=3),
        lambda: adamx.add_decayed_weights(0.1, mask=np.array([True])),
        lambda: adamx.adopt(1e-3, landing=adamx.landing.exact()),
    ],
)
def test_every_link_is_a_value_and_can_be_pickled(build):
    assert build() == build()
    assert pickle.loads(pickle.dumps(build())) == build()


def compiled(caplog, call):
    caplog.clear()
    with jax.log_compiles():
        call()
    return [r for r in caplog.records if "Finished XLA compilation" in r.getMessage()]


@pytest.mark.parametrize(
    "make, kwargs",
    [
        (adamx.clip_by_block_rms, {"threshold": 1.0}),
        (adamx.clip_by_zscore, {}),
        (adamx.scale_by_yogi, {}),
        (adamx.adamw, {"learning_rate": 0.1, "mask": {"w": np.True_}}),
        (adamx.adamw, {"learning_rate": 0.1, "landing": adamx.landing.kahan()}),
        (adamx.lamb, {"learning_rate": 0.1}),
    ],
)
def test_an_injected_link_compiles_once(make, kwargs, caplog):
    dtype = jnp.bfloat16 if "landing" in kwargs else jnp.float32
    opt, params = optax.inject_hyperparams(make)(**kwargs), {"w": jnp.ones(3, dtype)}
    state = opt.init(params)
    for _ in range(2):
        _, state = opt.update(params, state, params)
    assert not compiled(caplog, lambda: opt.update(params, state, params))


def test_clear_caches_frees_what_was_compiled(caplog):
    opt, params = adamx.adam(0.123), jnp.ones(3)
    state = opt.init(params)
    assert compiled(caplog, lambda: opt.update(params, state))
    assert not compiled(caplog, lambda: opt.update(params, state))
    jax.clear_caches()
    assert compiled(caplog, lambda: opt.update(params, state))


def test_a_mask_that_is_edited_later_changes_nothing():
    mask, params = {"a": True, "b": True}, {"a": jnp.ones(1), "b": jnp.ones(1)}
    first = adamx.add_decayed_weights(1.0, mask=mask)
    mask["a"] = False
    second = adamx.add_decayed_weights(1.0, mask=mask)
    for link, decay in ((first, 1.0), (second, 0.0)):
        zeros = jax.tree.map(jnp.zeros_like, params)
        updates, _ = link.update(zeros, link.init(params), params)
        assert (updates["a"], updates["b"]) == (decay, 1.0)


def test_a_bound_method_as_mask_is_the_one_that_was_given():
    class Stage:
        train = "a"

        def mask(self, params):
            return {k: k == self.train for k in params}

    stage, params = Stage(), {"a": jnp.ones(1), "b": jnp.ones(1)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    for stage.train in ("a", "b"):
        link = adamx.add_decayed_weights(1.0, mask=stage.mask)
        updates, _ = link.update(zeros, link.init(params), params)
        assert {k for k, u in updates.items() if u} == {stage.train}


def test_a_schedule_inside_a_decay_is_the_one_that_was_given():
    strength, params = {"now": 0.0}, jnp.ones(1)

    def schedule(count):
        return strength["now"]

    seen = []
    for strength["now"] in (0.5, 0.25):
        link = adamx.add_decayed_weights(adamx.decay.decoupled(schedule))
        seen.append(float(link.update(jnp.zeros(1), link.init(params), params)[0][0]))
    assert seen == [0.5, 0.25]


@pytest.mark.parametrize("wrap", [adamx.scale_by_adopt, lambda **kw: adamx.adopt(-1.0, **kw)])
def test_the_bound_of_adopt_is_the_one_that_was_given(wrap):
    most, g = 0.0, jnp.ones(1)

    def bound(count):
        return most * count

    for most in (0.5, 0.25):
        opt = wrap(b1=0.0, clip_value_fn=bound)
        _, state = opt.update(g, opt.init(g), g)
        assert opt.update(9 * g, state, g)[0] == most


def test_an_optimizer_with_a_schedule_is_freed_with_what_it_compiled():
    class Rate:
        def __call__(self, count):
            return 0.1

    rate, params = Rate(), jnp.ones(3)
    gone = weakref.ref(rate)
    opt = adamx.adam(rate)
    opt.update(params, opt.init(params))
    del opt, rate
    gc.collect()
    assert gone() is None


def test_bind_is_compared_by_value():
    assert bind(len, a=1) == bind(len, a=1) != bind(len, a=2)


def test_arrays_are_traced_and_the_rest_is_static():
    @value
    class Scale:
        factor: object
        flip: bool = False

    traces = []

    @jax.jit
    def call(link, x):
        traces.append(link)
        return -x * link.factor if link.flip else x * link.factor

    assert [float(call(Scale(jnp.float32(f)), 2.0)) for f in (1, 2)] == [2.0, 4.0]
    assert len(traces) == 1
    assert float(call(Scale(jnp.float32(1), flip=True), 2.0)) == -2.0
    assert len(traces) == 2


def test_threads_may_build_and_step_optimizers_at_once():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}

    def one(i):
        opt = adamx.adamw(0.1, b1=0.5 + 0.01 * (i % 5), storage=("float32", "int8")[i % 2])
        updates, _ = opt.update(params, opt.init(params), params)
        return float(updates["bias"][0])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(40)))
    np.testing.assert_allclose(found, -0.1, rtol=1e-3)
