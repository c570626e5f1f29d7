# SPDX-License-Identifier: Apache-2.0
"""`python -m adamx convert-state`: files of Keras into Orbax checkpoints and back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamx
from adamx.parallel import Run
from tests.cli.commands import done, refused, table
from tests.interop.keras_side import keras
from tests.products import values_in_turn

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = {
    "Dense_0/kernel": "layers/dense/vars/0",
    "Dense_0/bias": "layers/dense/vars/1",
    "Dense_1/kernel": "layers/dense_1/vars/0",
    "Dense_1/bias": "layers/dense_1/vars/1",
}


@pytest.fixture
def model(tmp_path):
    """A model that was trained for nine steps, saved in both ways, and the mapping."""
    pytest.importorskip("h5py", reason="Keras' files")
    layers = keras().layers
    model = keras().Sequential([layers.Input((5,)), layers.Dense(4, "tanh"), layers.Dense(3)])
    model.compile(keras().optimizers.AdamW(1e-3, weight_decay=0.1), loss="mse")
    rng = np.random.default_rng(0)
    with jax.numpy_dtype_promotion("standard"):
        model.fit(rng.normal(size=(96, 5)), rng.normal(size=(96, 3)), epochs=3, verbose=0)
    model.save(tmp_path / "there.keras")
    model.save_weights(tmp_path / "there.weights.h5")
    (tmp_path / "names.json").write_text(json.dumps({"names": NAMES, "kind": "adamw"}))
    return model


@values_in_turn("storage, kind", ["float32", "int8"], ["keras", "weights.h5"])
def test_a_file_goes_there_goes_on_and_comes_back(model, tmp_path, kind, storage):
    flags = f"--mapping names.json --storage {storage}"
    out = done(f"convert-state there.{kind} moved {flags}", tmp_path)
    rows = table(out, "weight lost")
    assert set(rows) >= set(NAMES)
    assert rows["Dense_0/kernel"][:2] == ["layers/dense/vars/0", "same"]
    assert (rows["Dense_0/kernel"][4:] == ["0", "0"]) == (storage == "float32")
    assert "after 9 steps" in out

    # The very line that was printed builds the optimizer of the checkpoint.
    line = next(line for line in out.splitlines() if line.startswith("opt = "))
    opt = eval(line.removeprefix("opt = "), {"adamx": adamx})
    shapes = {
        "Dense_0": {"kernel": (5, 4), "bias": (4,)},
        "Dense_1": {"kernel": (4, 3), "bias": (3,)},
    }
    params = jax.tree.map(lambda s: jnp.zeros(s), shapes, is_leaf=lambda x: type(x) is tuple)
    with adamx.Checkpoints(tmp_path / "moved", opt) as kept:
        assert kept.steps == [9]
        run = kept.restore(Run(params, opt.init(params)))
    np.testing.assert_array_equal(run.params["Dense_0"]["kernel"], model.layers[0].kernel.value)

    done(f"convert-state moved back.{kind} --like there.{kind} {flags}", tmp_path)
    before = [np.asarray(v.value) for v in (*model.trainable_variables, *model.optimizer.variables)]
    with jax.numpy_dtype_promotion("standard"):
        if kind == "keras":
            model = keras().saving.load_model(tmp_path / "back.keras")
        else:
            model.load_weights(tmp_path / "back.weights.h5")
    after = [np.asarray(v.value) for v in (*model.trainable_variables, *model.optimizer.variables)]
    for a, b in zip(before, after, strict=True):
        bound = {"float32": 0, "int8": 0.5}[storage] if a.ndim else 0
        assert np.max(np.abs(a - b)) <= bound * np.max(np.abs(a))


def test_what_is_missing_is_one_sentence(model, tmp_path):
    assert "none.keras: there is no such file" in refused("convert-state none.keras x", tmp_path)
    said = refused("convert-state there.keras moved", tmp_path)
    assert "layers/dense/vars/0, layers/dense/vars/1" in said
    (tmp_path / "few.json").write_text(json.dumps({"names": NAMES}))
    said = refused("convert-state there.weights.h5 moved --mapping few.json", tmp_path)
    assert 'does not say which optimizer: give a --mapping with "kind"' in said
    (tmp_path / "cut.keras").write_bytes((tmp_path / "there.keras").read_bytes()[:500])
    said = refused("convert-state cut.keras moved --mapping names.json", tmp_path)
    assert "is damaged, or no file of Keras 3" in said
