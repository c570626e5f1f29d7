# SPDX-License-Identifier: Apache-2.0
"""`python -m adamx convert-state`: torch checkpoints into Orbax ones and back."""

import errno
import json

import jax
import numpy as np
import optax
import pytest

import adamx
from adamx import interop
from adamx.parallel import Run
from tests.cli.commands import done, here, refused, table
from tests.interop.torch import models
from tests.products import some_slow

torch = pytest.importorskip("torch", reason="converts checkpoints of torch")


def trained(groups=False, names=True, steps=10, model=None):
    """A model and its optimizer, in float32."""
    model = models.network(torch, torch.float32) if model is None else model
    named = list(model.named_parameters()) if names else list(model.parameters())
    if groups:
        kernels = [x for x in named if (x[1] if names else x).ndim == 2]
        others = [x for x in named if (x[1] if names else x).ndim == 1]
        named = [{"params": kernels, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    opt = torch.optim.AdamW(named, lr=1e-3)
    models.train_torch(torch, model, opt, 0, steps)
    return model, opt


def saved(path, model, opt, **more):
    content = {"model_state_dict": model.state_dict(), "optimizer_state_dict": opt.state_dict()}
    torch.save(content | more, path)
    return path


@some_slow("storage", ["float32", "int8"], ["int8"])
def test_a_checkpoint_goes_there_goes_on_and_comes_back(tmp_path, storage):
    model, theirs = trained()
    saved(tmp_path / "there.pt", model, theirs, epoch=2)
    out = done(f"convert-state there.pt moved --storage {storage}", tmp_path)
    rows = table(out, "weight lost")
    assert set(rows) > {"fc1/kernel", "fc1/bias", "norm/scale", "norm/bias", "fc2/kernel"}
    assert rows["fc1/kernel"][:4] == ["fc1.weight", "linear", "group0", "0"]
    assert (rows["fc1/kernel"][4:] == ["0", "0"]) == (storage == "float32")
    assert "after 10 steps" in out

    # The very line that was printed builds the optimizer of the checkpoint.
    line = next(line for line in out.splitlines() if line.startswith("opt = "))
    opt = eval(line.removeprefix("opt = "), {"adamx": adamx})
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), models.template("float32"))
    with adamx.Checkpoints(tmp_path / "moved", opt) as kept:
        assert kept.steps == [10]
        run = kept.restore(Run(params, opt.init(params)))
        assert models.apart(model, run.params) == 0
        params, state = models.train_here(opt, run.params, run.state, 10, 20)
        kept.save(20, Run(params, state))

    out = done(f"convert-state moved back.pt --like there.pt --storage {storage}", tmp_path)
    assert "of checkpoint 20" in out
    found = interop.torch.read(tmp_path / "back.pt")
    assert found["epoch"] == 2
    assert "as there.pt has it, not of this checkpoint: epoch" in out
    model.load_state_dict(found["model_state_dict"])
    theirs.load_state_dict(found["optimizer_state_dict"])
    assert models.apart(model, params) == 0
    assert {float(s["step"]) for s in theirs.state.values()} == {20.0}
    done(f"convert-state moved old.pt --like there.pt --storage {storage} --step 10", tmp_path)
    found = interop.torch.read(tmp_path / "old.pt")["optimizer_state_dict"]["state"]
    assert {float(s["step"]) for s in found.values()} == {10.0}


def test_a_full_disk_is_one_sentence_and_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    saved(tmp_path / "there.pt", *trained(steps=1))
    done("convert-state there.pt moved", tmp_path)
    before = (tmp_path / "there.pt").read_bytes()
    save = torch.save

    def full(content, file):
        """As torch's writer does it on a disk that takes no byte more."""
        file.write(b"PK")
        try:
            raise OSError(errno.ENOSPC, "no space")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672]") from None

    monkeypatch.setattr(torch, "save", full)
    code, _, err = here("convert-state moved there.pt --like there.pt", tmp_path)
    assert (code, err.count("\n")) == (1, 1)
    assert "cannot write there.pt: No space left on device" in err
    assert (tmp_path / "there.pt").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved", "there.pt"]
    monkeypatch.setattr(torch, "save", save)
    done("convert-state moved there.pt --like there.pt", tmp_path)


def test_groups_are_printed_as_a_partition(tmp_path):
    model, theirs = trained(groups=True)
    saved(tmp_path / "there.pt", model, theirs)
    out = done("convert-state there.pt moved --dtype bfloat16 --landing exact", tmp_path)
    rows = table(out, "weight lost")
    assert {rows["fc1/kernel"][2], rows["fc1/bias"][2]} == {"group0", "group1"}
    assert "opt = optax.partition({" in out
    assert '    "group1": adamx.interop.torch.adamw(lr=0.001,' in out
    text = out[out.index("opt = ") + 6 : out.index("  # the column")]
    labels = {name: cells[2] for name, cells in rows.items() if "/" in name and " " not in name}
    tree = jax.tree_util.tree_map_with_path(
        lambda path, _: labels["/".join(k.key for k in path)], models.template("bfloat16")
    )
    opt = eval(text, {"adamx": adamx, "optax": optax, "labels": tree})
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), models.template("bfloat16"))
    with adamx.Checkpoints(tmp_path / "moved", opt) as kept:
        run = kept.restore(Run(params, opt.init(params)))
    assert models.apart(model, adamx.master_params(run.state, run.params)) == 0


def test_a_mapping_says_what_differs(tmp_path):
    model, theirs = trained(groups=True, names=False)
    saved(tmp_path / "there.pt", model, theirs)
    plain = ["fc1.bias", "norm.weight", "norm.bias", "fc2.bias"]
    mapping = {
        "names": {"dense/kernel": "fc1.weight", "dense/bias": "fc1.bias", "head": "fc2"},
        "layouts": {"head/kernel": "linear"},
        "order": [["fc1.weight", "fc2.weight"], plain],
        "kind": "adamw",
    }
    (tmp_path / "map.json").write_text(json.dumps(mapping))
    out = done("convert-state there.pt moved --mapping map.json", tmp_path)
    rows = table(out, "weight lost")
    assert rows["dense/kernel"][0] == "fc1.weight"
    assert rows["head/kernel"][:3] == ["fc2.weight", "linear", "group0"]
    done("convert-state moved back.pt --mapping map.json --like there.pt", tmp_path)
    found = interop.torch.read(tmp_path / "back.pt")["model_state_dict"]
    for name, x in model.state_dict().items():
        assert torch.equal(found[name], x)


def test_a_table_is_told_from_a_layer_by_the_mapping_alone(tmp_path):
    model = torch.nn.Sequential()
    model.add_module("tok", torch.nn.Embedding(5, 4))
    model.add_module("head", torch.nn.Linear(4, 3))
    opt = torch.optim.AdamW(model.named_parameters())
    model(torch.arange(5)).square().sum().backward()
    opt.step()
    saved(tmp_path / "there.pt", model, opt)
    out = done("convert-state there.pt moved", tmp_path)
    assert table(out, "weight lost")["tok/kernel"][:2] == ["tok.weight", "linear"]
    assert "linear by their two axes alone, so transposed: head/kernel, tok/kernel" in out
    mapping = {"names": {"tok/embedding": "tok.weight"}}
    (tmp_path / "map.json").write_text(json.dumps(mapping))
    out = done("convert-state there.pt again --mapping map.json", tmp_path)
    assert table(out, "weight lost")["tok/embedding"][:2] == ["tok.weight", "same"]
    assert "so transposed: head/kernel." in out


def test_shapes_of_ones_own_model_are_the_template(tmp_path):
    model, theirs = trained()
    saved(tmp_path / "there.pt", model, theirs)
    shapes = {"params": jax.tree.map(lambda x: list(x.shape), models.template("float32"))}
    (tmp_path / "shapes.json").write_text(json.dumps(shapes))
    out = done("convert-state there.pt moved --shapes shapes.json --dtype float32", tmp_path)
    assert "params/fc1/kernel" in table(out, "weight lost")
    shapes["params"]["fc1"]["kernel"] = [8, 4]
    (tmp_path / "shapes.json").write_text(json.dumps(shapes))
    code, _, err = here("convert-state there.pt other --shapes shapes.json", tmp_path)
    assert code == 2
    assert "params/fc1/kernel: fc1.weight is of shape (8, 4) in torch" in err
    assert not (tmp_path / "other").exists()


def test_a_folder_of_hugging_face(tmp_path):
    from tests.interop.torch.test_recipes_of_others import safetensors_of

    model, theirs = trained()
    folder = tmp_path / "checkpoint-10"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(safetensors_of(model.state_dict()))
    torch.save(theirs.state_dict(), folder / "optimizer.pt")
    out = done("convert-state checkpoint-10 moved", tmp_path)
    assert len(table(out, "weight lost")) > 6
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"weight_map": dict.fromkeys(model.state_dict(), "model-1.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "fc1/kernel" in done("convert-state checkpoint-10 again", tmp_path)


def test_what_cannot_be_converted_is_said(tmp_path):
    model, theirs = trained(groups=True, names=False)
    saved(tmp_path / "there.pt", model, theirs)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "there.pt").read_bytes()[:1000])
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "key.json").write_text('{"nams": {}}')
    (tmp_path / "value.json").write_text('{"names": 3}')
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    for line, said in {
        "there.pt moved": "[2, 4] of them (on the command line in the --mapping)",
        "weights.pt moved": "must hold the state dicts of one model and one optimizer",
        "cut.pt moved": "is no torch file (or not a whole one)",
        "none.pt moved": "there is no such file",
        "there.pt no/moved": "there is no such folder",
        "full other": "neither full nor other is a file of another library",
        "full back.pt": "the way back needs --like FILE",
        "there.pt moved --mapping none.json": "cannot read none.json",
        "there.pt moved --mapping bad.json": "bad.json: not JSON",
        "there.pt moved --mapping key.json": "there is no 'nams'; the nearest is names",
        "there.pt moved --mapping value.json": "'names' cannot be 3",
    }.items():
        assert said in refused(f"convert-state {line}", tmp_path)
    model, theirs = trained()
    saved(tmp_path / "there.pt", model, theirs)
    for line, said in {
        "there.pt full": "full exists and is not an empty folder",
        "full back.pt --like there.pt": "no checkpoint",
    }.items():
        assert said in refused(f"convert-state {line}", tmp_path)
    done("convert-state there.pt moved", tmp_path)
    said = refused("convert-state moved back.pt --like there.pt --storage int8", tmp_path)
    assert "its moments are stored as 'float32', the optimizer's as 'int8'" in said
    assert not (tmp_path / "back.pt").exists()
