# SPDX-License-Identifier: Apache-2.0
"""torch's files are read; hostile ones end in a sentence, run nothing and ask for no memory."""

import argparse
import os
import pickle
import resource
import zipfile

import numpy as np
import pytest

from adamx import interop
from tests.interop.torch import models

torch = pytest.importorskip("torch", reason="reads files of torch.save")
RAN = []


def saved(path, content):
    torch.save(content, path)
    return path


def changed(source, target, change, compress=zipfile.ZIP_STORED):
    """A copy of a torch file with other bytes in its pickle."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compress) as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.endswith("data.pkl") else data)
    return target


class Calls:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_a_checkpoint_comes_back(tmp_path):
    model = models.network(torch, torch.bfloat16)
    opt = torch.optim.AdamW(model.named_parameters(), lr=torch.tensor(1e-3))
    models.train_torch(torch, model, opt, 0, 2)
    content = {"model": model.state_dict(), "optimizer": opt.state_dict(), "epoch": 3}
    found = interop.torch.read(saved(tmp_path / "a.pt", content))
    assert found["epoch"] == 3
    for name, x in content["model"].items():
        assert torch.equal(found["model"][name], x)
    assert found["optimizer"]["param_groups"][0]["param_names"] == list(content["model"])
    parameters = dict(model.named_parameters())  # torch.nn.Parameter, as some save them
    assert interop.torch.read(saved(tmp_path / "b.pt", parameters)).keys() == parameters.keys()


def test_safetensors_are_arrays(tmp_path):
    header = b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + np.ones(2, "f4").tobytes())
    np.testing.assert_array_equal(interop.torch.read(path)["a"], [1, 1])
    moved = interop.from_torch(
        {"a.bias": interop.torch.read(path)["a"]}, None, {"a": {"bias": np.zeros(2, "f4")}}
    )
    np.testing.assert_array_equal(moved.params["a"]["bias"], [1, 1])


def hostile(tmp_path):
    """Files by what is wrong with them, each with the words to be said."""
    whole = saved(tmp_path / "whole.pt", {"a": torch.ones(4)})
    data = whole.read_bytes()
    at = tmp_path.joinpath
    rows = {}
    for share in (0.01, 0.3, 0.6, 0.99):
        at(f"cut{share}.pt").write_bytes(data[: int(len(data) * share)])
        rows[at(f"cut{share}.pt")] = "is no torch file"
    at("empty.pt").write_bytes(b"")
    rows[at("empty.pt")] = "is no torch file"
    at("noise.pt").write_bytes(os.urandom(1000))
    rows[at("noise.pt")] = "is no torch file|plain pickle|safetensors"
    rows[saved(at("code.pt"), {"a": Calls(os.mkdir, str(at("was here")))})] = "it calls posix.mkdir"
    rows[saved(at("exec.pt"), Calls(exec, "RAN.append(1)"))] = (
        "it calls (__builtin__|builtins).exec"
    )
    rows[saved(at("memory.pt"), Calls(bytearray, 10**11))] = (
        "calls (__builtin__|builtins).bytearray"
    )
    torch.save(Calls(os.getcwd), at("new.pt"), pickle_protocol=4)
    rows[at("new.pt")] = "its pickle has the instruction STACK_GLOBAL"
    torch.save({"a": torch.ones(4)}, at("old.pt"), _use_new_zipfile_serialization=False)
    rows[at("old.pt")] = "is a plain pickle, which may run code"
    at("pickle.pt").write_bytes(pickle.dumps(Calls(os.mkdir, str(at("was here")))))
    rows[at("pickle.pt")] = "is a plain pickle, which may run code"
    rows[changed(whole, at("torn.pt"), lambda x: x[: len(x) // 2])] = (
        "its pickle ends in the middle"
    )
    big = (10**9).to_bytes(4, "little")
    four = b"K\x04tq"
    assert four in zipfile.ZipFile(whole).read("whole/data.pkl")
    claims = changed(whole, at("numel.pt"), lambda x: x.replace(four, b"J" + big + b"tq"))
    rows[claims] = "does not match expected size"
    stretched = torch.ones(1).expand(10**9)
    rows[saved(at("stride.pt"), {"a": stretched})] = "a claims 1,000,000,000 elements of float32"
    bomb = changed(whole, at("bomb.pt"), lambda x: x + b"\0" * 10**7, zipfile.ZIP_DEFLATED)
    rows[bomb] = "is compressed, as torch.save never does"
    with zipfile.ZipFile(at("other.pt"), "w") as archive:
        archive.writestr("readme", "hello")
    rows[at("other.pt")] = "it has not one data.pkl"
    os.mkfifo(at("pipe.pt"))
    rows[at("pipe.pt")] = "is not a regular file"
    return rows


def test_a_hostile_file_ends_in_a_sentence_and_runs_nothing(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path, said in hostile(tmp_path).items():
        with pytest.raises(ValueError, match=said) as error:
            interop.torch.read(path)
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)
    assert not (tmp_path / "was here").exists()
    assert not RAN
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # in kB
    assert grown < 500_000


def test_lists_within_lists_are_seen_once(tmp_path):
    """2^60 places of one empty list take no more time than 60."""
    nested = []
    for _ in range(60):
        nested = [nested, nested]
    found = interop.torch.read(saved(tmp_path / "a.pt", {"a": torch.ones(2), "b": nested}))
    assert torch.equal(found["a"], torch.ones(2))


def test_a_checkpoint_with_objects_is_told_how_to_save_it(tmp_path):
    content = {"model": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=1)}
    with pytest.raises(ValueError, match=r'argparse.Namespace; where .*save {"model": …, "opt'):
        interop.torch.read(saved(tmp_path / "a.pt", content))


def outcome(path):
    """What is said of a file, empty if it can be read."""
    try:
        interop.torch.read(path)
    except ValueError as error:
        return str(error)
    return ""


def test_flipped_bytes_end_in_a_sentence_or_in_tensors(tmp_path):
    """Whatever a disk does to a file, there is one kind of error."""
    model = models.network(torch, torch.float32)
    data = bytearray(saved(tmp_path / "a.pt", model.state_dict()).read_bytes())
    rng, refused = np.random.default_rng(0), 0
    for i in range(60):
        other = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            other[at] = rng.integers(256)
        path = tmp_path / f"{i}.pt"
        path.write_bytes(other)
        said = outcome(path)
        refused += said != ""
        assert said == "" or str(path) in said
    assert refused  # some of them
