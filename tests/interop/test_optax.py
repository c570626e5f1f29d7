# SPDX-License-Identifier: Apache-2.0
"""Optax's arithmetic bit for bit, and with a landing the bits of its float32 run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import adamx
from adamx.interop import optax as as_optax
from tests.products import values_in_turn

STEPS = 20


@pytest.fixture(autouse=True)
def as_optax_needs():
    """Optax mixes dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def path(opt, dtype, compiled, steps=STEPS):
    rng = np.random.default_rng(2)
    p = {"kernel": jnp.asarray(rng.normal(size=(4, 3)), dtype), "gain": jnp.asarray(1.5, dtype)}
    state, made = opt.init(p), []
    update = jax.jit(opt.update) if compiled else opt.update
    for i in range(steps):
        g = jax.tree.map(
            lambda x: jnp.asarray(np.random.default_rng(i).normal(size=x.shape), x.dtype),  # noqa: B023
            p,
        )
        updates, state = update(g, state, p)
        p = optax.apply_updates(p, updates)
        made.append(p)
    return made, state


def same_bits(a, b):
    return jax.tree.all(
        jax.tree.map(lambda x, y: x.dtype == y.dtype and bool((x == y).all()), a, b)
    )


@values_in_turn("name, dtype, compiled", as_optax.NAMES, ["float32", "bfloat16"], [False, True])
def test_bits_are_those_of_optax(name, dtype, compiled):
    theirs = getattr(optax, name, None) or getattr(optax.contrib, name)
    want, theirs_state = path(theirs(1e-2), dtype, compiled, 5)
    got, state = path(getattr(as_optax, name)(1e-2, storage="float32"), dtype, compiled, 5)
    assert same_bits(got, want)
    assert jax.tree.structure(state) == jax.tree.structure(theirs_state)


def test_ours_has_other_bits():
    """Otherwise the module would be of no use."""
    assert not same_bits(
        path(adamx.adam(1e-2), "float32", True)[0], path(optax.adam(1e-2), "float32", True)[0]
    )


def test_landing_gives_the_float32_run_of_optax_in_bfloat16():
    opt = as_optax.adamw(1e-3, weight_decay=0.1, landing="exact")
    p = jnp.asarray(np.random.default_rng(1).normal(size=64), jnp.bfloat16)
    whole, theirs = p.astype(jnp.float32), optax.adamw(1e-3, weight_decay=0.1)
    state, their_state = opt.init(p), theirs.init(whole)
    for i in range(STEPS):
        g = jnp.asarray(np.random.default_rng(i).normal(size=64), jnp.float32)
        updates, state = opt.update(g, state, p)
        p = optax.apply_updates(p, updates)
        updates, their_state = theirs.update(g, their_state, whole)
        whole = optax.apply_updates(whole, updates)
    np.testing.assert_array_equal(adamx.master_params(state, p), whole)


def test_another_storage_is_refused():
    with pytest.raises(ValueError, match=r"`storage` must be 'float32' .* got 'int8'"):
        as_optax.adam(1e-3, storage="int8")


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(AttributeError, match="no 'adamv'; the nearest are adam"):
        _ = as_optax.adamv
