# SPDX-License-Identifier: Apache-2.0
"""Guards and observers in groups of leaves: each counts, and names the leaves of its own group."""

import jax
import jax.numpy as jnp
import optax
import pytest

import adamx
from adamx import health

PARAMS = {"enc": {"a": jnp.ones(2), "b": jnp.ones(3)}, "mid": jnp.ones(4), "out": jnp.ones(5)}


def guarded(limit=0):
    return health.skip_nonfinite(adamx.adam(0.1), max_consecutive=limit)


def spoiled(leaf):
    return jax.tree.map(lambda p: jnp.full_like(p, jnp.nan) if p.size == leaf else p, PARAMS)


WAYS = {
    "groups": lambda: adamx.groups({"enc/*|out": guarded(), "*": guarded()}),
    "masked": lambda: optax.masked(guarded(), {"enc": False, "mid": True, "out": True}),
    "partition": lambda: optax.partition(
        {"x": optax.set_to_zero(), "y": health.scale_loss(guarded())},
        {"enc": "x", "mid": "y", "out": "y"},
    ),
    "around": lambda: health.skip_nonfinite(adamx.groups({"out": optax.sgd(0.1), "*": guarded()})),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size, name", [(4, "mid"), (5, "out")])
def test_a_guard_in_a_group_names_the_leaf(way, size, name):
    opt = WAYS[way]()
    state = opt.init(PARAMS)
    assert health.first_bad(state, PARAMS) is None
    _, state = opt.update(spoiled(size), state, PARAMS)
    assert health.first_bad(state, PARAMS) == name
    if way in ("groups", "masked"):
        with pytest.raises(health.TooManySkippedError, match=f"^{name} is not finite"):
            health.check(state, PARAMS)


def test_a_guard_that_cannot_know_its_leaves_gives_a_number():
    opt = health.skip_nonfinite(optax.sgd(0.1), max_consecutive=0)
    opt = optax.masked(opt, {"enc": False, "mid": True, "out": True})
    _, state = opt.update(spoiled(5), opt.init(PARAMS), PARAMS)
    with pytest.raises(health.TooManySkippedError, match=r"^leaf 1 is not finite"):
        health.check(state, PARAMS)


def test_the_first_bad_leaf_is_that_of_the_guard_that_skips():
    """As the doctor advises, with the whole state."""
    opt = health.skip_spikes(health.skip_nonfinite(adamx.adam(0.1)), warmup=3)
    opt = health.rewind(health.scale_loss(health.observe(opt), initial=1.0))
    state, update = opt.init(PARAMS), jax.jit(opt.update)
    for _ in range(5):
        _, state = update(PARAMS, state, PARAMS, value=1.0)
    _, state = update(spoiled(4), state, PARAMS, value=1.0)
    assert health.first_bad(state, PARAMS) == "mid"
    spike = {**PARAMS, "out": 1e9 * PARAMS["out"]}
    _, state = update(spike, state, PARAMS, value=1.0)
    assert health.first_bad(state, PARAMS) == "out"


def test_a_scale_that_begins_at_the_least_is_no_overflow():
    opt = health.scale_loss(adamx.adam(0.1), initial=2.0**-24)
    state = opt.init(PARAMS)
    health.check(state, PARAMS)
    _, state = opt.update(spoiled(4), state, PARAMS)
    with pytest.raises(health.TooManySkippedError, match=r"^mid is not finite"):
        health.check(state, PARAMS)
