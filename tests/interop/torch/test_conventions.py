# SPDX-License-Identifier: Apache-2.0
"""Modules of torch and of the JAX libraries compute the same with weights that were carried over.

The oracles are the libraries themselves. Haiku is not installed with the tests: its modules are
re-enacted by the operation of `jax.lax` that they call, on the shapes that they declare.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax

from adamx import interop

torch = pytest.importorskip("torch", reason="compares with torch's modules")
X = np.random.default_rng(0)
IMAGE = X.normal(size=(2, 3, 7, 6)).astype(np.float32)


def weights_of(module):
    """A state dict whose entries are all different, biases and scales too."""
    torch.manual_seed(1)
    return {
        k: torch.randn_like(v) if v.is_floating_point() else v
        for k, v in module.state_dict().items()
    }


def by_torch(module, weights, x):
    module.load_state_dict(weights)
    with torch.no_grad():
        return module.eval()(torch.tensor(x)).numpy()


def last(x):
    """Channels last."""
    return np.moveaxis(x, 1, -1)


def moved(weights, params, **kwargs):
    found = interop.from_torch(weights, None, params, **kwargs)
    assert not found.rest
    return found.params


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


CONVS = {
    1: (torch.nn.Conv1d, torch.nn.ConvTranspose1d, IMAGE[..., 0]),
    2: (torch.nn.Conv2d, torch.nn.ConvTranspose2d, IMAGE),
    3: (torch.nn.Conv3d, torch.nn.ConvTranspose3d, IMAGE[:, :, :5, :4, None] * np.ones(3, "f4")),
}


@pytest.mark.parametrize("rank", CONVS)
def test_convolution_of_flax(rank):
    build, _, x = CONVS[rank]
    theirs = build(3, 5, 3)
    weights = weights_of(theirs)
    ours = linen.Conv(5, (3,) * rank, padding="VALID")
    params = jax.eval_shape(ours.init, jax.random.key(0), jnp.asarray(last(x)))
    params = moved(weights, params)
    close(ours.apply(params, last(x)), last(by_torch(theirs, weights, x)))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("rank", CONVS)
def test_transposed_convolution_of_flax(rank, swapped):
    _, build, x = CONVS[rank]
    theirs = build(3, 5, 3, stride=2)
    weights = weights_of(theirs)
    ours = linen.ConvTranspose(
        5, (3,) * rank, (2,) * rank, padding="VALID", transpose_kernel=swapped
    )
    params = jax.eval_shape(ours.init, jax.random.key(0), jnp.asarray(last(x)))
    kind = "transpose_kernel" if swapped else "conv_transpose"
    params = moved(weights, params, layouts={"*/kernel": kind})
    close(ours.apply(params, last(x)), last(by_torch(theirs, weights, x)))


@pytest.mark.parametrize("rank", CONVS)
def test_convolutions_of_equinox(rank):
    build, transposed, x = CONVS[rank]
    key = jax.random.key(0)
    for theirs, ours, layouts in (
        (build(3, 5, 3), eqx.nn.Conv(rank, 3, 5, 3, key=key), None),
        (
            transposed(3, 5, 3, stride=2),
            eqx.nn.ConvTranspose(rank, 3, 5, 3, 2, key=key),
            {"weight": "conv_transpose"},
        ),
    ):
        weights = weights_of(theirs)
        arrays, rest = eqx.partition(ours, eqx.is_array)
        arrays = moved(weights, arrays, layout="equinox", layouts=layouts)
        close(jax.vmap(eqx.combine(arrays, rest))(x), by_torch(theirs, weights, x))


@pytest.mark.parametrize("rank", CONVS)
def test_convolutions_of_haiku(rank):
    build, transposed, x = CONVS[rank]
    letters = "DHW"[3 - rank :]
    spec = f"N{letters}C"
    theirs, weights = build(3, 5, 3), weights_of(build(3, 5, 3))
    shape = jnp.zeros
    params = moved(weights, {"w": shape((3,) * rank + (3, 5)), "b": shape(5)}, layout="haiku")
    made = lax.conv_general_dilated(
        jnp.asarray(last(x)),
        params["w"],
        (1,) * rank,
        "VALID",
        dimension_numbers=(spec, f"{letters}IO", spec),
    )
    close(made + params["b"], last(by_torch(theirs, weights, x)))
    theirs = transposed(3, 5, 3, stride=2)
    weights = weights_of(theirs)
    params = {"w": shape((3,) * rank + (5, 3)), "b": shape(5)}
    params = moved(weights, params, layout="haiku", layouts={"w": "conv_transpose"})
    made = lax.conv_transpose(
        jnp.asarray(last(x)),
        params["w"],
        (2,) * rank,
        "VALID",
        dimension_numbers=(spec, f"{letters}OI", spec),
    )
    close(made + params["b"], last(by_torch(theirs, weights, x)))


class Words(torch.nn.Module):
    """A table, a norm and a layer."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(11, 6)
        self.norm = torch.nn.LayerNorm(6)
        self.out = torch.nn.Linear(6, 4)

    def forward(self, x):
        return self.out(self.norm(self.table(x)))


class LinenWords(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.Embed(11, 6, name="table")(x)
        x = linen.LayerNorm(epsilon=1e-5, name="norm")(x)
        return linen.Dense(4, name="out")(x)


class NnxWords(nnx.Module):
    def __init__(self, rngs):
        self.table = nnx.Embed(11, 6, rngs=rngs)
        self.norm = nnx.LayerNorm(6, epsilon=1e-5, rngs=rngs)
        self.out = nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, x):
        return self.out(self.norm(self.table(x)))


class EqxWords(eqx.Module):
    table: eqx.nn.Embedding
    norm: eqx.nn.LayerNorm
    out: eqx.nn.Linear

    def __init__(self, key):
        self.table = eqx.nn.Embedding(11, 6, key=key)
        self.norm = eqx.nn.LayerNorm(6)
        self.out = eqx.nn.Linear(6, 4, key=key)

    def __call__(self, x):
        return self.out(self.norm(self.table(x)))


TOKENS = np.arange(11).reshape(11)


def test_tables_norms_and_layers():
    weights, theirs = weights_of(Words()), Words()
    want = by_torch(theirs, weights, TOKENS)
    ours = LinenWords()
    params = jax.eval_shape(ours.init, jax.random.key(0), TOKENS)
    close(ours.apply(moved(weights, params), TOKENS), want)

    ours = NnxWords(nnx.Rngs(0))
    nnx.update(ours, moved(weights, nnx.state(ours, nnx.Param)))
    close(ours(jnp.asarray(TOKENS)), want)

    arrays, rest = eqx.partition(EqxWords(jax.random.key(0)), eqx.is_array)
    ours = eqx.combine(moved(weights, arrays, layout="equinox"), rest)
    close(jax.vmap(ours)(TOKENS), want)

    shapes = {
        "words/~/table": {"embeddings": (11, 6)},
        "words/~/norm": {"scale": (6,), "offset": (6,)},
        "words/~/out": {"w": (6, 4), "b": (4,)},
    }
    params = jax.tree.map(jnp.zeros, shapes, is_leaf=lambda x: isinstance(x, tuple))
    names = {f"words/~/{name}": name for name in ("table", "norm", "out")}
    params = moved(weights, params, layout="haiku", names=names)
    np.testing.assert_array_equal(params["words/~/out"]["w"], weights["out.weight"].numpy().T)
    np.testing.assert_array_equal(params["words/~/norm"]["offset"], weights["norm.bias"].numpy())


SEQUENCE = X.normal(size=(2, 5, 12)).astype(np.float32)


def attention():
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    weights = weights_of(theirs)
    theirs.load_state_dict(weights)
    x = torch.tensor(SEQUENCE)
    with torch.no_grad():
        return weights, theirs(x, x, x, need_weights=False)[0].numpy()


def test_attention_of_linen():
    weights, want = attention()
    ours = linen.MultiHeadDotProductAttention(num_heads=3)
    params = jax.eval_shape(ours.init, jax.random.key(0), SEQUENCE, SEQUENCE)
    close(ours.apply(moved(weights, params), SEQUENCE, SEQUENCE), want)


def test_attention_of_nnx():
    weights, want = attention()
    ours = nnx.MultiHeadAttention(3, 12, decode=False, rngs=nnx.Rngs(0))
    nnx.update(ours, moved(weights, nnx.state(ours, nnx.Param)))
    close(ours(jnp.asarray(SEQUENCE)), want)


def test_attention_of_equinox():
    weights, want = attention()
    biases = dict.fromkeys((f"use_{k}_bias" for k in ("query", "key", "value", "output")), True)
    ours = eqx.nn.MultiheadAttention(3, 12, **biases, key=jax.random.key(0))
    arrays, rest = eqx.partition(ours, eqx.is_array)
    ours = eqx.combine(moved(weights, arrays, layout="equinox"), rest)
    close(jax.vmap(lambda x: ours(x, x, x))(SEQUENCE), want)


def test_attention_of_haiku_takes_the_thirds():
    weights, _ = attention()
    parts = ("query", "key", "value", "linear")
    params = {f"attn/{k}": {"w": jnp.zeros((12, 12)), "b": jnp.zeros(12)} for k in parts}
    renamed = {f"attn.{k}": v for k, v in weights.items()}
    params = moved(renamed, params, layout="haiku")
    whole = weights["in_proj_weight"].numpy()
    for i, name in enumerate(parts[:3]):
        np.testing.assert_array_equal(params[f"attn/{name}"]["w"], whole[12 * i :][:12].T)
    np.testing.assert_array_equal(params["attn/linear"]["w"], weights["out_proj.weight"].numpy().T)


def test_batch_norm_leaves_its_statistics_to_the_caller():
    theirs = torch.nn.BatchNorm2d(3)
    weights = weights_of(theirs)
    weights["running_var"] = weights["running_var"].abs() + 1
    ours = linen.BatchNorm(use_running_average=True, epsilon=1e-5)
    shapes = jax.eval_shape(ours.init, jax.random.key(0), last(IMAGE))
    found = interop.from_torch(weights, None, {"params": shapes["params"]})
    assert set(found.rest) == {"running_mean", "running_var", "num_batches_tracked"}
    assert found.report.left == list(found.rest)
    stats = {"mean": found.rest["running_mean"], "var": found.rest["running_var"]}
    made = ours.apply({**found.params, "batch_stats": stats}, last(IMAGE))
    close(made, last(by_torch(theirs, weights, IMAGE)))


def test_a_leaf_may_be_stacked_of_many_layers():
    weights = {f"layers.{i}.weight": torch.randn(3, 2) for i in range(4)}
    params = {"layers": {"kernel": jnp.zeros((4, 2, 3))}}
    found = interop.from_torch(
        weights,
        None,
        params,
        names={"layers/kernel": list(weights)},
        layouts={"layers/kernel": lambda *x: np.stack([a.T for a in x])},
    )
    want = np.stack([w.numpy().T for w in weights.values()])
    np.testing.assert_array_equal(found.params["layers"]["kernel"], want)


def test_stacked_layers_come_back_one_by_one():
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False)
    )
    opt = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).square().sum().backward()
    opt.step()
    weights, state = model.state_dict(), opt.state_dict()
    how = {
        "names": {"kernel": ["0.weight", "1.weight"]},
        "layouts": {"kernel": lambda *x: np.stack([a.T for a in x])},
    }
    found = interop.from_torch(weights, state, {"kernel": jnp.zeros((2, 3, 3))}, **how)
    assert found.state[0].mu["kernel"].shape == (2, 3, 3)
    back = interop.to_torch(found.params, found.state, found.opt, weights, state, **how)
    for i, name in enumerate(weights):
        assert torch.equal(back.weights[name], weights[name])
        assert torch.equal(back.optimizer["state"][i]["exp_avg"], state["state"][i]["exp_avg"])


def test_thirds_of_attention_come_back_as_one():
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    opt = torch.optim.Adam(theirs.parameters())
    x = torch.tensor(SEQUENCE)
    theirs(x, x, x)[0].square().sum().backward()
    opt.step()
    ours = linen.MultiHeadDotProductAttention(num_heads=3)
    params = jax.eval_shape(ours.init, jax.random.key(0), SEQUENCE, SEQUENCE)
    weights, state = theirs.state_dict(), opt.state_dict()
    found = interop.from_torch(weights, state, params)
    back = interop.to_torch(found.params, found.state, found.opt, weights, state)
    for i, name in enumerate(weights):
        assert torch.equal(back.weights[name], weights[name])
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(back.optimizer["state"][i][key], state["state"][i][key])


def test_numbered_modules_are_found_by_their_number():
    weights = {"blocks.1.fc.weight": torch.randn(3, 2)}
    params = {"params": {"blocks_1": {"fc": {"kernel": jnp.zeros((2, 3))}}}}
    assert moved(weights, params)["params"]["blocks_1"]["fc"]["kernel"].shape == (2, 3)


def test_names_may_be_a_function():
    weights = {"a.weight": torch.randn(3, 2), "b.bias": torch.randn(3)}
    params = {"first": {"kernel": jnp.zeros((2, 3))}, "b": {"bias": jnp.zeros(3)}}
    found = moved(weights, params, names=lambda path: {"first/kernel": "a.weight"}.get(path))
    np.testing.assert_array_equal(found["first"]["kernel"], weights["a.weight"].numpy().T)
