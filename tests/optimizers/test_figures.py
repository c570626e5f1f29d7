# SPDX-License-Identifier: Apache-2.0
"""Published figures by the public recipes, and what fails in Optax 0.2.8 and must not fail here.

Every figure was computed independently of this project, in float64 where nothing else is said.
`oracles.py` and `test_laws.py` cover the rules over many inputs; this file pins a few by number.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import adamx
from tests import cases

FIVE = (1.0, 2.0, -1.0, 0.5, 3.0)
DROP = (10.0, 1.0, 1.0, 1.0, 1.0)
TINY = (1e-8, 1e-8, 1e-8)

# Optax ran these in float32, where `1 - b**t` costs it up to 1.5e-5.
OPTAX_ROUNDING = 1.5e-5

# recipe, its arguments, gradients, figures, and what the figures' last digit is worth
ROWS = {
    "adam": (
        "adam",
        {},
        FIVE,
        (0.99999999, 0.965182019718, 0.4200893006, 0.453482966195, 0.664476053253),
        1e-12,
    ),
    "nadam as torch": (
        "nadam",
        {"momentum_decay": 0.004},
        FIVE,
        (1.05645176779, 0.962947344195, -0.374312748881, 0.300908556449, 1.085163137029),
        1e-11,
    ),
    "nadam as optax": (
        "nadam",
        {},
        FIVE,
        (1.4736743, 1.2746561, 0.0370096, 0.4590779, 0.9419622),
        OPTAX_ROUNDING,
    ),
    "adam-atan2": (
        "adam",
        {"eps_mode": "atan2"},
        FIVE,
        (0.785398163397, 0.767682587333, 0.397703901691, 0.425746588365, 0.586484493943),
        1e-12,
    ),
    "adopt": ("adopt", {}, FIVE, (0.0, 0.1, -0.009985003374, 0.0410059994, 0.178326755697), 1e-12),
    "stable adamw": (
        "stable_adamw",
        {"b2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
        FIVE,
        (0.99999999, 0.763157889911, 0.4200893006, 0.453482966195, 0.386974674838),
        1e-12,
    ),
    "amsgrad as torch": (
        "amsgrad",
        {"max_of": "raw"},
        DROP,
        (1.0, 0.740810642, 0.633143544, 0.573446038, 0.535941798),
        2e-9,  # its first is 1 / (1 + 1e-9)
    ),
    "amsgrad as the paper": (
        "amsgrad",
        {"bias_correction_mu": False, "bias_correction_nu": False},
        DROP,
        (3.1622777, 3.1481428, 3.1342094, 3.1204731, 3.1069295),
        3e-7,  # these were run in float32, whose digits are 2.4e-7 apart here
    ),
    "amsgrad as optax": (
        "amsgrad",
        {},
        DROP,
        (0.9999933, 0.5263122, 0.3690012, 0.2907802, 0.2441927),
        OPTAX_ROUNDING,
    ),
    "epsilon": ("adam", {}, TINY, (0.5, 0.5, 0.5), 1e-12),
    "epsilon-hat": (
        "adam",
        {"eps_mode": "hat"},
        TINY,
        (0.0306534300, 0.0427967285, 0.0519034255),
        1e-10,
    ),
}


def directions(opt: optax.GradientTransformation, grads: Any, dtype: Any) -> np.ndarray:
    """The updates of a recipe with learning rate 1, signed like the gradients."""
    params = jnp.zeros((), dtype)

    def step(state, g):
        updates, state = opt.update(g, state, params)
        return state, -updates

    return np.float64(
        jax.jit(lambda s, g: lax.scan(step, s, g))(opt.init(params), jnp.asarray(grads, dtype))[1]
    )


@pytest.mark.parametrize("row", ROWS)
def test_updates_are_the_published_ones(row):
    recipe, arguments, grads, figures, last_digit = ROWS[row]
    with jax.enable_x64(True):
        found = directions(getattr(adamx, recipe)(1.0, **arguments), grads, jnp.float64)
    np.testing.assert_allclose(found, figures, rtol=0, atol=last_digit)


@pytest.mark.parametrize("row", ROWS)
def test_updates_in_float32_are_the_published_ones_to_1e_6(row):
    recipe, arguments, grads, figures, last_digit = ROWS[row]
    found = directions(getattr(adamx, recipe)(1.0, **arguments), grads, jnp.float32)
    # 1e-6 of the largest term, which is about the largest of the five updates
    np.testing.assert_allclose(found, figures, rtol=0, atol=last_digit + 1e-6 * np.max(figures))


@pytest.mark.parametrize("hat", [1e-8, 1e-3])
def test_epsilon_hat_is_epsilon_times_the_root_of_the_correction(hat):
    t = np.arange(1, 4)
    with jax.enable_x64(True):
        by_hat = directions(adamx.adam(1.0, eps=hat, eps_mode="hat"), TINY, jnp.float64)
        by_eps = [
            directions(adamx.adam(1.0, eps=float(eps)), TINY, jnp.float64)[i]
            for i, eps in enumerate(hat / np.sqrt(1 - 0.999**t))
        ]
    np.testing.assert_allclose(by_hat, by_eps, rtol=1e-12)


R = {5: 0.01731150317, 6: 0.0258211128, 10: 0.04899801345, 100: 0.2153354365, 1000: 0.6453256523}
RHO = {5: 4.995998, 6: 5.994163752, 100: 98.33294432}


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 3e-10), ("float32", 2e-6)])
def test_rectification_of_radam_is_the_published_one(dtype, rtol):
    # Under a constant gradient mean and root cancel, and the step is the rectification itself. In
    # float32 rho - 4 at step 5 keeps a rounding of rho, 2.4e-7 of 1: a few of them in r.
    with jax.enable_x64(dtype == "float64"):
        r = directions(adamx.radam(1.0, eps=0.0, threshold=4.0), np.ones(1000), dtype)
    np.testing.assert_allclose(r[:4], 1.0, rtol=rtol)
    np.testing.assert_allclose([r[t - 1] for t in R], list(R.values()), rtol=rtol)


@pytest.mark.parametrize(("threshold", "first"), [(4.0, 5), (5.0, 6)])
def test_radam_rectifies_from_the_step_that_its_threshold_names(threshold, first):
    steps = directions(adamx.radam(1.0, eps=0.0, threshold=threshold), np.ones(8), jnp.float32)
    np.testing.assert_array_equal(steps < 0.5, np.arange(1, 9) >= first)


@pytest.mark.parametrize("t", RHO)
def test_length_of_radams_average_lies_between_two_thresholds(t):
    with jax.enable_x64(True):
        below, above = (
            directions(adamx.radam(1.0, eps=0.0, threshold=RHO[t] + d), np.ones(t), jnp.float64)[-1]
            for d in (-1e-6, 1e-6)
        )
    assert below < 0.5
    assert above == pytest.approx(1.0)


@pytest.mark.parametrize(("t", "figure"), [(100, 0.457288292547), (1000, 0.517794048)])
def test_momentum_schedule_of_nadam_is_the_published_one(t, figure):
    # With b2 = 0 the denominator is |g|; the mean is chosen to come out as 0, and the product of
    # the schedule is below 1e-30 by now: what is left of the step is 1 - mu_t.
    with jax.enable_x64(True):
        opt = adamx.nadam(1.0, b2=0.0, eps=0.0, momentum_decay=0.004)
        one = jnp.ones((), jnp.float64)
        state = opt.init(one)
        state = optax.tree.set(state, count=jnp.int32(t - 1), mu=-one / 9)
        updates, _ = opt.update(one, state, one)
    np.testing.assert_allclose(1 + np.float64(updates), figure, rtol=0, atol=1e-12)


def descend(opt: optax.GradientTransformation, x: float, steps: int) -> list[float]:
    """Minimises x² in float64; the parameter after every step."""
    x, xs = jnp.asarray(x, jnp.float64), []
    state = opt.init(x)
    for _ in range(steps):
        x, state = adamx.step(opt, x, state, 2 * x)
        xs.append(float(x))
    return xs


def test_parabola_from_1_takes_the_published_path():
    with jax.enable_x64(True):
        xs = descend(adamx.adam(0.1), 1.0, 5)
    figures = [0.9000000005, 0.800412228692, 0.701586272946, 0.603939060574, 0.507963659264]
    np.testing.assert_allclose(xs, figures, rtol=0, atol=1e-12)


def test_parabola_from_5_first_steps_to_4_999():
    with jax.enable_x64(True):
        opt, x = adamx.adam(0.001), jnp.asarray(5.0, jnp.float64)
        x, state = adamx.step(opt, x, opt.init(x), 2 * x)
    assert float(x) == pytest.approx(4.999, abs=1e-11)  # epsilon is worth 1e-12
    assert float(optax.tree.get(state, "mu")) / 0.1 == pytest.approx(10.0)
    assert float(optax.tree.get(state, "nu")) / 0.001 == pytest.approx(100.0)


def play(game: Any, players: dict[str, optax.GradientTransformation], x: float, steps: int) -> dict:
    """Online gradient steps in [-1, 1] on `game(t)`, a slope; everyone's last point."""
    start = dict.fromkeys(players, jnp.asarray(x, jnp.float64))
    states = {k: opt.init(start[k]) for k, opt in players.items()}

    def step(carry, t):
        xs, states = carry
        for k, opt in players.items():
            updates, state = opt.update(game(t), states[k], xs[k])
            xs, states = xs | {k: jnp.clip(xs[k] + updates, -1.0, 1.0)}, states | {k: state}
        return (xs, states), None

    t = jnp.arange(1, steps + 1)
    (xs, _), _ = jax.jit(lambda carry, t: lax.scan(step, carry, t))((start, states), t)
    return {k: float(x) for k, x in xs.items()}


def rate(scale: float) -> optax.Schedule:
    """`scale / sqrt(t)`, t counted from 1."""
    return lambda count: scale / jnp.sqrt(count.astype(jnp.float64) + 1)


def test_counterexample_of_reddi_ends_where_published():
    """arXiv 1904.09237: one slope of 1010 in 101 hides the 100 of -10; the optimum is -1."""
    betas = {"b1": 0.9, "b2": 0.99}
    figures = {"adam": 0.9928, "belief": 0.9922, "paper": -0.9842, "optax": -0.9436}
    figures |= {"yogi": -0.8156, "adopt": -1.0, "slow": -0.9266}
    with jax.enable_x64(True):
        lr = rate(0.5)
        players = {
            "adam": adamx.adam(lr, **betas),
            "belief": adamx.adabelief(lr, **betas),
            "paper": adamx.amsgrad(lr, **betas, bias_correction_mu=False, bias_correction_nu=False),
            "optax": adamx.amsgrad(lr, **betas),
            "yogi": adamx.yogi(lr, **betas),
            "adopt": adamx.adopt(lr, **betas),
            "slow": adamx.adam(lr, b1=0.9, b2=0.9999),
        }
        one = jnp.asarray(1.0, jnp.float64)
        found = play(
            lambda t: jnp.where(t % 101 == 1, 1010 * one, -10 * one), players, 0.0, 100_000
        )
    assert found == pytest.approx(figures, abs=6e-5)  # the figures have four digits


def test_theorem_1_of_reddi_holds_adam_at_the_worst_point():
    b2 = 1 / (1 + 3.0**2)
    with jax.enable_x64(True):
        one = jnp.asarray(1.0, jnp.float64)
        players = {"adam": adamx.adam(rate(0.5 * (1 - b2) ** 0.5), b1=0.0, b2=b2)}
        found = play(lambda t: jnp.where(t % 3 == 1, 3 * one, -one), players, 1.0, 3000)
    assert found["adam"] == 1.0


# What goes wrong in Optax 0.2.8. Each check takes a library, holds for adamx and fails for Optax.


def of(lib: Any, recipe: str) -> Any:
    """A library's recipe, which Optax may have among its contributed ones."""
    return getattr(lib, recipe, None) or getattr(lib.contrib, recipe)


def check_zero_half_gradients_move_nothing(lib: Any, recipe: str) -> None:
    params = jnp.ones(3, jnp.float16)
    opt = of(lib, recipe)(1e-3)
    state = opt.init(params)
    for _ in range(3):
        updates, state = opt.update(jnp.zeros_like(params), state, params)
        np.testing.assert_array_equal(updates, 0.0)


def check_bfloat16_squares_follow_a_drop(lib: Any) -> None:
    # Gradients of 1 fall to 0.1: after 5,000 more steps the square is within 0.7% of 0.01, and the
    # average over 512 elements knows the noise of the rounding to about 1%.
    params = jnp.ones(512, jnp.bfloat16)
    opt = lib.adam(1e-3, **({"nu_dtype": "bfloat16"} if lib is adamx else {}))

    def step(state, g):
        return opt.update(jnp.full_like(params, g), state, params)[1], None

    grads = jnp.concatenate([jnp.ones(2000, jnp.bfloat16), jnp.full(5000, 0.1, jnp.bfloat16)])
    state, _ = jax.jit(lambda s, g: lax.scan(step, s, g))(opt.init(params), grads)
    nu = optax.tree.get(state, "nu")
    assert nu.dtype == jnp.bfloat16
    expected = 0.1**2 + 0.99 * 0.999**5000 * (1 - 0.999**2000)
    assert np.mean(np.float64(nu)) == pytest.approx(expected, rel=0.05)


def check_state_keeps_its_dtypes_through_scan(lib: Any, recipe: str) -> None:
    params = jnp.ones(3, jnp.bfloat16)
    opt = of(lib, recipe)(1e-3)

    def step(state, g):
        return opt.update(g, state, params)[1], None

    state, grads = opt.init(params), jnp.ones((4, 3), jnp.float32)
    after, _ = jax.eval_shape(step, state, grads[0])
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert a.dtype == b.dtype  # or `lax.scan` raises
    lax.scan(step, state, grads)


def check_radams_sixth_step_is_exact(lib: Any) -> None:
    found = directions(lib.radam(1.0, eps=0.0), np.ones(6), jnp.float32)[5]
    assert found == pytest.approx(R[6], rel=1e-5)


def check_radam_is_differentiable_at_every_step(lib: Any) -> None:
    one = jnp.ones(())

    def move(g, b2, state):
        return lib.radam(1.0, b2=b2).update(g, state, one)[0]

    opt = lib.radam(1.0)
    state = opt.init(one)
    for _ in range(8):
        slopes = jax.grad(move, argnums=(0, 1))(one, jnp.float32(0.999), state)
        assert np.all(np.isfinite(slopes))
        _, state = opt.update(one, state, one)


def check_one_huge_gradient_is_forgotten(lib: Any) -> None:
    # 0.9^1000 = 2e-46 brings the largest float32 below 1e-7.
    grads = np.concatenate([[1e20], np.ones(1000)])
    steps = directions(lib.adam(1.0, b2=0.9), grads, jnp.float32)
    assert np.all(np.isfinite(steps))
    assert steps[-1] == pytest.approx(1.0, rel=1e-5)


def check_injected_hyperparameters_step_in_bfloat16(lib: Any) -> None:
    params = jnp.ones(3, jnp.bfloat16)
    opt = optax.inject_hyperparams(lib.adam)(learning_rate=1e-3)
    updates, _ = opt.update(params, opt.init(params), params)
    # The first step is the learning rate; bfloat16 keeps 8 bits of it, of b1 and of the update.
    np.testing.assert_allclose(np.float64(updates), -1e-3, rtol=3 * 2.0**-8)


def check_nonsense_is_refused(lib: Any, argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{argument}`"):
        lib.adam(1e-3, **{argument: value})


HALF = ("adam", "nadam", "amsgrad", "adabelief", "adamax", "adan", "ademamix")
DRIFT = (*HALF, "adamw", "radam", "yogi", "lion")

# A check by name, with its arguments.
CHECKS = {f"{k}: zero fp16 gradients": (check_zero_half_gradients_move_nothing, (k,)) for k in HALF}
CHECKS |= {f"{k}: dtype drift": (check_state_keeps_its_dtypes_through_scan, (k,)) for k in DRIFT}
CHECKS |= {
    "bf16 squares": (check_bfloat16_squares_follow_a_drop, ()),
    "radam's sixth step": (check_radams_sixth_step_is_exact, ()),
    "radam's gradient": (check_radam_is_differentiable_at_every_step, ()),
    "a gradient of 1e20": (check_one_huge_gradient_is_forgotten, ()),
    "injected in bf16": (check_injected_hyperparameters_step_in_bfloat16, ()),
    "mu_dtype int8": (check_nonsense_is_refused, ("mu_dtype", "int8")),
    "b1 of 1.5": (check_nonsense_is_refused, ("b1", 1.5)),
}


@pytest.fixture(params=CHECKS)
def check(request):
    function, arguments = CHECKS[request.param]
    return lambda lib: function(lib, *arguments)


def test_what_goes_wrong_elsewhere_goes_right_here(check):
    check(adamx)


def test_what_goes_right_here_goes_wrong_in_optax(check):
    wrong = (AssertionError, pytest.fail.Exception)  # the latter where nothing was refused
    try:
        with jax.numpy_dtype_promotion("standard"):
            check(optax)
    except wrong:
        return
    cases.skip_where_optax_is_right()
