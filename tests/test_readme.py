# SPDX-License-Identifier: Apache-2.0
"""What the README says can be typed, and its links lead somewhere."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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
    exec(block("def train_step"), reader)
    params, state = reader["train_step"](reader["params"], reader["state"], reader["batch"])
    before, after = (reader["loss"](p, reader["batch"]) for p in (reader["params"], params))
    assert after < before
    assert all(count == 1 for _, count in optax.tree.get_all_with_path(state, "count"))


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


def test_every_block_is_typed_by_a_test():
    parts = ("def train_step", "adamx.convert", "parallel.data_parallel", "adamx.Checkpoints")
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
