# SPDX-License-Identifier: Apache-2.0
"""The same 200 steps by `torch.optim` and by the recipe that claims to be the same, in float64.

Where two programs evaluate one formula in float64, 200 steps part them by some 1e-13 of a step;
`1 - b**t` in torch's form costs a few digits more. The bound is 1e-9 of a step: 1,000 times what is
seen, and 100 times below the smallest real difference (an epsilon in another place, 1.6e-7).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

torch = pytest.importorskip("torch", reason="compares with torch.optim")

BOUND = 1e-9
STEPS, LEARNING_RATE = 200, 1e-3

# class in torch.optim, its arguments, our recipe, its arguments
ROWS = {
    "adam": ("Adam", {}, "adam", {}),
    "adam, other betas": (
        "Adam",
        {"betas": (0.5, 0.9), "eps": 1e-3},
        "adam",
        {"b1": 0.5, "b2": 0.9, "eps": 1e-3},
    ),
    "adamw": ("AdamW", {"weight_decay": 0.01}, "adamw", {"weight_decay": 0.01}),
    "amsgrad": ("Adam", {"amsgrad": True}, "amsgrad", {"max_of": "raw"}),
    "adamax": ("Adamax", {}, "adamax", {}),
    "nadam": ("NAdam", {}, "nadam", {"momentum_decay": 0.004}),
    "nadam, decoupled": (
        "NAdam",
        {"weight_decay": 0.01, "decoupled_weight_decay": True},
        "nadamw",
        {"momentum_decay": 0.004, "weight_decay": 0.01},
    ),
    "radam": ("RAdam", {}, "radam", {"eps_mode": "hat", "threshold": 5.0}),
    "radam, decoupled": (
        "RAdam",
        {"weight_decay": 0.01, "decoupled_weight_decay": True},
        "radam",
        {"eps_mode": "hat", "threshold": 5.0, "weight_decay": 0.01},
    ),
}

# The recipes above whose torch class means L2 by `weight_decay`.
L2 = ("adam", "amsgrad", "adamax", "nadam", "radam")


@pytest.fixture
def double():
    """Both libraries in float64; torch keeps NAdam's product in its default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with jax.enable_x64(True):
        yield
    torch.set_default_dtype(before)


def problem(scale: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return rng.normal(size=(3, 5)), scale * rng.normal(size=(STEPS, 3, 5))


def by_torch(name: str, arguments: dict, scale: float) -> np.ndarray:
    """The parameter after every step."""
    start, grads = problem(scale)
    p = torch.nn.Parameter(torch.tensor(start))
    opt = getattr(torch.optim, name)([p], lr=LEARNING_RATE, **arguments)
    path = []
    for g in grads:
        p.grad = torch.tensor(g)
        opt.step()
        path.append(p.detach().numpy().copy())
    return np.stack(path)


def by_adamx(opt: optax.GradientTransformation, scale: float) -> np.ndarray:
    start, grads = problem(scale)
    p = jnp.asarray(start)

    def step(carry, g):
        p, state = carry
        updates, state = opt.update(g, state, p)
        p = optax.apply_updates(p, updates)
        return (p, state), p

    run = jax.jit(lambda carry, g: jax.lax.scan(step, carry, g))
    return np.asarray(run((p, opt.init(p)), jnp.asarray(grads))[1])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two paths, in steps."""
    return float(np.max(np.abs(a - b)) / LEARNING_RATE)


@pytest.mark.parametrize("scale", [1.0, 1e-7])
@pytest.mark.parametrize("row", ROWS)
def test_recipe_takes_the_path_of_torch(double, row, scale):
    name, torch_arguments, recipe, arguments = ROWS[row]
    ours = by_adamx(getattr(adamx, recipe)(LEARNING_RATE, **arguments), scale)
    assert distance(ours, by_torch(name, torch_arguments, scale)) < BOUND


@pytest.mark.parametrize("row", L2)
def test_decay_in_the_gradient_is_the_weight_decay_of_torch(double, row):
    name, torch_arguments, recipe, arguments = ROWS[row]
    opt = getattr(adamx, recipe)(LEARNING_RATE, **arguments, weight_decay=adamx.decay.l2(0.01))
    theirs = by_torch(name, torch_arguments | {"weight_decay": 0.01}, 1.0)
    assert distance(by_adamx(opt, 1.0), theirs) < BOUND


@pytest.mark.parametrize(
    ("row", "scale", "apart"),
    [("amsgrad", 1.0, 1.0), ("nadam", 1.0, 1.0), ("radam", 1.0, 5e-8), ("radam", 1e-7, 0.1)],
)
def test_recipe_with_the_arguments_of_optax_takes_another_path(double, row, scale, apart):
    name, torch_arguments, recipe, _ = ROWS[row]
    ours = by_adamx(getattr(adamx, recipe)(LEARNING_RATE), scale)
    assert distance(ours, by_torch(name, torch_arguments, scale)) > apart
