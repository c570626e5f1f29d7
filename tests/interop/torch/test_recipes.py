# SPDX-License-Identifier: Apache-2.0
"""The same steps by `torch.optim` and by the recipe of the same name, hyperparameters drawn anew.

Where two programs evaluate one formula in float64, 200 steps part them by some 1e-13 of a step, and
`1 - b**t` in torch's form costs a few digits more. The bound is 1e-9 of a step. Where decay is in
the gradient and all else is small, weights swing around zero, and some runs are chaotic: the last
bit of a weight decides where it is 100 steps later. So each step is first compared on its own, from
the weights that torch has before it, which no chaos reaches; then two whole runs are.
"""

import random

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adamx import interop
from tests.products import values_in_turn

torch = pytest.importorskip("torch", reason="compares with torch.optim")

BOUND, STEPS = 1e-9, 200
SCALES = (1e-10, 1e-7, 1.0, 1e4)
SHAPES = {"matrix": (3, 5), "vector": (4,), "scalar": (), "kernel": (2, 3, 2, 2)}
CLASSES = {
    "adam": "Adam",
    "adamw": "AdamW",
    "nadam": "NAdam",
    "radam": "RAdam",
    "adamax": "Adamax",
}
SEED = random.SystemRandom().randrange(10**9)  # drawn anew; pytest prints it where a test fails


def drawn(name, rng):
    """Arguments of `torch.optim`, drawn where its class has them."""
    kwargs = {
        "lr": 10 ** rng.uniform(-4, -1),
        "betas": (rng.choice([0.0, 0.5, 0.8, 0.9, 0.95]), rng.choice([0.9, 0.95, 0.99, 0.9999])),
        "eps": 10 ** rng.uniform(-12, -3),
        "weight_decay": rng.choice([0.0, 10 ** rng.uniform(-4, -1)]),
        "maximize": bool(rng.choice([True, False])),
    }
    kwargs["betas"] = tuple(map(float, kwargs["betas"]))
    if name in ("adam", "adamw"):
        kwargs["amsgrad"] = bool(rng.choice([True, False]))
    if name in ("adam", "nadam", "radam"):
        kwargs["decoupled_weight_decay"] = bool(rng.choice([True, False]))
    if name == "nadam":
        kwargs["momentum_decay"] = 10 ** rng.uniform(-4, -1)
    return {k: float(v) if isinstance(v, np.floating) else v for k, v in kwargs.items()}


@pytest.fixture
def double():
    """Both libraries in float64; torch keeps NAdam's product in its default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with jax.enable_x64(True):
        yield
    torch.set_default_dtype(before)


def problem(rng, scale, steps=STEPS):
    start = {k: rng.normal(size=s) for k, s in SHAPES.items()}
    return start, {k: scale * rng.normal(size=(steps, *s)) for k, s in SHAPES.items()}


def by_torch(make, start, grads):
    """The parameters after every step."""
    params = {k: torch.nn.Parameter(torch.tensor(x)) for k, x in start.items()}
    opt = make(list(params.values()))
    path = {k: [] for k in start}
    for i in range(len(grads["scalar"])):
        for k, p in params.items():
            p.grad = torch.tensor(grads[k][i])
        opt.step()
        for k, p in params.items():
            path[k].append(p.detach().numpy().copy())
    return {k: np.stack(x) for k, x in path.items()}


def by_ours(opt, start, grads, path=None):
    """The parameters after every step, taken from those of `path` where there is one."""

    def step(carry, given):
        p, state = carry
        g, known = given
        updates, state = opt.update(g, state, p)
        p = optax.apply_updates(p, updates)
        return (p if path is None else known, state), p

    params = jax.tree.map(jnp.asarray, start)
    run = jax.jit(lambda p, given: jax.lax.scan(step, (p, opt.init(p)), given)[1])
    return jax.tree.map(np.asarray, run(params, jax.tree.map(jnp.asarray, (grads, path or grads))))


def apart(a, b):
    return max(float(np.max(np.abs(a[k] - b[k]))) for k in a)


@values_in_turn("name, scale", CLASSES, SCALES)
def test_recipe_takes_the_path_of_torch(double, name, scale):
    print("seed", SEED)
    rng = np.random.default_rng([SEED, *map(ord, name), SCALES.index(scale)])
    within = 0
    for _ in range(12):
        kwargs = drawn(name, rng)
        print(kwargs)
        start, grads = problem(rng, scale)

        bound = BOUND * kwargs["lr"]
        theirs = by_torch(
            lambda p, k=kwargs: getattr(torch.optim, CLASSES[name])(p, **k), start, grads
        )
        opt = getattr(interop.torch, name)(**kwargs)
        assert apart(by_ours(opt, start, grads, path=theirs), theirs) <= bound
        within += apart(by_ours(opt, start, grads), theirs) <= bound
        if within == 2:
            break
    assert within == 2


@pytest.mark.parametrize("name", CLASSES)
def test_the_defaults_are_those_of_torch(double, name):
    start, grads = problem(np.random.default_rng(3), 1.0, steps=20)
    theirs = by_torch(getattr(torch.optim, CLASSES[name]), start, grads)
    assert apart(by_ours(getattr(interop.torch, name)(), start, grads), theirs) / 1e-3 <= BOUND


def in_float32(params, opt, grads):
    """The parameters after every step of torch's, as one array."""
    path = []
    for g in grads:
        for p, x in zip(params, g, strict=True):
            p.grad = torch.from_numpy(x)
        opt.step()
        path.append(torch.stack(params).detach().numpy().copy())
    return np.stack(path)


@pytest.mark.parametrize("steps", [300, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name, how",
    [*((name, "foreach") for name in CLASSES), ("adam", "fused"), ("adamw", "fused")],
)
def test_in_float32_every_step_is_torchs_up_to_rounding(name, how, steps):
    print("seed", SEED)
    rng = np.random.default_rng([SEED, *map(ord, name + how), steps])
    start = rng.normal(size=(4, 16)).astype(np.float32)
    grads = rng.normal(size=(steps, 4, 16)).astype(np.float32)
    rate, (b1, b2) = 1e-3, (0.9, 0.999)
    params = [torch.nn.Parameter(torch.tensor(x)) for x in start]
    make = getattr(torch.optim, CLASSES[name])
    theirs = in_float32(params, make(params, lr=rate, betas=(b1, b2), **{how: True}), grads)
    ours = by_ours(getattr(interop.torch, name)(rate, (b1, b2)), {"p": start}, {"p": grads})["p"]
    taken = [
        np.diff(path.astype(np.float64), axis=0, prepend=start[None]) for path in (ours, theirs)
    ]
    # Each side rounds its parameter once. A rounding of the mean square is remembered for
    # 1 / (1 - b2) steps, and half of it is in the root; one of the mean for 1 / (1 - b1).
    half = 2.0**-24
    memory = half * (1 / (1 - b1) + 0.5 / (1 - b2) + 8)
    bound = 2 * half * np.abs(ours) + half * np.abs(theirs) + memory * np.abs(taken[1]).max()
    assert np.all(np.abs(taken[0] - taken[1]) <= bound)


@pytest.mark.parametrize("scale", SCALES)
def test_rows_without_a_gradient_rest_as_in_sparse_adam(double, scale):
    print("seed", SEED)
    rng = np.random.default_rng([SEED, SCALES.index(scale)])
    kwargs = drawn("", rng)
    kwargs.pop("weight_decay")
    print(kwargs)
    start, grads = rng.normal(size=(6, 3)), scale * rng.normal(size=(STEPS, 6, 3))
    grads *= rng.random((STEPS, 6, 1)) < 0.3
    grads[5] = 0  # a step without any row still counts
    p = torch.nn.Parameter(torch.tensor(start))
    opt, path = torch.optim.SparseAdam([p], **kwargs), []
    for g in grads:
        p.grad = torch.tensor(g).to_sparse(1)
        opt.step()
        path.append(p.detach().numpy().copy())
    names = {"scalar": grads}
    ours = by_ours(interop.torch.sparse_adam(**kwargs), {"scalar": start}, names)
    assert apart(ours, {"scalar": np.stack(path)}) / kwargs["lr"] <= BOUND


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("landing", ["nearest", "kahan", "exact"])
def test_a_resting_row_keeps_every_byte(storage, landing):
    opt = interop.torch.sparse_adam(0.1, storage=storage, landing=landing)
    params = {"table": jnp.ones((4, 3), jnp.bfloat16), "gain": jnp.ones((), jnp.bfloat16)}
    state = opt.init(params)
    all_rows = jax.tree.map(lambda p: jnp.full(p.shape, 0.3, p.dtype), params)
    updates, state = opt.update(all_rows, state, params)
    with jax.numpy_dtype_promotion("standard"):  # of float32 updates, as landings emit them
        params = optax.apply_updates(params, updates)
    some = {"table": all_rows["table"].at[1:3].set(0), "gain": jnp.zeros((), jnp.bfloat16)}
    updates, after = jax.jit(opt.update)(some, state, params)
    assert not np.any(updates["table"][1:3])
    assert np.all(updates["table"][0])
    assert jax.tree.structure(after) == jax.tree.structure(state)
    rows = 0
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert a.dtype == b.dtype
        if a.shape == (4, 3):
            np.testing.assert_array_equal(a[1:3], b[1:3])
            rows += 1
    assert rows == (1 if storage == "int4" else 2) + (landing != "nearest")
    assert int(after[0].count) == 2


def test_one_bare_scalar_still_counts():
    opt = interop.torch.sparse_adam(0.1)
    p = jnp.asarray(1.0)
    _, state = opt.update(jnp.asarray(0.0), opt.init(p), p)
    assert int(state[0].count) == 1


def test_numbers_may_be_tensors():
    tensor = torch.tensor(0.25)
    a = interop.torch.adam(tensor, betas=(torch.tensor(0.5), 0.75), eps=tensor, weight_decay=tensor)
    assert a == interop.torch.adam(0.25, betas=(0.5, 0.75), eps=0.25, weight_decay=0.25)


def test_what_changes_no_number_is_ignored():
    flags = dict.fromkeys(("foreach", "fused", "capturable", "differentiable"), True)
    for name in CLASSES:
        build = getattr(interop.torch, name)
        assert build(**flags) == build()


def test_arguments_of_ours_reach_the_recipe():
    opt = interop.torch.adamw(storage="int8", landing="exact", mask="*/kernel")
    params = {"kernel": jnp.ones(3, jnp.bfloat16), "bias": jnp.ones(3, jnp.bfloat16)}
    state = opt.init(params)
    assert state[0].nu["bias"].dtype == jnp.uint8
    updates, _ = opt.update(jax.tree.map(jnp.zeros_like, params), state, params)
    _, state = opt.update(jax.tree.map(jnp.zeros_like, params), state, params)
    assert not np.any(updates["bias"])
    assert np.any(state[-1].remainder["kernel"])


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: interop.torch.adam(momentum=0.9), "torch.adam has no argument `momentum`"),
        (lambda: interop.torch.adamw(weight_deacy=1), "the nearest is `weight_decay`"),
        (lambda: interop.torch.radam(amsgrad=True), "torch.radam has no argument `amsgrad`"),
        (lambda: interop.torch.adamax(learning_rate=1), "the nearest is `lr`"),
        (lambda: interop.torch.sparse_adam(weight_decay=1), "no argument `weight_decay`"),
        (lambda: interop.torch.adam(betas=0.9), "`betas` must be a pair of numbers, got 0.9"),
        (lambda: interop.torch.adam(betas=(0.9, 1.0)), r"`b2` must be in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_arguments_are_named(call, said):
    with pytest.raises((TypeError, ValueError), match=said):
        call()
