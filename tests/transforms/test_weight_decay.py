# SPDX-License-Identifier: Apache-2.0
"""Every form of decay against its line in the table of `decay.py`, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.transforms import weight_decay as decay
from tests import cases

WD, RATE, PEAK = 0.1, 0.02, 0.05

every_form = pytest.mark.parametrize(
    "form", ["decoupled", "scheduled", "independent", "corrected", "cautious", "l2", "l1"]
)


def step(weight_decay, g, p, learning_rate=RATE, **kwargs):
    opt = adamx.adamw(learning_rate, weight_decay=weight_decay, **kwargs)
    updates, _ = opt.update(g, opt.init(p), p)
    return np.asarray(optax.apply_updates(p, updates))


def first_adam_direction(g):
    return g / (np.abs(g) + 1e-8)


def expected(form, g, p):
    u = first_adam_direction(g)
    return {
        "decoupled": p - RATE * (u + WD * p),
        "scheduled": p - RATE * u - WD * (RATE / PEAK) * p,
        "independent": p - RATE * u - WD * p,
        "corrected": p - RATE * (u + WD * (RATE / PEAK) * p),
        "cautious": p - RATE * (u + WD * np.where(u * p >= 0, p, 0)),
        "l2": p - RATE * first_adam_direction(g + WD * p),
        "l1": p - RATE * first_adam_direction(g + WD * np.sign(p)),
    }[form]


def make(form):
    peak = {"peak": PEAK} if form in ("scheduled", "corrected") else {}
    return getattr(decay, form)(WD, **peak)


@every_form
def test_a_step_is_the_formulas(form):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        g, p = rng.normal(size=50), rng.normal(size=50)
        p[0] = g[1] = 0.0
        got = step(make(form), jnp.asarray(g), jnp.asarray(p))
        np.testing.assert_allclose(got, expected(form, g, p), rtol=1e-12)


@every_form
def test_a_learning_rate_schedule_drives_it(form):
    with jax.enable_x64(True):
        g, p = np.array([0.3, -2.0]), np.array([1.0, 3.0])
        got = step(
            make(form),
            jnp.asarray(g),
            jnp.asarray(p),
            lambda count: RATE + 0.0 * count.astype(float),
        )
        np.testing.assert_allclose(got, expected(form, g, p), rtol=1e-12)


@every_form
def test_its_strength_may_be_a_schedule(form):
    with jax.enable_x64(True):
        g, p = np.array([0.3, -2.0]), np.array([1.0, 3.0])
        made = make(form)._replace(strength=lambda count: WD * (count + 1).astype(float))
        got = step(made, jnp.asarray(g), jnp.asarray(p))
        np.testing.assert_allclose(got, expected(form, g, p), rtol=1e-12)


@every_form
def test_the_mask_leaves_the_rest_alone(form):
    params = {"dense": {"kernel": jnp.ones(3), "bias": 2 * jnp.ones(3)}}
    grads = jax.tree.map(lambda p: 0.5 * p, params)
    undecayed = adamx.adamw(RATE, weight_decay=0.0)
    decayed = adamx.adamw(RATE, weight_decay=make(form), mask="!*/bias")
    want, _ = undecayed.update(grads, undecayed.init(params), params)
    got, _ = decayed.update(grads, decayed.init(params), params)
    np.testing.assert_allclose(got["dense"]["bias"], want["dense"]["bias"], rtol=1e-6)
    if form != "l2" and form != "l1":  # Adam's first step does not depend on its gradient's size
        assert np.abs(got["dense"]["kernel"] - want["dense"]["kernel"]).min() > 1e-4


@pytest.mark.parametrize(
    "mask",
    [
        {"kernel": True, "bias": False},
        lambda tree: {"kernel": True, "bias": False},
        "*/kernel",
        "kernel",
        "!*/bias",
        "!*/bias|*/scale",
    ],
)
def test_masks_by_tree_function_and_pattern_agree(mask):
    params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    opt = adamx.adamw(1.0, weight_decay=0.5, mask=mask)
    updates, _ = opt.update(zeros, opt.init(params), params)
    np.testing.assert_array_equal(updates["kernel"], [-0.5, -0.5])
    np.testing.assert_array_equal(updates["bias"], [0.0, 0.0])


def test_a_pattern_works_inside_a_partition_that_hides_its_leaves():
    params = {"a": {"kernel": jnp.ones(2)}, "b": {"bias": jnp.ones(2)}}
    opt = optax.partition(
        {"x": adamx.adamw(1.0, mask="*/kernel"), "y": adamx.adamw(1.0, mask="*/kernel")},
        {"a": "x", "b": "y"},
    )
    updates, _ = opt.update(jax.tree.map(jnp.zeros_like, params), opt.init(params), params)
    np.testing.assert_allclose(updates["a"]["kernel"], [-1e-4, -1e-4], rtol=1e-6)
    np.testing.assert_array_equal(updates["b"]["bias"], [0.0, 0.0])


def test_an_override_replaces_the_strength_for_one_call():
    params = jnp.ones(2)
    opt = adamx.adamw(1.0, weight_decay=0.0)
    updates, _ = opt.update(jnp.zeros(2), opt.init(params), params, weight_decay=0.25)
    np.testing.assert_array_equal(updates, [-0.25, -0.25])


@pytest.mark.parametrize("name", [n for n in cases.RECIPES if not n.endswith("w")])
def test_every_recipe_decays(name):
    """A zero gradient leaves nothing but the decay (and LAMB scales that to the parameter)."""
    params = 2 * jnp.ones(3)
    opt = cases.RECIPES[name](0.5, weight_decay=0.1)
    updates, _ = opt.update(jnp.zeros(3), opt.init(params), params)
    scale = 2.0 if name == "lamb" else 0.2
    want = -0.5 * scale * np.ones(3)
    np.testing.assert_allclose(updates, want, atol=1e-3 if name == "yogi" else 1e-7)


def test_a_small_decay_is_not_lost_between_half_precision_links():
    """1e-4 of 1.0 is below bfloat16's last place: the step must reach the end in float32."""
    params, grads = jnp.ones(1, jnp.bfloat16), jnp.zeros(1, jnp.bfloat16)
    opt = adamx.adamw(1.0, weight_decay=1e-4)
    updates, _ = opt.update(grads, opt.init(params), params)
    np.testing.assert_allclose(np.asarray(updates, np.float32), [-1e-4], rtol=2**-8)


def test_cautious_decay_sees_the_sign_of_the_smallest_updates():
    p, u = jnp.array([1e-30, -1e-30]), jnp.array([1e-30, 1e-30])
    np.testing.assert_array_equal(decay.cautious(1.0).pull(p, u), [p[0], 0.0])


def test_the_link_alone_is_optax_add_decayed_weights():
    params = cases.params()
    grads = cases.grads(params)
    ours, theirs = adamx.add_decayed_weights(0.3), optax.add_decayed_weights(0.3)
    got, s = ours.update(grads, ours.init(params), params)
    want, z = theirs.update(grads, theirs.init(params), params)
    assert s == z == optax.EmptyState()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, want)
