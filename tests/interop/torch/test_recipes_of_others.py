# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as trainers write them: Hugging Face's, torch's ZeRO, FSDP's, tied weights."""

import collections
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx import interop
from tests.interop.torch import models

torch = pytest.importorskip("torch", reason="carries states of torch.optim over")


def goes_on(model, opt, moved, rate):
    params, _ = models.train_here(moved.opt, moved.params, moved.state, 10, 30)
    models.train_torch(torch, model, opt, 10, 30)
    # Twenty steps in float32, of which each rounds weights of size 1 to 6e-8.
    assert models.apart(model, params) / rate < 20 * 6e-8 / rate * 10


def safetensors_of(state_dict):
    """The bytes of a file with these weights, as Hugging Face writes them."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, x in sorted(state_dict.items()):  # the writer's order for weights of one dtype
        part = x.numpy().tobytes()
        place = [len(data), len(data) + len(part)]
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": place}
        data += part
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_the_trainer_of_hugging_face(tmp_path):
    """`optimizer.pt` has two groups without names: decayed weights, then biases and norms."""
    model = models.network(torch, torch.float32)
    decayed = ["fc1.weight", "fc2.weight"]
    every = [name for name, p in model.named_parameters() if p.requires_grad]
    order = [[n for n in every if n in decayed], [n for n in every if n not in decayed]]
    parameters = dict(model.named_parameters())
    groups = [
        {"params": [parameters[n] for n in order[0]], "weight_decay": 0.1},
        {"params": [parameters[n] for n in order[1]], "weight_decay": 0.0},
    ]
    opt = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), eps=1e-8, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 1.0)  # adds `initial_lr`
    models.train_torch(torch, model, opt, 0, 10)
    schedule.step()
    torch.save(opt.state_dict(), tmp_path / "optimizer.pt")
    (tmp_path / "model.safetensors").write_bytes(safetensors_of(model.state_dict()))

    weights = interop.torch.read(tmp_path / "model.safetensors")
    optimizer = interop.torch.read(tmp_path / "optimizer.pt")
    moved = interop.from_torch(weights, optimizer, models.template("float32"), order=order)
    assert {row.group for row in moved.report.rows} == {"group0", "group1"}
    goes_on(model, opt, moved, 1e-3)
    # and back, into the files' own form, with a buffer that is none of ours
    weights = weights | {"norm.running_mean": np.full(8, 7.0, np.float32)}
    back = interop.to_torch(moved.params, moved.state, moved.opt, weights, optimizer, order=order)
    assert back.weights.pop("norm.running_mean") is weights["norm.running_mean"]
    opt.load_state_dict(back.optimizer)
    model.load_state_dict(back.weights)


def equal_shapes():
    """Layers of one shape, whose order by name is not the model's."""
    torch.manual_seed(0)
    layers = {"b": torch.nn.Linear(4, 4), "a": torch.nn.Linear(4, 4)}
    model = torch.nn.Sequential(collections.OrderedDict(layers))
    opt = torch.optim.AdamW(model.parameters())
    model(torch.randn(7, 4)).square().sum().backward()
    opt.step()
    leaf = {"kernel": jnp.zeros((4, 4)), "bias": jnp.zeros(4)}
    return model, opt.state_dict(), {"a": leaf, "b": leaf}


def test_weights_that_are_sorted_do_not_tell_the_order_of_the_optimizer(tmp_path):
    model, state, params = equal_shapes()
    (tmp_path / "model.safetensors").write_bytes(safetensors_of(model.state_dict()))
    arrays = interop.torch.read(tmp_path / "model.safetensors")
    loaded = {name: torch.tensor(x) for name, x in arrays.items()}
    shards = {name: loaded[name] for name in ["b.bias", "b.weight", "a.bias", "a.weight"]}
    every = [name for name, _ in model.named_parameters()]
    for weights in (arrays, loaded, shards):
        with pytest.raises(ValueError, match=r"give `order=\[n for n, _ in model.named_param"):
            interop.from_torch(weights, state, params)
        moved = interop.from_torch(weights, state, params, order=every)
        want = state["state"][every.index("a.weight")]["exp_avg"].numpy().T
        np.testing.assert_array_equal(moved.state[0].mu["a"]["kernel"], want)
        assert "order: given" in str(moved.report)
    moved = interop.from_torch(model.state_dict(), state, params)
    np.testing.assert_array_equal(moved.state[0].mu["a"]["kernel"], want)
    assert "order: the weights' own" in str(moved.report)


def test_the_models_order_survives_a_file(tmp_path):
    model, state, params = equal_shapes()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    weights = interop.torch.read(tmp_path / "model.pt")
    assert interop.from_torch(weights, state, params).report.notes == ["order: the weights' own"]


@pytest.fixture
def one_process(tmp_path):
    """torch's process group, of this process alone."""
    distributed = pytest.importorskip("torch.distributed", reason="needs torch.distributed")
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distributed.init_process_group(
            "gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1
        )
        yield
        distributed.destroy_process_group()


def test_zero_of_torch_merged_on_one_rank(one_process):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = models.network(torch, torch.float32)
    opt = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-3)
    models.train_torch(torch, model, opt, 0, 10)
    opt.consolidate_state_dict(to=0)
    moved = interop.from_torch(model.state_dict(), opt.state_dict(), models.template("float32"))
    goes_on(model, opt, moved, 1e-3)


def test_a_full_state_dict_is_keyed_by_names():
    """As `get_optimizer_state_dict(..., full_state_dict=True)` of FSDP makes it."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    model = models.network(torch, torch.float32)
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    models.train_torch(torch, model, opt, 0, 10)
    weights, optimizer = get_state_dict(model, opt, options=StateDictOptions(full_state_dict=True))
    assert set(optimizer["state"]) == set(model.state_dict())
    optimizer["state"] = {
        k: {n: x.clone() for n, x in s.items()} for k, s in optimizer["state"].items()
    }
    moved = interop.from_torch(weights, optimizer, models.template("float32"))
    goes_on(model, opt, moved, 1e-3)


@pytest.mark.parametrize(
    "wrapped",
    [
        "module.{}.{}",
        "_orig_mod.{}.{}",
        "module._orig_mod.{}.{}",
        "{}._orig_mod.{}",
        "_fsdp_wrapped_module.{}._fsdp_wrapped_module._checkpoint_wrapped_module.{}",
    ],
)
def test_a_wrapped_model_keeps_its_names(wrapped):
    """Wrappers put a word before the names of the model, or of the layers that they are around."""
    model = models.network(torch, torch.float32)
    opt = torch.optim.AdamW(model.named_parameters(), lr=1e-3)
    models.train_torch(torch, model, opt, 0, 10)
    weights = {wrapped.format(*k.rsplit(".", 1)): x for k, x in model.state_dict().items()}
    moved = interop.from_torch(weights, opt.state_dict(), models.template("float32"))
    back = interop.torch.to_torch(moved.params, moved.state, moved.opt, weights, opt.state_dict())
    assert list(back.weights) == list(weights)
    renamed = opt.state_dict()
    renamed["param_groups"][0]["param_names"] = list(weights)
    again = interop.from_torch(model.state_dict(), renamed, models.template("float32"))
    jax.tree.map(np.testing.assert_array_equal, again.params, moved.params)
    goes_on(model, opt, moved, 1e-3)


class Tied(torch.nn.Module):
    """A table that is also the last layer, and a buffer between the parameters."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(5, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.out = torch.nn.Linear(3, 5, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x):
        return self.out(self.norm(self.table(x)))


def test_a_tied_weight_counts_once_and_comes_back_twice():
    torch.manual_seed(0)
    model = Tied()
    opt = torch.optim.Adam(model.parameters())
    model(torch.arange(5)).square().sum().backward()
    opt.step()
    params = {
        "table": {"embedding": jnp.zeros((5, 3))},
        "norm": {"scale": jnp.zeros(3), "bias": jnp.zeros(3)},
    }
    moved = interop.from_torch(model.state_dict(), opt.state_dict(), params)
    assert "out.weight" in moved.report.left
    shifted = jax.tree.map(lambda p: p + 1, moved.params)
    back = interop.to_torch(shifted, moved.state, moved.opt, model.state_dict(), opt.state_dict())
    assert torch.equal(back.weights["out.weight"], back.weights["table.weight"])
    np.testing.assert_array_equal(back.weights["out.weight"].numpy(), shifted["table"]["embedding"])
    assert torch.equal(back.weights["norm.running_mean"], model.norm.running_mean)


def test_two_leaves_of_one_tied_weight_are_refused_or_untied():
    torch.manual_seed(0)
    model = Tied()
    opt = torch.optim.Adam(model.parameters())
    model(torch.arange(5)).square().sum().backward()
    opt.step()
    weights, state = model.state_dict(), opt.state_dict()
    order = [name for name, _ in model.named_parameters()]
    arrays = {name: x.numpy().copy() for name, x in weights.items()}  # which share no memory
    params = {
        "table": {"embedding": jnp.zeros((5, 3))},
        "norm": {"scale": jnp.zeros(3), "bias": jnp.zeros(3)},
        "out": {"kernel": jnp.zeros((3, 5))},
    }
    for given in (weights, arrays):
        with pytest.raises(ValueError, match=r"out.kernel: out.weight is tied to table.weight"):
            interop.from_torch(given, state, params, order=order)
    names = {"out/kernel": "table.weight"}
    moved = interop.from_torch(weights, state, params, names=names)
    mu = moved.state[0].mu
    np.testing.assert_array_equal(mu["out"]["kernel"].T, mu["table"]["embedding"])
    interop.to_torch(moved.params, moved.state, moved.opt, weights, state, names=names)
    apart = moved.params | {"out": {"kernel": moved.params["out"]["kernel"] + 1}}
    with pytest.raises(ValueError, match=r"table.weight of shape \(5, 3\): two leaves"):
        interop.to_torch(apart, moved.state, moved.opt, weights, state, names=names)


def test_a_third_of_attention_alone_is_refused():
    theirs = torch.nn.MultiheadAttention(12, 3, bias=False, batch_first=True)
    opt = torch.optim.Adam(theirs.parameters())
    x = torch.randn(2, 5, 12)
    theirs(x, x, x)[0].square().sum().backward()
    opt.step()
    weights, state = theirs.state_dict(), opt.state_dict()
    params = {"attn": {"query": {"kernel": jnp.zeros((12, 3, 4))}}}
    params["attn"]["out"] = {"kernel": jnp.zeros((3, 4, 12))}
    weights = type(weights)({f"attn.{k}": v for k, v in weights.items()})
    order = list(weights)
    with pytest.raises(
        ValueError, match=r"in_proj_weight: torch trains it, 288 of its 432 elements are in no"
    ):
        interop.from_torch(weights, state, params, order=order)
