# SPDX-License-Identifier: Apache-2.0
"""What the README says can be typed, and its links lead somewhere."""

import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import adamx

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(autouse=True)
def as_a_reader_has_it():
    with jax.numpy_dtype_promotion("standard"):  # Optax's schedules need it
        yield


def theirs():
    """What a reader has: a model, a batch, an optimizer, and where training stands."""
    params = {"decoder": {"kernel": jnp.ones((8, 8)), "bias": jnp.zeros(8)}}
    batch = jnp.linspace(-1, 1, 64).reshape(8, 8)

    def loss_fn(params, batch):
        return jnp.mean((batch @ params["decoder"]["kernel"] + params["decoder"]["bias"]) ** 2)

    opt = adamx.adamw(3e-4)
    return {
        "adamx": adamx,
        "jax": jax,
        "optax": optax,
        "params": params,
        "batch": batch,
        "loss_fn": loss_fn,
        "opt": opt,
        "state": opt.init(params),
        "grads": jax.grad(loss_fn)(params, batch),
        "step": 1,
    }


def block(part):
    (found,) = (text for text in BLOCKS if part in text)
    return found


def test_the_ten_lines_train():
    reader = theirs()
    reader["loss"] = reader["loss_fn"]
    exec(block("cosine_decay"), reader)
    params, state = reader["train_step"](reader["params"], reader["state"], reader["batch"])
    before, after = (reader["loss"](p, reader["batch"]) for p in (reader["params"], params))
    assert after < before
    assert all(count == 1 for _, count in optax.tree.get_all_with_path(state, "count"))


def test_flax_nnx_trains():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.dense, self.norm = nnx.Linear(8, 8, rngs=rngs), nnx.LayerNorm(8, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.dense(x))

    reader = {"adamx": adamx, "nnx": nnx, "model": Net(nnx.Rngs(0))}
    reader["loss_fn"] = lambda model, batch: jnp.mean((model(batch) - 1) ** 2)
    exec(block("nnx.Optimizer"), reader)
    batch = theirs()["batch"]
    before = reader["loss_fn"](reader["model"], batch)
    for _ in range(3):
        reader["train_step"](reader["model"], reader["optimizer"], batch)
    assert reader["loss_fn"](reader["model"], batch) < before


@pytest.mark.parametrize("boxed", [False, True])
def test_flax_linen_trains(boxed):
    class Net(linen.Module):
        @linen.compact
        def __call__(self, batch):
            first = linen.initializers.normal(0.1)
            first = linen.with_partitioning(first, (None, None)) if boxed else first
            table = linen.Embed(8, 4, embedding_init=first, name="words")(jnp.arange(8))
            return linen.Dense(1, kernel_init=first)(table) * batch

    reader = theirs() | {"model": Net(), "loss_fn": lambda out: jnp.mean((out - 1) ** 2)}
    exec(block("model.apply"), reader)
    before = reader["params"]
    params, state = reader["train_step"](before, reader["state"], reader["batch"])
    table, dense = params["words"]["embedding"], before["words"]["embedding"]
    assert not np.array_equal(jax.tree.leaves(table)[0], jax.tree.leaves(dense)[0])
    held = jax.tree.leaves(state[0].nu["words"])[0], state[0].nu["Dense_0"]["bias"]
    assert [x.dtype for x in held] == [jnp.float32, jnp.uint8]


def test_equinox_trains():
    model = eqx.nn.MLP(8, 1, 8, 1, key=jax.random.key(0))
    reader = theirs() | {"eqx": eqx, "model": model}
    reader["loss_fn"] = lambda model, batch: jnp.mean((jax.vmap(model)(batch) - 1) ** 2)
    exec(block("filter_jit"), reader)
    stepped, _ = reader["train_step"](model, reader["state"], reader["batch"])
    assert reader["loss_fn"](stepped, reader["batch"]) < reader["loss_fn"](model, reader["batch"])
    assert stepped.activation is model.activation


def test_a_state_of_optax_goes_on_in_two_bytes():
    reader = theirs()
    reader["state"] = optax.adamw(3e-4).init(reader["params"])
    exec(block("adamx.convert"), reader)
    nu = optax.tree.get(reader["state"], "nu")
    assert nu["decoder"]["kernel"].dtype == jnp.uint8


def test_many_devices_train_save_and_go_on(tmp_path, monkeypatch):
    pytest.importorskip("orbax.checkpoint", reason="needs Orbax")
    monkeypatch.chdir(tmp_path)
    reader = theirs()
    exec(block("parallel.data_parallel"), reader)
    assert np.isfinite(reader["outcome"].loss)
    exec(block("adamx.Checkpoints"), reader)
    assert (tmp_path / "run/checkpoints").is_dir()
    run, _ = reader["train"].step(reader["run"], reader["batch"])
    assert optax.tree.get(run.state, "count") == 2


def test_a_run_is_watched_logged_and_guarded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reader = theirs()
    code, inits = block("health.observe(opt, every=100"), "state = opt.init(params)\n"
    code = code.replace("...\n", inits + "_, state = opt.update(grads, state, params)\n")
    exec(code, reader)
    assert reader["figures"]["grad_norm"] > 0
    reader["loss"] = 0.5
    exec(block('JsonLines("run.jsonl")'), reader)
    (row,) = reader["health"].history("run.jsonl")
    assert row["loss"] == 0.5
    reader["loss"] = lambda params: reader["loss_fn"](params, reader["batch"])
    exec(block("health.scaled").replace("...\n", inits), reader)
    assert reader["health"].read(reader["state"])["loss_scale"] == 2.0**15


def test_a_run_moves_from_torch(capsys):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
    reader = theirs() | {"model": model, "optimizer": optimizer}
    reader["params"] = {"0": {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}}
    exec(block("from_torch"), reader)
    assert "kernel" in capsys.readouterr().out
    grads = jax.tree.map(jnp.ones_like, reader["params"])
    params, _ = adamx.step(reader["opt"], reader["params"], reader["state"], grads)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    want = model[0].weight.detach().numpy().T
    np.testing.assert_allclose(params["0"]["kernel"], want, rtol=1e-6)


def test_every_block_is_typed_by_a_test():
    parts = ("cosine_decay", "adamx.convert", "parallel.data_parallel", "adamx.Checkpoints")
    parts += ("nnx.Optimizer", "model.apply", "filter_jit", "from_torch")
    parts += ("health.observe(opt, every=100", 'JsonLines("run.jsonl")', "health.scaled")
    assert sorted(BLOCKS) == sorted(block(part) for part in parts)


def test_links_lead_somewhere():
    titles = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", t.lower()).replace(" ", "-") for t in titles}
    links = re.findall(r"\]\(([^)]+)\)", TEXT.replace("\n", " "))
    assert len(links) > 20
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif "://" not in link:
            assert (ROOT / link).exists(), link
