# SPDX-License-Identifier: Apache-2.0
"""One small network in torch and in JAX, trained on the same batches by either."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

BATCHES = np.random.default_rng(5).normal(size=(200, 16, 4))


def network(torch, dtype=None):
    """Two layers with a norm between them, and a table in front."""

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = torch.nn.Linear(4, 8)
            self.norm = torch.nn.LayerNorm(8)
            self.fc2 = torch.nn.Linear(8, 3)

        def forward(self, x):
            return self.fc2(torch.tanh(self.norm(self.fc1(x))))

    torch.manual_seed(0)
    return Network().to(dtype or torch.float64)


def template(dtype="float64"):
    """The shapes of the same network here."""
    shapes = {
        "fc1": {"kernel": (4, 8), "bias": (8,)},
        "norm": {"scale": (8,), "bias": (8,)},
        "fc2": {"kernel": (8, 3), "bias": (3,)},
    }

    def leaf(shape):
        return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))

    return jax.tree.map(leaf, shapes, is_leaf=lambda x: isinstance(x, tuple))


def forward(params, x):
    y = x @ params["fc1"]["kernel"] + params["fc1"]["bias"]
    y = y - y.mean(-1, keepdims=True)
    y = y / jnp.sqrt((y * y).mean(-1, keepdims=True) + 1e-5)
    y = jnp.tanh(y * params["norm"]["scale"] + params["norm"]["bias"])
    return y @ params["fc2"]["kernel"] + params["fc2"]["bias"]


def loss(params, x):
    return jnp.mean((forward(params, x) - jnp.sin(x[:, :3])) ** 2)


def train_torch(torch, model, opt, first, last):
    """Steps on the batches from `first` to `last`."""
    for x in BATCHES[first:last]:
        opt.zero_grad()
        x = torch.tensor(x, dtype=next(model.parameters()).dtype)
        torch.mean((model(x) - torch.sin(x[:, :3])) ** 2).backward()
        opt.step()


def train_here(opt, params, state, first, last):
    """The same; returns the parameters and the state."""

    def step(carry, x):
        p, s = carry
        grads = jax.grad(loss)(p, x)
        updates, s = opt.update(grads, s, p)
        return (optax.apply_updates(p, updates), s), None

    batches = jnp.asarray(BATCHES[first:last], params["fc1"]["bias"].dtype)
    return jax.jit(lambda c: jax.lax.scan(step, c, batches)[0])((params, state))


def flat(model_or_params):
    """All weights by torch's names, laid out as in torch."""
    if hasattr(model_or_params, "state_dict"):
        return {k: v.detach().numpy().copy() for k, v in model_or_params.state_dict().items()}
    p = jax.tree.map(np.asarray, model_or_params)
    return {
        "fc1.weight": p["fc1"]["kernel"].T,
        "fc1.bias": p["fc1"]["bias"],
        "norm.weight": p["norm"]["scale"],
        "norm.bias": p["norm"]["bias"],
        "fc2.weight": p["fc2"]["kernel"].T,
        "fc2.bias": p["fc2"]["bias"],
    }


def apart(a, b):
    """The largest difference of two sets of weights."""
    a, b = flat(a), flat(b)
    return max(float(np.max(np.abs(a[k] - b[k]))) for k in a)
