# SPDX-License-Identifier: Apache-2.0
"""`tf.keras` 2's optimizers, which cannot be installed beside JAX, by their documented formulas
in NumPy's float64; and what the recipes of Keras refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.interop import keras

STEPS, RATE, DECAY = 200, 1e-3, 0.02
B1, B2, EPS = 0.8, 0.97, 1e-6


def by_adam(g, t, state, amsgrad=False):
    m, v, most = state
    m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g**2
    most = np.maximum(most, v)
    rate = RATE / (1 + DECAY * (t - 1)) * np.sqrt(1 - B2**t) / (1 - B1**t)
    return rate * m / (np.sqrt(most if amsgrad else v) + EPS), (m, v, most)


def by_adamax(g, t, state):
    m, u, _ = state
    m, u = B1 * m + (1 - B1) * g, np.maximum(B2 * u, np.abs(g))
    rate = RATE / (1 + DECAY * (t - 1)) / (1 - B1**t)
    return rate * m / (u + EPS), (m, u, 0)


def by_nadam(g, t, state):
    m, v, cache = state
    momentum = [B1 * (1 - 0.5 * 0.96 ** (0.004 * i)) for i in (t, t + 1)]
    cache = (cache or 1.0) * momentum[0]
    m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g**2
    m_bar = (1 - momentum[0]) * g / (1 - cache) + momentum[1] * m / (1 - cache * momentum[1])
    return RATE * m_bar / (np.sqrt(v / (1 - B2**t)) + EPS), (m, v, cache)


ROWS = {
    "adam": (by_adam, lambda **k: keras.legacy.adam(**k, decay=DECAY)),
    "amsgrad": (
        lambda *a: by_adam(*a, amsgrad=True),
        lambda **k: keras.legacy.adam(**k, decay=DECAY, amsgrad=True),
    ),
    "adamax": (by_adamax, lambda **k: keras.legacy.adamax(**k, decay=DECAY)),
    "nadam": (by_nadam, keras.legacy.nadam),
}


@pytest.mark.parametrize("scale", [1e-10, 1e-7, 1.0, 1e4])
@pytest.mark.parametrize("row", ROWS)
def test_legacy_recipe_takes_the_path_of_its_formula(row, scale):
    formula, build = ROWS[row]
    rng = np.random.default_rng(5)
    p, grads = rng.normal(size=6), scale * rng.normal(size=(STEPS, 6))
    with jax.enable_x64(True):
        opt = build(learning_rate=RATE, beta_1=B1, beta_2=B2, epsilon=EPS)
        ours, held, apart = jnp.asarray(p), (0.0, 0.0, 0.0), 0.0
        state, update = opt.init(ours), jax.jit(opt.update)
        for t, g in enumerate(grads, start=1):
            step, held = formula(g, t, held)
            p = p - step
            updates, state = update(jnp.asarray(g), state, ours)
            ours = optax.apply_updates(ours, updates)
            apart = max(apart, float(np.abs(ours - p).max()))
    assert apart / RATE < 1e-9


def test_legacy_clips_by_value_then_by_norm():
    opt = keras.legacy.adam(1.0, beta_1=0.0, beta_2=0.0, epsilon=1e3, clipvalue=3.0, clipnorm=1.0)
    g = jnp.array([4.0, 4.0])
    updates, _ = opt.update(g, opt.init(g), g)
    want = 0.5**0.5 / (0.5**0.5 + 1e3)
    np.testing.assert_allclose(updates, [-want, -want], rtol=1e-6)


REFUSED = [
    (lambda: keras.adam(clipnorm=1.0, clipvalue=1.0), "only one of the three clips"),
    (lambda: keras.adam(gradient_accumulation_steps=1), "an integer >= 2, got 1"),
    (lambda: keras.adam(use_ema=True, ema_momentum=2.0), r"in \[0, 1\], got 2.0"),
    (lambda: keras.adam(use_ema=True, ema_overwrite_frequency=0.5), "integer >= 1, got 0.5"),
    (lambda: keras.lamb(mask="*/kernel"), "give `weight_decay` too"),
    (lambda: keras.legacy.adam(clipnorm=1.0, global_clipnorm=1.0), "only one of `clipnorm`"),
    (
        lambda: keras.adam(use_ema=True, ema_overwrite_frequency=5, landing="exact"),
        "`ema_overwrite_frequency` needs `landing='nearest'`, got 'exact'",
    ),
]


@pytest.mark.parametrize("build, sentence", REFUSED)
def test_a_wrong_argument_is_refused_in_a_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()


def test_unknown_arguments_are_refused_with_the_nearest_names():
    with pytest.raises(TypeError, match="no argument `clip_norm`; the nearest is `clipnorm`"):
        keras.adam(clip_norm=1.0)
    with pytest.raises(TypeError, match="schedule_decay"):
        keras.legacy.nadam(decay=0.1)


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "adamax", "lamb"])
@pytest.mark.parametrize("storage, landing", [("int8", "exact"), ("int4", "kahan")])
def test_recipes_take_every_storage_and_landing(name, storage, landing):
    opt = getattr(keras, name)(0.1, storage=storage, landing=landing)
    p = {"kernel": jnp.ones((3, 2), jnp.bfloat16)}
    state = opt.init(p)
    for _ in range(3):
        updates, state = opt.update(p, state, p)
        with jax.numpy_dtype_promotion("standard"):
            p = optax.apply_updates(p, updates)
    assert p["kernel"].dtype == jnp.bfloat16
    assert float(jnp.max(p["kernel"])) < 0.9
    assert adamx.master_params(state, p)["kernel"].dtype == jnp.float32


def test_plain_recipe_has_the_state_of_ours():
    p = {"kernel": jnp.ones(2)}
    made = jax.tree.structure(keras.adamw(0.1).init(p))
    assert made == jax.tree.structure(adamx.adamw(0.1).init(p))


def test_learning_rate_overrides_reach_lamb_and_its_decay():
    p = {"kernel": jnp.ones(2)}
    slow, fast = keras.lamb(0.1, weight_decay=0.5), keras.lamb(0.2, weight_decay=0.5)
    got, _ = slow.update(p, slow.init(p), p, learning_rate=0.2)
    want, _ = fast.update(p, fast.init(p), p)
    np.testing.assert_allclose(got["kernel"], want["kernel"], rtol=1e-6)
