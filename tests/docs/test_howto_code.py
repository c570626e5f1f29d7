# SPDX-License-Identifier: Apache-2.0
"""The code of each how-to can be typed, and does what its page says."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import adamx
from tests.docs.reader import DOCS, blocks, theirs, typed


@pytest.fixture(autouse=True)
def as_a_reader_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"):  # Optax's schedules need it
        yield


def test_flax_nnx_trains():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.dense, self.norm = nnx.Linear(8, 8, rngs=rngs), nnx.LayerNorm(8, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.dense(x))

    reader = {"adamx": adamx, "nnx": nnx, "model": Net(nnx.Rngs(0))}
    reader["loss_fn"] = lambda model, batch: jnp.mean((model(batch) - 1) ** 2)
    whole, smaller, *_ = blocks(DOCS / "howto/flax.md")
    exec(whole, reader)
    batch = theirs()["batch"]
    losses = [reader["loss_fn"](reader["model"], batch)]
    for block in ("", smaller):
        exec(block, reader)
        for _ in range(3):
            reader["train_step"](reader["model"], reader["optimizer"], batch)
        losses.append(reader["loss_fn"](reader["model"], batch))
    assert losses[0] > losses[1] > losses[2]
    state = nnx.as_pure(reader["optimizer"].opt_state)[0]
    assert int(state.count) == 6
    assert state.nu["dense"]["kernel"].dtype == jnp.uint8


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
    *_, plain, train_state = blocks(DOCS / "howto/flax.md")
    exec(plain, reader)
    before = reader["params"]
    params, state = reader["train_step"](before, reader["state"], reader["batch"])
    table, dense = params["words"]["embedding"], before["words"]["embedding"]
    assert not np.array_equal(jax.tree.leaves(table)[0], jax.tree.leaves(dense)[0])
    held = jax.tree.leaves(state[0].nu["words"])[0], state[0].nu["Dense_0"]["bias"]
    assert [x.dtype for x in held] == [jnp.float32, jnp.uint8]
    exec(train_state, reader)
    assert optax.tree.get(reader["train_state"].opt_state[0], "count") == 1


def test_equinox_trains():
    model = eqx.nn.MLP(8, 1, 8, 1, key=jax.random.key(0))

    def loss_fn(model, batch):
        return jnp.mean((jax.vmap(model)(batch) - 1) ** 2)

    reader = typed("howto/equinox.md", eqx=eqx, model=model, loss_fn=loss_fn)
    stepped, _ = reader["train_step"](model, reader["state"], reader["batch"])
    assert loss_fn(stepped, reader["batch"]) < loss_fn(model, reader["batch"])
    assert stepped.activation is model.activation
    assert reader["loss_of_arrays"](reader["arrays"], reader["batch"]) == loss_fn(
        model, reader["batch"]
    )


def test_haiku_trains():
    hk = pytest.importorskip("haiku", reason="needs dm-haiku")

    def forward(batch):
        return hk.Linear(1)(hk.LayerNorm(-1, True, True)(batch))

    def loss_fn(out):
        return jnp.mean((out - 1) ** 2)

    reader = typed("howto/haiku.md", hk=hk, forward=forward, loss_fn=loss_fn)
    network, params, batch = (reader[x] for x in ("network", "params", "batch"))
    stepped, _ = reader["train_step"](params, reader["state"], batch)
    assert loss_fn(network.apply(stepped, batch)) < loss_fn(network.apply(params, batch))


def test_a_trainer_gets_ours():
    class Rules:
        _RULES = {}  # noqa: RUF012
        derive_optax_logical_axes = staticmethod(lambda state, axes: axes)

    reader = typed("howto/trainers.md", rules=Rules)
    state = reader["opt"].init({"w": jnp.ones(8, jnp.bfloat16)})
    assert optax.tree.get(state, "nu")["w"].dtype == jnp.uint8
    assert Rules._RULES


def test_checkpoints_are_restored(tmp_path):
    pytest.importorskip("orbax.checkpoint", reason="needs Orbax")
    reader = typed("howto/checkpoints.md")
    assert (tmp_path / "run/checkpoints").is_dir()
    nu = optax.tree.get(reader["run"].state, "nu")
    assert nu["decoder"]["kernel"].dtype == jnp.uint8


def test_several_hosts_take_the_step_of_one():
    reader = typed("howto/several_hosts.md")
    assert np.isfinite(reader["outcome"].loss)


def test_float16_scales_its_loss(capsys):
    reader = typed("howto/float16.md")
    assert reader["params"]["decoder"]["kernel"].dtype == jnp.float16
    assert float(capsys.readouterr().out) == 2.0**15


def test_reinforcement_learning_scans_and_maps():
    reader = typed("howto/reinforcement_learning.md", minibatches=jnp.ones((3, 8, 8)))
    assert reader["losses"][2] < reader["losses"][0]
    steps = reader["params"]["decoder"]["kernel"] - reader["agents"]["decoder"]["kernel"]
    np.testing.assert_allclose(steps[:, 0, 0], [1e-4, 3e-4, 1e-3], rtol=1e-2)


def test_groups_have_their_own_optimizers(capsys):
    params = theirs()["params"] | {"encoder": {"embedding": jnp.ones((8, 8))}}
    reader = typed("howto/groups.md", params=params, grads=params)
    shown = capsys.readouterr().out
    for name in ("adamx.store(optax.contrib.muon)", "bfloat16", "int8", "clip_by_global_norm"):
        assert name in shown
    assert set(reader["state"][1].inner_states) == set(reader["table"])


def test_knobs_are_set():
    reader = typed("howto/knobs.md")
    found = reader["b2"], reader["decay"], reader["new"].b1
    assert found == pytest.approx((0.9494, 1 / 3, 0.6), abs=1e-4)
    params, grads, opt = (reader[k] for k in ("params", "grads", "opt"))
    updates, _ = opt.update(grads, opt.init(params), params)
    assert not np.any(updates["decoder"]["kernel"])


def test_memory_is_counted(capsys):
    typed("howto/memory.md")
    assert "moments" in capsys.readouterr().out
