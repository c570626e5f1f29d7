# SPDX-License-Identifier: Apache-2.0
"""The code of *Get started* and of the ideas can be typed, and does what its page says."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from tests.docs.reader import DOCS, blocks, theirs, typed


@pytest.fixture(autouse=True)
def as_a_reader_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"):  # Optax's schedules need it
        yield


def test_getting_started_trains(capsys):
    typed("start.md")
    assert float(capsys.readouterr().out) < 0.01


def test_small_states_are_small():
    reader = typed("ideas/small_states.md")
    nu = optax.tree.get(reader["state"], "nu")
    assert nu["decoder"]["kernel"].dtype == jnp.uint8


def test_bfloat16_parameters_keep_a_float32_weight():
    reader = typed("ideas/bfloat16_parameters.md")
    kernel, weight = (reader[x]["decoder"]["kernel"] for x in ("params", "weights"))
    assert (kernel.dtype, weight.dtype) == (jnp.bfloat16, jnp.float32)
    assert not np.array_equal(kernel.astype(jnp.float32), weight)


def test_many_devices_train():
    reader = typed("ideas/many_devices.md")
    assert np.isfinite(reader["outcome"].loss)
    assert reader["program"].as_text()
    mu = optax.tree.get(reader["state"], "mu")["decoder"]["kernel"]
    assert mu.addressable_shards[0].data.size == mu.size / 8
    params, state, batch = (reader[k] for k in ("params", "state", "batch"))
    params, _ = reader["one_step"](params, state, batch)
    assert params["decoder"]["kernel"].sharding.is_fully_replicated


def test_a_run_is_watched_logged_and_guarded():
    *whole, midway = blocks(DOCS / "ideas/watching.md")
    reader = theirs() | {"loss": 0.5}
    for block in whole:
        exec(block, reader)
    assert reader["figures"]["grad_norm"] > 0
    (row,) = reader["health"].history("run.jsonl")
    assert row["loss"] == 0.5
    assert reader["health"].read(reader["state"])["loss_scale"] == 2.0**15
    exec(midway, reader)
    params, state = reader["params"], reader["state"]
    assert jax.tree.structure(state) == jax.tree.structure(reader["opt"].init(params))
    _, state = adamx.step(reader["opt"], params, state, reader["grads"])
    assert reader["health"].read(state)["spikes"] == 0


def test_a_run_moves_from_torch(capsys):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)  # a weight that a step brings near 0 has fewer digits
    model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
    template = {"0": {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}}
    carried, grouped, recipes = blocks(DOCS / "ideas/moving.md")
    reader = theirs() | {"model": model, "optimizer": optimizer, "params": template}
    exec(carried, reader)
    assert "kernel" in capsys.readouterr().out
    grads = jax.tree.map(jnp.ones_like, reader["params"])
    params, _ = adamx.step(reader["opt"], reader["params"], reader["state"], grads)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    want = model[0].weight.detach().numpy().T
    np.testing.assert_allclose(params["0"]["kernel"], want, rtol=1e-6)
    exec(grouped, reader)
    _, clipped = adamx.step(reader["opt"], reader["params"], reader["state"], grads)
    assert int(clipped[1][0].count) == 4
    exec(recipes, reader)
    assert reader["opt"].init(template)


def test_a_step_owns_its_memory(capsys):
    reader = typed("ideas/speed.md")
    assert reader["params"]["decoder"]["kernel"].shape == (8, 8)
    assert str(adamx.kernels.available()) in capsys.readouterr().out


def test_a_huge_gradient_is_not_the_end():
    reader = typed("ideas/exactness.md")
    kernel = reader["params"]["decoder"]["kernel"]
    assert np.all(np.isfinite(kernel))
    assert np.all(kernel != 1 - 1e-3)


def test_the_formula_of_the_design_is_adams():
    reader = typed("ideas/design.md")
    g, zero = jnp.float32(2.0), jnp.float32(0.0)
    step, _ = reader["formula"](g, zero, zero, b1=0.9, b2=0.999, am=10, av=1000, eps=1e-8)
    np.testing.assert_allclose(step, 1.0, rtol=1e-5)
    assert reader["state"][0].nu["decoder"]["kernel"].dtype == jnp.uint8


def test_methods_beyond_adam_are_cautious_adam_at_last():
    reader = typed("ideas/family.md")
    params, grads, opt = (reader[k] for k in ("params", "grads", "opt"))
    _, state = adamx.step(opt, params, opt.init(params), grads)
    assert type(state[0]) is optax.ScaleByAdamState


def test_every_page_with_code_is_typed():
    tests = (Path(__file__), Path(__file__).with_name("test_howto_code.py"))
    source = "".join(path.read_text(encoding="utf-8") for path in tests)
    pages = [p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md") if blocks(p)]
    assert len(pages) > 15
    assert [page for page in pages if f'"{page}"' not in source] == []
