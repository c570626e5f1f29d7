# SPDX-License-Identifier: Apache-2.0
"""A run begun in torch goes on here, and back there, as if nothing had happened.

In float64, 100 steps there and 100 on both sides differ by 1e-9 of a step at most: both sides
compute the same formulas, with some 1e-13 of rounding a step.
"""

import random

import jax
import numpy as np
import optax
import pytest

from adamx import interop
from tests.interop.torch import models
from tests.products import some_slow

torch = pytest.importorskip("torch", reason="carries states of torch.optim over")

BOUND = 1e-9
SEED = random.SystemRandom().randrange(10**9)
CLASSES = {
    "Adam": {},
    "Adam, amsgrad": {"amsgrad": True, "weight_decay": 0.01},
    "AdamW": {},
    "AdamW, amsgrad, maximize": {"amsgrad": True, "maximize": True},
    "NAdam": {"weight_decay": 0.01, "decoupled_weight_decay": True},
    "RAdam": {"weight_decay": 0.01},
    "Adamax": {"weight_decay": 0.01},
}


@pytest.fixture(autouse=True)
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with jax.enable_x64(True):
        yield
    torch.set_default_dtype(before)


def make(row, params, **more):
    rng = np.random.default_rng([SEED, *map(ord, row)])
    kwargs = {
        "lr": float(10 ** rng.uniform(-4, -2)),
        "betas": (float(rng.uniform(0.5, 0.95)), float(rng.uniform(0.9, 0.999))),
        "eps": float(10 ** rng.uniform(-10, -4)),
    }
    kwargs |= CLASSES[row]
    print("seed", SEED, kwargs)
    return getattr(torch.optim, row.split(",")[0])(params, **(kwargs | more))


def carried(model, opt, **kwargs):
    return interop.from_torch(model.state_dict(), opt.state_dict(), models.template(), **kwargs)


@some_slow("row", CLASSES, list(CLASSES)[::2])
def test_a_run_goes_on_here_and_back_there(row):
    model = models.network(torch)
    theirs = make(row, model.parameters())
    rate = theirs.param_groups[0]["lr"]
    models.train_torch(torch, model, theirs, 0, 100)
    moved = carried(model, theirs)
    assert models.apart(model, moved.params) == 0
    params, state = models.train_here(moved.opt, moved.params, moved.state, 100, 200)
    start = models.flat(model)
    models.train_torch(torch, model, theirs, 100, 200)
    assert models.apart(model, params) / rate <= BOUND
    assert max(np.abs(start[k] - x).max() for k, x in models.flat(model).items()) > rate

    back, new = models.network(torch), None
    new = make(row, back.parameters())
    weights, optimizer, _ = interop.to_torch(
        params, state, moved.opt, back.state_dict(), new.state_dict()
    )
    back.load_state_dict(weights)
    new.load_state_dict(optimizer)
    models.train_torch(torch, back, new, 0, 100)
    models.train_torch(torch, model, theirs, 0, 100)
    assert models.apart(model, back) / rate <= BOUND


@pytest.mark.parametrize("with_names", [True, False])
def test_groups_become_a_partition_with_their_own_settings(with_names):
    model = models.network(torch)
    named = list(model.named_parameters())
    decayed = [(n, p) for n, p in named if p.ndim == 2]
    plain = [(n, p) for n, p in named if p.ndim == 1]
    rows = [decayed, plain] if with_names else [[p for _, p in x] for x in (decayed, plain)]
    groups = [
        {"params": rows[0], "weight_decay": 0.1},
        {"params": rows[1], "weight_decay": 0.0, "lr": 3e-3, "betas": (0.8, 0.95)},
    ]
    theirs = torch.optim.AdamW(groups, lr=1e-3)
    models.train_torch(torch, model, theirs, 0, 100)
    order = None if with_names else [[n for n, _ in decayed], [n for n, _ in plain]]
    moved = carried(model, theirs, order=order)
    assert set(moved.state.inner_states) == {"group0", "group1"}
    params, state = models.train_here(moved.opt, moved.params, moved.state, 100, 200)
    models.train_torch(torch, model, theirs, 100, 200)
    assert models.apart(model, params) / 3e-3 <= BOUND
    weights, optimizer, _ = interop.to_torch(
        params, state, moved.opt, model.state_dict(), theirs.state_dict(), order=order
    )
    for key, entry in theirs.state_dict()["state"].items():
        for name, x in entry.items():
            torch.testing.assert_close(optimizer["state"][key][name], x, rtol=1e-9, atol=1e-15)
    assert optimizer["param_groups"] == theirs.state_dict()["param_groups"]
    assert weights.keys() == model.state_dict().keys()


def test_a_frozen_layer_stays_and_is_none_of_the_optimizers():
    model = models.network(torch)
    for p in model.fc1.parameters():
        p.requires_grad_(False)
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    theirs = torch.optim.Adam(trained, lr=1e-2)
    models.train_torch(torch, model, theirs, 0, 10)
    moved = carried(model, theirs)
    params, state = models.train_here(moved.opt, moved.params, moved.state, 10, 20)
    models.train_torch(torch, model, theirs, 10, 20)
    assert models.apart(model, params) / 1e-2 <= BOUND
    _, optimizer, _ = interop.to_torch(
        params, state, moved.opt, model.state_dict(), theirs.state_dict()
    )
    assert optimizer["state"].keys() == theirs.state_dict()["state"].keys()


def test_resting_rows_are_carried_over():
    torch.manual_seed(0)
    table = torch.nn.Embedding(7, 3, sparse=True, dtype=torch.float64)
    theirs = torch.optim.SparseAdam(table.parameters(), lr=1e-2, betas=(0.8, 0.99))

    def there(first, last):
        for i in range(first, last):
            theirs.zero_grad()
            table(torch.tensor([i % 5, (3 * i) % 5])).square().sum().backward()
            theirs.step()

    def here(opt, params, state, first, last):
        for i in range(first, last):
            rows = np.array([i % 5, (3 * i) % 5])
            grads = jax.grad(lambda p, rows=rows: (p["embedding"][rows] ** 2).sum())(params)
            updates, state = opt.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    there(0, 20)
    params = {"embedding": jax.ShapeDtypeStruct((7, 3), np.float64)}
    moved = interop.from_torch(table.state_dict(), theirs.state_dict(), params)
    params, state = here(moved.opt, moved.params, moved.state, 20, 40)
    there(20, 40)
    weights = table.weight.detach().numpy()
    assert np.abs(params["embedding"] - weights).max() / 1e-2 <= BOUND
    back = interop.to_torch(params, state, moved.opt, table.state_dict(), theirs.state_dict())
    table.load_state_dict(back.weights)
    theirs.load_state_dict(back.optimizer)
    there(40, 60)
    params, _ = here(moved.opt, params, state, 40, 60)
    assert np.abs(params["embedding"] - table.weight.detach().numpy()).max() / 1e-2 <= BOUND
