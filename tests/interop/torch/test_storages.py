# SPDX-License-Identifier: Apache-2.0
"""torch's states in every storage and landing, what they lose, and the way back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx import interop
from adamx.core import paths
from tests.cases import LANDINGS
from tests.interop.torch import models
from tests.products import values_in_turn

torch = pytest.importorskip("torch", reason="carries states of torch.optim over")

# The largest root mean square error of a moment, relative to that of its values. bfloat16 keeps 8
# bits, and rounds squares by up to a unit. A level of int8's squares is 27% wide on average, and
# its means are parts of the root. int4's squares are a factor of 16 apart.
LOST = {"float32": 1e-7, "bfloat16": 1e-2, "int8": 0.5, "int4": 15.0}
ROWS = {
    "AdamW": {},
    "Adam": {"amsgrad": True},
    "NAdam": {},
    "RAdam": {},
    "Adamax": {},
}


SLOW = [pytest.param(row, marks=pytest.mark.slow) for row in list(ROWS)[2:]]


@pytest.fixture(scope="module", params=[*list(ROWS)[:2], *SLOW])
def run(request):
    model = models.network(torch, torch.float32)
    opt = getattr(torch.optim, request.param)(model.parameters(), lr=1e-3, **ROWS[request.param])
    models.train_torch(torch, model, opt, 0, 20)
    return model, opt


def moments_there(opt):
    return [{k: v for k, v in s.items() if v.ndim} for s in opt.state_dict()["state"].values()]


@pytest.mark.parametrize("storage", LOST)
def test_a_storage_keeps_what_it_can_hold_and_the_report_says_the_rest(run, storage):
    model, opt = run
    moved = interop.from_torch(
        model.state_dict(), opt.state_dict(), models.template("float32"), storage=storage
    )
    _, back, _ = interop.to_torch(
        moved.params, moved.state, moved.opt, model.state_dict(), opt.state_dict()
    )
    lost = dict.fromkeys(("mu", "nu", "nu_max"), 0.0)
    for row in moved.report.rows:
        assert row.lost["weight"] == 0
        lost |= {k: max(lost[k], x) for k, x in row.lost.items() if k != "weight"}
    assert all(x <= LOST[storage] for x in lost.values())
    assert (max(lost.values()) == 0) == (storage == "float32")
    names = {"exp_avg": "mu", "exp_avg_sq": "nu", "exp_inf": "nu", "max_exp_avg_sq": "nu_max"}
    rows = {row.source: row.lost for row in moved.report.rows}
    for name, i in zip(model.state_dict(), range(6), strict=True):
        for key, x in moments_there(opt)[i].items():
            got = back["state"][i][key].double() - x.double()
            error = float(got.square().mean().sqrt() / x.double().square().mean().sqrt())
            np.testing.assert_allclose(error, rows[name][names[key]], rtol=1e-5, atol=1e-12)
        assert float(back["state"][i]["step"]) == 20


def test_the_state_is_the_very_state_that_the_optimizer_makes(run):
    model, opt = run
    for storage in LOST:
        moved = interop.from_torch(
            model.state_dict(), opt.state_dict(), models.template("float32"), storage=storage
        )
        fresh = moved.opt.init(moved.params)
        assert jax.tree.structure(fresh) == jax.tree.structure(moved.state)
        same = jax.tree.map(
            lambda a, b: (a.dtype, a.shape) == (b.dtype, b.shape), fresh, moved.state
        )
        assert all(jax.tree.leaves(same))


@values_in_turn("landing, dtype", LANDINGS, ["bfloat16", "float16"])
def test_half_precision_weights_keep_the_float32_master_in_the_landing(run, landing, dtype):
    model, opt = run
    moved = interop.from_torch(
        model.state_dict(), opt.state_dict(), models.template(dtype), landing=landing
    )
    # Bits below the parameter's own: none, none, 8 (kahan's own digits), 16 and 8.
    bits = {"bfloat16": 8, "float16": 11}[dtype]
    more = {"nearest": 0, "stochastic": 0, "kahan": 7, "exact": 16, "compensated8": 7}[landing]
    whole = adamx.master_params(moved.state, moved.params)
    found = models.flat(whole)
    for name, want in models.flat(model).items():
        if landing == "exact" and dtype == "bfloat16":
            np.testing.assert_array_equal(found[name], want)
        np.testing.assert_allclose(found[name], want, rtol=2.0 ** -(bits + more), atol=2.0**-24)
    for row in moved.report.rows:
        assert row.lost["weight"] <= 2.0 ** -(bits + more)
    if landing in ("nearest", "stochastic"):
        assert max(row.lost["weight"] for row in moved.report.rows) > 2.0 ** -(bits + 3)
    weights, _, _ = interop.to_torch(
        moved.params, moved.state, moved.opt, model.state_dict(), opt.state_dict()
    )
    for name, x in weights.items():
        assert x.dtype == torch.float32
        np.testing.assert_array_equal(x.numpy(), found[name])


def test_a_partition_with_landings_and_a_table_of_storages():
    model = models.network(torch, torch.float32)
    named = list(model.named_parameters())
    groups = [
        {"params": [x for x in named if x[1].ndim == 2], "weight_decay": 0.1},
        {"params": [x for x in named if x[1].ndim == 1], "weight_decay": 0.0},
    ]
    opt = torch.optim.AdamW(groups, lr=1e-3)
    models.train_torch(torch, model, opt, 0, 20)
    moved = interop.from_torch(
        model.state_dict(),
        opt.state_dict(),
        models.template("bfloat16"),
        storage={"*/kernel": "int8", "*": "float32"},
        landing="exact",
    )
    found = models.flat(adamx.master_params(moved.state, moved.params))
    for name, want in models.flat(model).items():
        np.testing.assert_array_equal(found[name], want)
    kinds = {(row.group, row.leaf.endswith("kernel")) for row in moved.report.rows}
    assert kinds == {("group0", True), ("group1", False)}
    exact = {row.leaf: row.lost["nu"] == 0 for row in moved.report.rows}
    assert exact == {row.leaf: not row.leaf.endswith("kernel") for row in moved.report.rows}


def test_an_optimizer_of_ones_own_takes_the_moments_and_counts():
    model = models.network(torch, torch.float32)
    opt = torch.optim.AdamW(model.parameters())
    models.train_torch(torch, model, opt, 0, 20)
    own = optax.chain(
        adamx.clip(1.0),
        adamx.adamw(optax.cosine_decay_schedule(1e-3, 1000), storage="int8", weight_decay=0.1),
    )
    moved = interop.from_torch(
        model.state_dict(), opt.state_dict(), models.template("float32"), opt=own
    )
    assert moved.opt is own
    counts = [
        int(x)
        for path, x in jax.tree_util.tree_flatten_with_path(moved.state)[0]
        if paths.name(path).endswith("count")
    ]
    assert counts == [20, 20]  # of the moments and of the schedule
    theirs = interop.from_torch(
        model.state_dict(), opt.state_dict(), models.template("float32"), opt=optax.adamw(1e-3)
    )
    assert isinstance(theirs.state[0], optax.ScaleByAdamState)
    assert int(theirs.state[0].count) == 20


def test_counts_of_what_is_new_stay_and_those_of_schedules_go_on():
    model = models.network(torch, torch.float32)
    opt = torch.optim.AdamW(model.parameters())
    models.train_torch(torch, model, opt, 0, 20)
    inject = optax.inject_hyperparams(adamx.scale_by_learning_rate)
    own = optax.chain(
        optax.ema(0.9, debias=True),
        adamx.scale_by_adam(),
        inject(learning_rate=lambda count: 1e-3 / (1.0 + count)),
    )
    with jax.numpy_dtype_promotion("standard"):  # Optax's injection mixes dtypes
        moved = interop.from_torch(
            model.state_dict(), opt.state_dict(), models.template("float32"), opt=own
        )
    assert int(moved.state[0].count) == 0  # of an average that is empty
    assert int(moved.state[1].count) == 20
    assert int(moved.state[2].count) == 20
    assert jax.tree.leaves(moved.state[2].hyperparams_states) == [20]


def test_gradients_that_wait_have_no_place_in_torch():
    model = models.network(torch, torch.float32)
    opt = torch.optim.AdamW(model.parameters())
    models.train_torch(torch, model, opt, 0, 3)
    weights, state = model.state_dict(), opt.state_dict()
    steps = optax.MultiSteps(adamx.adamw(1e-3), 3)
    own = optax.GradientTransformation(steps.init, steps.update)
    moved = interop.from_torch(weights, state, models.template("float32"), opt=own)
    interop.to_torch(moved.params, moved.state, own, weights, state)
    waiting = moved.state._replace(mini_step=jnp.asarray(1))
    with pytest.raises(ValueError, match="gradients of 1 small steps that wait in MultiSteps"):
        interop.to_torch(moved.params, waiting, own, weights, state)


def test_a_schedule_takes_the_place_of_the_rate_and_goes_on_at_the_same_step(run):
    model, opt = run
    moved = interop.from_torch(
        model.state_dict(),
        opt.state_dict(),
        models.template("float32"),
        learning_rate=lambda count: jnp.where(count == 20, 1.0, 0.0),
    )
    grads = jax.tree.map(jnp.ones_like, moved.params)
    updates, state = moved.opt.update(grads, moved.state, moved.params)
    assert all(np.any(x) for x in jax.tree.leaves(updates))
    updates, _ = moved.opt.update(grads, state, moved.params)
    assert not any(np.any(x) for x in jax.tree.leaves(updates))


def test_what_torch_does_afterwards_is_not_seen_here():
    model = models.network(torch, torch.float32)
    opt = torch.optim.AdamW(model.parameters())
    models.train_torch(torch, model, opt, 0, 2)
    weights = model.state_dict() | {"running_mean": torch.ones(64)}
    moved = interop.from_torch(weights, opt.state_dict(), models.template("float32"))
    here = (moved.params, moved.state, moved.rest)
    before = jax.tree.map(lambda x: np.array(x, copy=True), here)
    models.train_torch(torch, model, opt, 2, 4)
    weights["running_mean"] += 1
    jax.tree.map(np.testing.assert_array_equal, here, before)


def test_arrays_lie_where_the_template_says():
    model = models.network(torch, torch.float32)
    opt = torch.optim.AdamW(model.parameters())
    models.train_torch(torch, model, opt, 0, 2)
    mesh = jax.make_mesh((8,), ("data",))
    there = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "data"))

    def placed(x):
        wide = x.shape == (4, 8)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split if wide else there)

    like = jax.tree.map(placed, models.template("bfloat16"))
    moved = interop.from_torch(
        model.state_dict(), opt.state_dict(), like, storage="int8", landing="exact"
    )
    for x in (
        moved.params["fc1"]["kernel"],
        moved.state[0].nu["fc1"]["kernel"],
        moved.state[-1].remainder["fc1"]["kernel"],
    ):
        assert x.sharding == split


def test_double_precision_is_rounded_where_jax_has_none_and_the_report_says_so():
    model = models.network(torch, torch.float64)
    opt = torch.optim.AdamW(model.parameters())
    models.train_torch(torch, model, opt, 0, 2)
    moved = interop.from_torch(model.state_dict(), opt.state_dict(), models.template("float32"))
    kernel = next(row for row in moved.report.rows if row.leaf == "fc1/kernel")
    assert all(1e-9 < x < 6e-8 for x in kernel.lost.values())


def test_what_lies_nowhere_stays_free_to_be_put_anywhere():
    model = models.network(torch, torch.float32)
    opt = torch.optim.AdamW(model.parameters())
    models.train_torch(torch, model, opt, 0, 2)
    moved = interop.from_torch(
        model.state_dict(), opt.state_dict(), models.template("bfloat16"), landing="exact"
    )
    assert not any(x.committed for x in jax.tree.leaves((moved.params, moved.state)))


def test_a_run_in_bfloat16_comes_as_it_is_and_goes_back_as_it_is():
    model = models.network(torch, torch.bfloat16)
    opt = torch.optim.AdamW(model.parameters())
    models.train_torch(torch, model, opt, 0, 3)
    weights, state = model.state_dict(), opt.state_dict()
    moved = interop.from_torch(weights, state, models.template("bfloat16"))
    assert {x.dtype.name for x in jax.tree.leaves(moved.params)} == {"bfloat16"}
    assert all(x == 0 for row in moved.report.rows for x in row.lost.values())
    back = interop.to_torch(moved.params, moved.state, moved.opt, weights, state)
    for name, x in weights.items():
        assert torch.equal(back.weights[name], x)
        assert back.weights[name].dtype == torch.bfloat16
    for key, entry in state["state"].items():
        for name, x in entry.items():
            assert torch.equal(back.optimizer["state"][key][name], x)
            assert back.optimizer["state"][key][name].dtype == x.dtype
