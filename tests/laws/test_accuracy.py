# SPDX-License-Identifier: Apache-2.0
"""Contract 5: every float32 step is within 1e-6 of a float64 oracle."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from tests import cases, oracles
from tests.cases import every_recipe

# The rules, and everything they can be asked for.
RULES = {r.link: r for r in cases.RECIPES.values()} | {
    "nesterov": cases.RECIPES["nadam"],
    **cases.VARIANTS,
}
RATES = (0.9, 0.95, 0.999, 0.9999, 0.99999, 1 - 1e-7)
STEPS = (1, 2, 3, 5, 6, 7, 10, 100, 1_000, 100_000, 1_000_000)
TELLING = (0.999, 1 - 1e-7)
FORGETFUL = (0.0, 1e-8, 1e-3, 0.5)

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
every_rate = pytest.mark.parametrize(
    "b2", [pytest.param(b, marks=() if b in TELLING else pytest.mark.slow) for b in RATES]
)


@every_rate
@every_rule
def test_a_float32_step_is_within_1e_6_of_the_oracle(rule, b2):
    decay = "b3" if "adan" in rule.link else "b2"
    link = rule.scale_by(**{decay: b2})
    check_accuracy(rule, link, jax.jit(lambda g, s: link.update(g, s)), {decay: b2}, STEPS)


@every_rule
def test_a_traced_float32_rate_is_taken_at_its_word(rule):
    """One compiled step for all rates, which are its arguments."""
    decay = "b3" if "adan" in rule.link else "b2"
    link = rule.scale_by()
    traces = 0

    @jax.jit
    def step(g, s, rate):
        nonlocal traces
        traces += 1
        return link.update(g, s, **{decay: rate})

    for rate in map(np.float32, RATES):
        update = functools.partial(step, rate=jnp.float32(rate))
        check_accuracy(rule, link, update, {decay: float(rate)}, STEPS[::3])
    assert traces == 1


@pytest.mark.parametrize(
    "rate", [pytest.param(b, marks=() if b == 0 else pytest.mark.slow) for b in FORGETFUL]
)
@every_rule
def test_a_rule_that_forgets_at_once_is_within_1e_6_of_the_oracle(rule, rate):
    """After a spike too: `nu + 1 * (g^2 - nu)` is 0 where `g^2` is lost beside `nu`."""
    rates = dict.fromkeys(rates_of(rule), rate)
    link = rule.scale_by(**rates)
    update = jax.jit(lambda g, s: link.update(g, s))
    for spike in (1.0, 1e4):
        check_accuracy(rule, link, update, rates, STEPS[:6], spike)


@every_rule
def test_a_traced_rate_that_forgets_at_once_is_taken_at_its_word(rule):
    names = rates_of(rule)
    link = rule.scale_by()
    step = jax.jit(lambda g, s, rates: link.update(g, s, **rates))
    for rate in map(np.float32, FORGETFUL):
        rates = dict.fromkeys(names, jnp.float32(rate))
        update = functools.partial(step, rates=rates)
        for spike in (1.0, 1e4):
            check_accuracy(
                rule, link, update, dict.fromkeys(names, float(rate)), STEPS[:6:2], spike
            )


def rates_of(rule):
    """The names of the rates at which a rule forgets."""
    parameters = inspect.signature(getattr(adamx, rule.link)).parameters
    return [name for name in ("b1", "b2", "b3") if name in parameters]


def check_accuracy(rule, link, update, oracle_kwargs, steps, spike=1.0):
    """Compares steps from moments of gradients `spike` times as large as the step's own."""
    oracle, names = oracles.TABLE[rule.link]
    kwargs = rule.link_kwargs | oracle_kwargs
    rng = np.random.default_rng(7)
    size = 2_000
    g = (rng.normal(size=size) * 10.0 ** rng.uniform(-6, 4, size)).astype(np.float32)
    near = (spike * g * rng.normal(1, 0.5, size)).astype(np.float32)
    held = {k: np.zeros(size, np.float32) for k in names}
    state = link.init(jnp.asarray(g))
    for t in steps:
        if t > 1:
            held = {k: near**2 if k in ("nu", "nu_max", "n") else near for k in names}
            if rule.link == "scale_by_adamax":
                held["nu"] = np.abs(near)
        else:
            held = {k: v.astype(np.float32) for k, v in oracles.start(rule.link, (size,)).items()}
        counted = {k: jnp.int32(t - 1) for k in ("count", "count_m2", "t") if k in state._fields}
        got, new = update(jnp.asarray(g), state._replace(**held, **counted))
        want, moments = oracle(g, held, t, **kwargs)
        largest = oracles.largest_term(oracle, g, held, t, **kwargs)
        if rule.link == "scale_by_lion":  # a sum before its sign, and a sign that may be in doubt
            b1 = kwargs.get("b1", 0.9)
            steepness = kwargs.get("smooth_beta", 1.0)
            terms = np.abs(b1 * held["mu"]) + np.abs((1 - b1) * g)
            total = np.abs(b1 * held["mu"] + (1 - b1) * g)
            soft = (kwargs.get("mode", "hard") != "hard") & (total * steepness < 20)
            most = np.where(soft, np.inf, 1)
            largest = np.maximum(largest, np.minimum(terms * steepness, most))
            sure = total > 1e-6 * terms
            got, want, largest = np.asarray(got)[sure], want[sure], largest[sure]
        if rule.link == "scale_by_yogi":  # at b2 = 0 a difference of squares, which may be alike
            sure = moments["nu"] > 0.1 * held["nu"]
            got, want, largest = np.asarray(got)[sure], want[sure], largest[sure]
        np.testing.assert_array_less(np.abs(got - want), 1e-6 * largest + 1e-37, err_msg=f"t={t}")
        for name in names:
            scale = np.abs(held[name]) + np.abs(moments[name])
            error = np.abs(np.asarray(getattr(new, name), float) - moments[name])
            np.testing.assert_array_less(error, 1e-6 * scale + 1e-30, err_msg=f"{name}, t={t}")


@every_recipe
def test_a_float64_trajectory_is_the_oracles(recipe):
    oracle, _ = oracles.TABLE[recipe.link]
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        grads = rng.normal(size=(30, 16))
        link = recipe.scale_by()
        state = link.init(jnp.zeros(16))
        _, got = jax.lax.scan(lambda s, g: link.update(g, s)[::-1], state, jnp.asarray(grads))
        want = oracles.trajectory(oracle, grads, **recipe.link_kwargs).directions
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)
