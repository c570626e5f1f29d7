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


def test_the_state_of_a_guard_by_itself_knows_its_leaves():
    opt = adamx.groups({"out": guarded(), "*": adamx.adam(0.1)})
    _, state = opt.update(spoiled(5), opt.init(PARAMS), PARAMS)
    assert health.first_bad(state.inner_states["out"].inner_state, PARAMS) == "out"


def test_a_snapshot_of_another_tree_is_named():
    opt = optax.flatten(health.rewind(adamx.adam(0.1), every=1, patience=1))
    with pytest.raises(ValueError, match=r"put `health\.rewind` around what changes their tree"):
        adamx.step(opt, PARAMS, opt.init(PARAMS), PARAMS, value=1.0)


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


def test_counts_of_all_groups_are_read():
    opt = WAYS["groups"]()
    state = opt.init(PARAMS)
    for bad in (4, 4, 5):
        _, state = opt.update(spoiled(bad), state, PARAMS)
    assert health.read(state) == {"skipped": 3, "skipped_in_a_row": 1}
    _, state = opt.update(spoiled(5), state, PARAMS)
    assert health.read(state) == {"skipped": 4, "skipped_in_a_row": 2}


def test_counts_of_links_in_a_row_are_read():
    clips = [health.counted(adamx.clip_by_global_norm(x)) for x in (1.0, 1e9)]
    opt = optax.chain(*clips, adamx.adam(0.1))
    _, state = opt.update(PARAMS, opt.init(PARAMS), PARAMS)
    assert health.read(state) == {"clipped": 1, "clip_rate": 1}
    opt = health.skip_outliers(health.skip_spikes(adamx.adam(0.1), warmup=3), window=256)
    state, update = opt.init(PARAMS), jax.jit(opt.update)
    for size in (1.0, 1.0, 1.0, 1.0, 1e9):
        _, state = update(jax.tree.map(lambda p: size * p, PARAMS), state, PARAMS)  # noqa: B023
    assert health.read(state) == {"spikes": 1, "spikes_in_a_row": 1}


def test_figures_of_an_observer_in_a_group_carry_its_pattern():
    inner = health.observe(adamx.adam(0.1), per_leaf=True)
    opt = adamx.groups({"enc/*": inner, "out": health.observe(optax.sgd(0.1)), "*": inner})
    _, state = opt.update(PARAMS, opt.init(PARAMS), PARAMS)
    found = {k: x for k, x in health.read(state).items() if k.startswith("grad_norm")}
    want = {"enc/*": 5, "enc/a": 2, "enc/b": 3, "out": 5, "*": 4, "mid": 4}
    assert found == pytest.approx({f"grad_norm/{k}": x**0.5 for k, x in want.items()})
    opt = adamx.groups({"*": inner})
    _, state = opt.update(PARAMS, opt.init(PARAMS), PARAMS)
    assert health.read(state)["grad_norm/*"] == pytest.approx(14**0.5)


@pytest.mark.parametrize("way", ["groups", "partition"])
def test_a_group_goes_back_bit_for_bit_and_leaves_the_others(way):
    inner = health.rewind(adamx.adam(0.1), every=1, patience=1)
    opt = {
        "groups": adamx.groups({"enc/*": optax.sgd(0.1), "*": inner}),
        "partition": optax.partition(
            {"x": optax.sgd(0.1), "y": inner}, {"enc": "x", "mid": "y", "out": "y"}
        ),
    }[way]
    params, state, step = PARAMS, opt.init(PARAMS), adamx.jit_step(opt)
    params = jax.tree.map(jnp.array, params)
    for loss in [1.0] * 22 + [jnp.nan]:
        before = jax.tree.map(jnp.array, params)
        params, state = step(params, state, PARAMS, value=jnp.float32(loss))
    assert health.read(state)["rewinds"] == 1
    guarded = state.inner_states["*" if way == "groups" else "y"].inner_state
    assert jnp.array_equal(params["mid"], guarded.kept.params["mid"])
    assert jnp.array_equal(params["enc"]["a"], before["enc"]["a"] - jnp.float32(0.1))
