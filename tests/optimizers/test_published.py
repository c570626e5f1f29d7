# SPDX-License-Identifier: Apache-2.0
"""The same steps by published implementations in PyTorch, where those are installed, in float64.

`pip install --no-deps schedulefree prodigyopt pytorch_optimizer timm`; timm asks for torchvision.
Where two programs evaluate one formula in float64, a hundred steps part them by some 1e-13 of a
step; the bound is 1e-9. What a published implementation does that its paper does not is said beside
its row.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx

torch = pytest.importorskip("torch", reason="compares with implementations in PyTorch")

STEPS, RATE, BOUND = 30, 1e-2, 1e-9
LEAVES = {"kernel": (4, 4), "bias": (3,)}


@pytest.fixture(autouse=True)
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with jax.enable_x64(True):
        yield
    torch.set_default_dtype(before)


def problem(names, steps=STEPS):
    """Parameters, and a fixed part of each step's gradient; the rest is tanh of the parameter."""
    rng = np.random.default_rng(11)
    params = {k: rng.normal(size=LEAVES[k]) for k in names}
    return params, [{k: 0.3 * rng.normal(size=LEAVES[k]) for k in names} for _ in range(steps)]


def by_torch(module, name, arguments, names, before=None):
    """The parameters after every step; `before` is called on the optimizer first."""
    module = pytest.importorskip(module)
    if not hasattr(module, name):
        pytest.skip(f"{module.__name__} {getattr(module, '__version__', '')} has no {name}")
    params, noise = problem(names)
    leaves = {k: torch.nn.Parameter(torch.tensor(p)) for k, p in params.items()}
    opt = getattr(module, name)(leaves.values(), **arguments)
    if before:
        getattr(opt, before)()
    return stepped(opt, leaves, noise), opt, leaves


def stepped(opt, leaves, noise):
    """The parameters after every step of an optimizer of PyTorch's kind."""
    path = []
    for row in noise:
        for k, p in leaves.items():
            p.grad = torch.tanh(p.detach()) + torch.tensor(row[k])
        opt.step()
        path.append({k: p.detach().numpy().copy() for k, p in leaves.items()})
    return path


def by_us(opt, names):
    params, noise = problem(names)
    params = jax.tree.map(jnp.asarray, params)
    noise = jax.tree.map(lambda *x: jnp.stack(x), *noise)

    def step(carry, row):
        params, state = carry
        grads = jax.tree.map(lambda p, n: jnp.tanh(p) + n, params, row)
        updates, state = opt.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    carry, path = jax.lax.scan(step, (params, opt.init(params)), noise)
    return path, carry


def compare(path, want, bound=BOUND, skip=0):
    """To a part of the rate: what one step moves a parameter by."""
    for t in range(skip, STEPS):
        for k in want[t]:
            np.testing.assert_allclose(
                path[k][t], want[t][k], rtol=0, atol=bound * RATE, err_msg=f"{k}, step {t}"
            )


def ours(name, *args, **kwargs):
    """`adamx.name(...)`; skips where the recipe is not there."""
    build = getattr(adamx, name, None)
    if build is None:
        pytest.skip(f"adamx has no {name}")
    unknown = set(kwargs) - set(inspect.signature(build).parameters)
    assert not unknown, f"adamx.{name} has no {unknown}"
    return build(*args, **kwargs)


# module, class, its arguments, our recipe, its arguments
ROWS = {
    "prodigy": (
        "prodigyopt",
        "Prodigy",
        {"d0": 1e-4, "use_bias_correction": True, "eps": 1e-6},
        "prodigy",
        {"learning_rate": 1.0, "estim_lr0": 1e-4, "eps": 1e-6},
    ),
    "prodigy, guarded": (
        "prodigyopt",
        "Prodigy",
        {"d0": 1e-4, "use_bias_correction": True, "safeguard_warmup": True, "betas": (0.8, 0.95)},
        "prodigy",
        {"estim_lr0": 1e-4, "safeguard_warmup": True, "betas": (0.8, 0.95)},
    ),
    "schedule-free": (
        "schedulefree",
        "AdamWScheduleFree",
        {"lr": RATE, "weight_decay": 0.1, "betas": (0.8, 0.9), "foreach": False},
        "schedule_free_adamw",
        {"learning_rate": RATE, "weight_decay": 0.1, "b1": 0.8, "b2": 0.9},
    ),
    "schedule-free, warming up": (
        "schedulefree",
        "AdamWScheduleFree",
        {"lr": RATE, "warmup_steps": 8, "foreach": False},
        "schedule_free_adamw",
        {"learning_rate": lambda t: RATE * jnp.minimum((t.astype(float) + 1) / 8, 1)},
    ),
    "soap": (
        "pytorch_optimizer",
        "SOAP",
        {"lr": RATE, "weight_decay": 0.0, "precondition_frequency": 3, "betas": (0.9, 0.95)},
        "soap",
        {
            "learning_rate": RATE,
            "weight_decay": 0.0,
            "precondition_frequency": 3,
            "b1": 0.9,
            "b2": 0.95,
        },
    ),
    "ademamix": (
        "pytorch_optimizer",
        "AdEMAMix",
        {"lr": RATE, "betas": (0.9, 0.99, 0.999), "alpha": 4.0, "foreach": False},
        "ademamix",
        {"learning_rate": RATE, "b2": 0.99, "b3": 0.999, "alpha": 4.0},
    ),
    "laprop": (
        "pytorch_optimizer",
        "LaProp",
        {"lr": RATE, "betas": (0.8, 0.99), "foreach": False},
        "laprop",
        {"learning_rate": RATE, "b1": 0.8, "b2": 0.99},
    ),
    "stable_adamw": (
        "pytorch_optimizer",
        "StableAdamW",
        {"lr": RATE, "betas": (0.8, 0.9), "weight_decay": 0.0, "eps": 1e-8, "foreach": False},
        "stable_adamw",
        {"learning_rate": RATE, "b1": 0.8, "b2": 0.9, "weight_decay": 0.0, "eps": 1e-8},
    ),
    "mars": (
        "pytorch_optimizer",
        "MARS",
        {"lr": RATE, "optimize_1d": True, "eps": 0.0, "foreach": False},  # of the uncorrected root
        "mars",
        {"learning_rate": RATE, "eps": 0.0},
    ),
    "came": (
        "pytorch_optimizer",
        "CAME",
        {"lr": RATE, "betas": (0.8, 0.9, 0.95), "foreach": False},
        "came",
        {"learning_rate": RATE, "b1": 0.8, "b2": 0.9, "b3": 0.95},
    ),
    "adafactor": (
        "pytorch_optimizer",
        "AdaFactor",
        {
            "lr": RATE,
            "betas": (None, 0.999),
            "scale_parameter": False,
            "relative_step": False,
            "foreach": False,
        },
        "adafactor",
        {
            "learning_rate": RATE,
            "min_dim_size_to_factor": 2,
            "multiply_by_parameter_scale": False,
        },
    ),
    "spam": (
        "pytorch_optimizer",
        "SPAM",
        # Theirs warms up after resets only, and corrects by the steps since the start.
        {"lr": RATE, "betas": (0.8, 0.9), "threshold": 1.5, "grad_accu_steps": 6, "eps": 0.0},
        "spam",
        {
            "learning_rate": RATE,
            "b1": 0.8,
            "b2": 0.9,
            "theta": 1.5,
            "clip_after": 5,
            "warmup_steps": 0,
            "eps": 0.0,
        },
    ),
}
BEFORE = {"schedulefree": "train"}

# Where a published implementation rounds to float32 by itself, a part of a step.
BOUNDS = {"soap": 1e-4}  # its QR


# Theirs corrects the first gradient by a zero before it; where it is clipped, that does not show.
NAMES = {"mars": ("kernel",)}


@pytest.mark.parametrize("row", ROWS)
def test_a_published_implementation_takes_our_steps(row):
    module, name, theirs, recipe, arguments = ROWS[row]
    names = NAMES.get(row, LEAVES)
    want, _, _ = by_torch(module, name, theirs, names, BEFORE.get(module))
    path, _ = by_us(ours(recipe, **arguments), names)
    compare(path, want, BOUNDS.get(row, BOUND))


MODIFIERS = {
    "grams": ("pytorch_optimizer", "Grams", {}),
    "cautious": ("timm.optim", "AdamWLegacy", {"caution": True, "weight_decay": 0.0}),
}


@pytest.mark.parametrize("modifier", MODIFIERS)
def test_a_published_modifier_takes_our_steps(modifier):
    module, name, arguments = MODIFIERS[modifier]
    arguments = {"lr": RATE, "eps": 1e-8, "foreach": False, **arguments}
    want, _, _ = by_torch(module, name, arguments, LEAVES)
    path, _ = by_us(ours(modifier, adamx.adamw(RATE, weight_decay=0.0)), LEAVES)
    compare(path, want)


def test_the_published_adam_mini_takes_our_steps():
    module = pytest.importorskip("pytorch_optimizer")
    params, noise = problem(LEAVES)
    model = torch.nn.Module()
    model.q_proj, model.rest = torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(1, 3, bias=True)
    leaves = {"kernel": model.q_proj.weight, "bias": model.rest.bias}
    model.rest.weight.requires_grad_(False)
    with torch.no_grad():
        for k, p in leaves.items():
            p.copy_(torch.tensor(params[k]))
    opt = module.AdamMini(
        model, lr=RATE, betas=(0.8, 0.9), weight_decay=0.0, num_embeds=4, num_heads=2, foreach=False
    )
    mini = adamx.adam_mini(RATE, b1=0.8, b2=0.9, weight_decay=0.0, heads={"kernel": (2, 0)})
    path, _ = by_us(mini, LEAVES)
    compare(path, stepped(opt, leaves, noise), 1e-5)  # theirs keeps its moments in float32


def test_the_published_average_is_ours():
    arguments = {"lr": RATE, "foreach": False}
    _, opt, leaves = by_torch("schedulefree", "AdamWScheduleFree", arguments, LEAVES, "train")
    opt.eval()
    _, (params, state) = by_us(adamx.schedule_free_adamw(RATE), LEAVES)
    x = adamx.schedule_free_eval_params(state, params)
    for k, p in leaves.items():
        np.testing.assert_allclose(x[k], p.detach().numpy(), rtol=0, atol=BOUND * RATE)
