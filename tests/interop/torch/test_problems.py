# SPDX-License-Identifier: Apache-2.0
"""What does not fit is one error that lists all of it, with the nearest names."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx import interop
from tests.interop.torch import models

torch = pytest.importorskip("torch", reason="carries states of torch.optim over")


def trained(build=torch.optim.AdamW, steps=3, dtype=torch.float32, **kwargs):
    model = models.network(torch, dtype)
    opt = build(model.parameters(), **kwargs)
    models.train_torch(torch, model, opt, 0, steps)
    return model, opt


def said(model, optimizer, params=None, **kwargs):
    """The message with which a transfer is refused."""
    weights = model.state_dict() if hasattr(model, "state_dict") else model
    if hasattr(optimizer, "state_dict"):
        optimizer = optimizer.state_dict()
    params = models.template("float32") if params is None else params
    with pytest.raises(ValueError, match=r"from_torch|must|got") as error:
        interop.from_torch(weights, optimizer, params, **kwargs)
    return str(error.value)


def test_all_problems_are_listed_at_once():
    model, opt = trained()
    params = models.template("float32")
    params["fc3"] = params.pop("fc2")
    params["fc1"]["kernel"] = jax.ShapeDtypeStruct((8, 4), jnp.float32)
    opt.state_dict()["state"][2]["step"] += 4
    message = said(model, opt, params)
    lines = message.splitlines()
    assert lines[0] == "from_torch: 6 problems"  # the kernel's shape once, four names, a count
    assert (
        "  fc3/kernel: torch has no fc3.weight; the nearest are fc2.weight, fc1.weight" in message
    )
    assert "fc3/bias: torch has no fc3.bias" in message
    assert (
        "fc1/kernel: fc1.weight is of shape (8, 4) in torch, which is (4, 8) as 'linear'; the leaf "
        "has (8, 4)" in message
    )
    assert "fc2.weight: torch trains it, no leaf here takes it; the nearest are fc" in message


def test_counts_that_differ_are_listed_by_count():
    model, opt = trained()
    opt.state_dict()["state"][2]["step"] += 4
    message = said(model, opt)
    assert message.startswith("from_torch: group0: the numbers of steps differ: 3 for fc1.weight, ")
    assert "; 7 for norm.weight: torch counts for each parameter, here a group counts" in message
    weights, state = model.state_dict(), opt.state_dict()
    (group,), names = state["param_groups"], list(weights)
    keys = [[0, 1, 3, 4, 5], [2]]
    state["param_groups"] = [group | {"params": part} for part in keys]
    order = [[names[i] for i in part] for part in keys]
    moved = interop.from_torch(weights, state, models.template("float32"), order=order)
    counts = {k: int(x.inner_state[0].count) for k, x in moved.state.inner_states.items()}
    assert counts == {"group0": 3, "group1": 7}


def test_a_layer_that_never_had_a_gradient_rests_here_and_there():
    model = models.network(torch, torch.float32)
    theirs = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    model.fc1.requires_grad_(False)
    models.train_torch(torch, model, theirs, 0, 2)
    weights, state = model.state_dict(), theirs.state_dict()
    moved = interop.from_torch(weights, state, models.template("float32"))
    assert "and rests here too: fc1/bias, fc1/kernel" in str(moved.report)
    grads = jax.tree.map(jnp.ones_like, moved.params)
    updates, after = moved.opt.update(grads, moved.state, moved.params)
    assert not np.any(updates["fc1"]["kernel"])
    assert np.all(updates["fc2"]["kernel"] != 0)
    for optimizer in (state, torch.optim.AdamW(model.parameters()).state_dict()):
        back = interop.to_torch(moved.params, after, moved.opt, weights, optimizer)
        assert back.optimizer["state"].keys() == state["state"].keys() == {2, 3, 4, 5}
        assert float(back.optimizer["state"][2]["step"]) == 3

    whole = adamx.adamw(1e-3)
    message = said(model, theirs, opt=whole)
    assert "differ within a group: 0 for fc1/bias, fc1/kernel; 2 for fc2/bias" in message
    assert "give the first a group of their own (`optax.partition`)" in message
    apart = {"fc1": "new", "fc2": "old", "norm": "old"}
    own = optax.partition({"new": whole, "old": whole}, apart)
    moved = interop.from_torch(weights, state, models.template("float32"), opt=own)
    assert "starts with fresh moments: fc1/bias, fc1/kernel" in str(moved.report)
    counts = {k: int(x.inner_state[0].count) for k, x in moved.state.inner_states.items()}
    assert counts == {"new": 0, "old": 2}


def test_an_optimizer_before_its_first_step_has_nothing_to_move():
    model, theirs = trained(steps=0)
    assert "has no moments yet: move the weights alone" in said(model, theirs)


def test_groups_without_names_ask_for_their_order():
    model = models.network(torch, torch.float32)
    ps = list(model.parameters())
    opt = torch.optim.AdamW([{"params": ps[:2]}, {"params": ps[2:]}])
    models.train_torch(torch, model, opt, 0, 2)
    assert "2 groups and no names: give `order`" in said(model, opt)
    names = list(model.state_dict())
    assert "have [2, 4] parameters, `order` names [3, 3]" in said(
        model, opt, order=[names[:3], names[3:]]
    )
    assert "`order` has 1 lists, the optimizer 2 groups" in said(model, opt, order=[names])
    wrong = [["fc1.weigth", "fc1.bias"], names[2:]]
    assert "fc1.weigth: the optimizer trains it, the model lacks it; nearest: fc1.weight" in said(
        model, opt, order=wrong
    )
    swapped = [[names[1], names[0]], names[2:]]
    assert "fc1.bias: exp_avg has shape (8, 4), the weight has (8,)" in said(
        model, opt, order=swapped
    )
    interop.from_torch(
        model.state_dict(), opt.state_dict(), models.template("float32"), order=names
    )


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop"])
def test_another_optimizer_cannot_be_told(name):
    model, opt = trained(getattr(torch.optim, name), lr=1e-3, **MORE.get(name, {}))
    assert "cannot tell its optimizer from its settings" in said(model, opt)
    assert re.search("lacks .*exp_avg", said(model, opt, kind="adamw"))


MORE = {"SGD": {"momentum": 0.9}}


def test_a_group_of_before_the_flag_asks_for_its_class():
    model, opt = trained()
    state = opt.state_dict()
    del state["param_groups"][0]["decoupled_weight_decay"]
    assert "give `kind`" in said(model, state)
    moved = interop.from_torch(model.state_dict(), state, models.template("float32"), kind="adamw")
    assert moved.opt == interop.torch.adamw()


def test_betas_that_changed_on_the_way_show_in_nadam():
    model, opt = trained(torch.optim.NAdam)
    opt.param_groups[0]["betas"] = (0.5, 0.999)
    assert "mu_product is" in said(model, opt)


@pytest.mark.parametrize("value", [True, False])
def test_the_adamw_of_transformers_has_no_recipe(value):
    model, opt = trained()
    opt.param_groups[0]["correct_bias"] = value
    assert "`correct_bias` is of the AdamW of transformers" in said(model, opt)


def test_settings_that_no_recipe_has_are_named():
    model, opt = trained()
    opt.param_groups[0] |= {"caution": True, "zeta": 1}
    assert "no recipe here has the settings caution, zeta of its optimizer" in said(model, opt)


def entry(state):
    return state["state"][2]


MALFORMED = {
    "state": lambda x: x.update(state=[]),
    "param_groups": lambda x: x.update(param_groups=[]),
    "got {}": lambda x: x.update(param_groups={}),
    "group0 is a NoneType": lambda x: x.update(param_groups=[None]),
    "`params`, a list of numbers or names, got 3": lambda x: x["param_groups"][0].update(params=3),
    "got None": lambda x: x["param_groups"][0].pop("params"),
    "parameter 2 is a int": lambda x: x["state"].update({2: 5}),
    "`lr` must be one finite number, got an array of shape (2,)": lambda x: x["param_groups"][
        0
    ].update(lr=torch.ones(2)),
    "`eps` must be one finite number, got None": lambda x: x["param_groups"][0].update(eps=None),
    "`betas` must be two numbers, got 0.9": lambda x: x["param_groups"][0].update(betas=0.9),
    "got 3000000000": lambda x: entry(x).update(step=3e9),
    "norm.weight: step must be a whole number": lambda x: entry(x).update(step=None),
    "got nan": lambda x: entry(x).update(step=torch.tensor(float("nan"))),
    "got -1": lambda x: entry(x).update(step=torch.tensor(-1.0)),
    "got an array of shape (3,)": lambda x: entry(x).update(step=torch.ones(3)),
    "must be dense, got layout torch.sparse_coo": lambda x: entry(x).update(
        exp_avg=torch.ones(8).to_sparse()
    ),
    "on the meta device": lambda x: entry(x).update(exp_avg=torch.ones(8, device="meta")),
    "exp_avg must be a tensor, got NoneType": lambda x: entry(x).update(exp_avg=None),
    "exp_avg_sq must be 0 or more": lambda x: entry(x)["exp_avg_sq"].mul_(-1),
    "or NaN": lambda x: entry(x)["exp_avg_sq"].mul_(float("nan")),
}


@pytest.mark.parametrize("words", MALFORMED)
def test_a_malformed_optimizer_is_one_sentence(words):
    model, opt = trained()
    state = opt.state_dict()
    MALFORMED[words](state)
    message = said(model, state)
    assert words in message
    assert "\n" not in message


def test_objects_in_place_of_their_state_dicts():
    model, opt = trained()
    with pytest.raises(TypeError, match=r"`weights` must be .* got a Network: give its `state_d"):
        interop.from_torch(model, opt.state_dict(), models.template("float32"))
    with pytest.raises(ValueError, match=r"it is a AdamW that has one: give its `state_dict\(\)`"):
        interop.from_torch(model.state_dict(), opt, models.template("float32"))


def test_entries_that_no_leaf_takes_may_be_anything():
    model, opt = trained()
    weights = model.state_dict() | {"_extra_state": None, "far": torch.ones(2, device="meta")}
    weights["eight"] = torch.ones(3).to(torch.float8_e4m3fn)
    order = [name for name, _ in model.named_parameters()]
    moved = interop.from_torch(weights, opt.state_dict(), models.template("float32"), order=order)
    assert list(moved.rest) == ["eight"]
    assert moved.rest["eight"].astype(np.float32).tolist() == [1, 1, 1]
    assert moved.report.left == ["_extra_state", "far", "eight"]


def test_arguments_that_opt_has_itself_are_refused_beside_it():
    model, opt = trained()
    message = said(
        model, opt, opt=adamx.adamw(1e-3), learning_rate=1.0, storage="int8", landing="exact"
    )
    for name in ("learning_rate", "storage", "landing"):
        assert f"`{name}` and `opt` are given" in message


def test_a_scheduler_that_is_left_behind_is_reported():
    model, opt = trained()
    torch.optim.lr_scheduler.StepLR(opt, 5)
    moved = interop.from_torch(model.state_dict(), opt.state_dict(), models.template("float32"))
    assert "from here it is constant: 0.001" in str(moved.report)


def test_a_beta_that_a_scheduler_was_moving_is_reported():
    """OneCycleLR and CyclicLR move the first beta too, which stays where it was."""
    model = models.network(torch, torch.float32)
    opt = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, 0.01, total_steps=10)
    models.train_torch(torch, model, opt, 0, 2)
    schedule.step()
    template = models.template("float32")
    for rate in (None, 0.1):
        moved = interop.from_torch(
            model.state_dict(), opt.state_dict(), template, learning_rate=rate
        )
        b1 = opt.param_groups[0]["betas"][0]
        assert f"constant: {b1:g} (give `opt`, with a schedule of b1)" in str(moved.report)
    moved = interop.from_torch(
        model.state_dict(), opt.state_dict(), template, opt=adamx.adamw(1e-3, weight_decay=0.01)
    )
    assert f"b1 is 0.9 here, {b1:g} in torch" in str(moved.report)
    assert "constant" not in str(moved.report)  # the rate is that of `opt`


def test_wrong_names_and_layouts_are_found():
    model, opt = trained()
    message = said(
        model,
        opt,
        names={"fc4": "fc1", "fc1/kernel": "fc1.wieght"},
        layouts={"*/kernl": "linear", "fc2/bias": "lineal", "norm/scale": lambda x: 2.0 * x},
    )
    assert "`names`: there is no leaf or module 'fc4'" in message
    assert "fc1/kernel: torch has no fc1.wieght; the nearest are fc1.weight" in message
    assert "`layouts`: no leaf matches '*/kernl'; the nearest are fc" in message
    assert "fc2/bias: `layouts` must be one of 'same', 'linear', " in message
    assert "a rearrangement may only move elements" in message


def test_wrong_dtypes_are_named():
    model, opt = trained()
    weights = model.state_dict()
    weights["fc1.bias"] = torch.ones(8, dtype=torch.complex64)
    weights["fc2.bias"] = torch.ones(3, dtype=torch.int32)
    message = said(weights, opt, order=list(weights))
    assert (
        "fc1.bias: weights must be one of float16, bfloat16, float32, float64, got com" in message
    )
    assert "fc2.bias: weights must be one of" in message


def test_moments_of_another_kind_are_not_taken():
    model, opt = trained(torch.optim.Adamax)
    message = said(model, opt, opt=adamx.adam(1e-3))
    assert "the other side remembers mu (signed), nu (magnitude), `opt` mu (signed), nu" in message
    message = said(
        model, opt, opt=optax.masked(adamx.adamax(1e-3), {"fc1": True, "fc2": False, "norm": True})
    )
    assert "fc2/bias: `opt` keeps no moments of this leaf, the other side has some" in message


def test_not_a_state_dict():
    model, _ = trained()
    assert "it has ['fc1.weight'" in said(model, model.state_dict())
    with pytest.raises(ValueError, match=r"`layout` must be one of 'flax'.*got 'keras'"):
        interop.from_torch(model.state_dict(), None, {}, layout="keras")
    with pytest.raises(ValueError, match=r"`kind` must be one of 'adam'.*got 'sgd'"):
        interop.from_torch(model.state_dict(), {}, models.template("float32"), kind="sgd")
    model, opt = trained()
    assert "`learning_rate` must be one or as many" in said(model, opt, learning_rate=[1, 2])


def test_what_does_not_fit_on_the_way_back():
    model, opt = trained()
    params = jax.tree.map(lambda x: jnp.ones(x.shape), models.template("float32"))
    other = adamx.adam(1e-3, b1=0.8, eps=1e-6)
    params.pop("fc2")
    with pytest.raises(ValueError, match="to_torch: ") as error:
        interop.to_torch(params, other.init(params), other, model.state_dict(), opt.state_dict())
    message = str(error.value)
    assert "fc2.weight: torch trains it, no leaf fills it" in message
    assert "fc1/bias: `b1` is 0.8 in `opt`, 0.9 in group0 of torch" in message
    assert "fc1/bias: `eps` is 1e-06 in `opt`, 1e-08 in group0 of torch" in message
    amsgrad = adamx.amsgrad(1e-3)
    params = jax.tree.map(lambda x: jnp.ones(x.shape), models.template("float32"))
    with pytest.raises(ValueError, match="`opt` remembers mu, nu, nu_max, torch's adamw of group0"):
        interop.to_torch(
            params, amsgrad.init(params), amsgrad, model.state_dict(), opt.state_dict()
        )


def test_a_leaf_that_fills_a_part_only_is_no_way_back():
    model, opt = trained()
    params = {"norm": {"scale": jnp.ones(4), "bias": jnp.ones(8)}}
    weights = {k: v for k, v in model.state_dict().items() if k.startswith("norm")}
    opt = torch.optim.AdamW([torch.nn.Parameter(v) for v in weights.values()])
    ours = adamx.adamw(1e-3)
    with pytest.raises(ValueError, match=r"norm.weight of shape \(8,\): 4 elements have no leaf"):
        interop.to_torch(
            params,
            ours.init(params),
            ours,
            weights,
            opt.state_dict(),
            layouts={"norm/scale": lambda x: x[:4]},
        )
    assert np.all(np.isfinite(params["norm"]["scale"]))


def ones(dtype="float32"):
    return jax.tree.map(lambda x: jnp.ones(x.shape, dtype), models.template(dtype))


DIFFERENT = {
    "the maximum of corrected squares": (
        (torch.optim.Adam, {"amsgrad": True}),
        lambda: adamx.amsgrad(1e-3),
        ["`max_of` is 'corrected' in `opt`", "computes it 'raw'"],
    ),
    "uphill": (
        (torch.optim.Adam, {"maximize": True}),
        lambda: adamx.adam(1e-3),
        ["torch's `maximize` is True, `opt` goes downhill"],
    ),
    "downhill": (
        (torch.optim.Adam, {}),
        lambda: optax.chain(optax.scale(-1.0), adamx.clip(1.0), adamx.adam(1e-3)),
        ["torch's `maximize` is False, `opt` goes uphill"],
    ),
    "coupled": (
        (torch.optim.AdamW, {"weight_decay": 0.1}),
        lambda: adamx.adam(1e-3, weight_decay=adamx.decay.l2(0.1), mask="*/kernel"),
        ["weight decay of `opt` is coupled, that of torch decoupled"],
    ),
    "epsilon and decay": (
        (torch.optim.Adam, {"weight_decay": 0.1}),
        lambda: adamx.adamw(1e-3, weight_decay=0.1, eps_mode="hat"),
        ["`eps_mode` is 'hat' in `opt`", "decay of `opt` is decoupled, that of torch coupled"],
    ),
    "another rule": (
        (torch.optim.RAdam, {}),
        lambda: adamx.adam(1e-3),
        ["fc1/bias and 5 more: `opt` computes adam, torch's group0 radam"],
    ),
    "no warm-up": (
        (torch.optim.NAdam, {}),
        lambda: adamx.nadam(1e-3),
        ["`momentum_decay` is None in `opt`"],
    ),
}


@pytest.mark.parametrize("row", DIFFERENT)
def test_an_optimizer_that_computes_otherwise_is_refused_both_ways(row):
    (build, kwargs), make, words = DIFFERENT[row]
    model, theirs = trained(build, **kwargs)
    message = said(model, theirs, opt=make())
    params, opt = ones(), make()
    with pytest.raises(ValueError, match="to_torch: ") as error:
        interop.to_torch(params, opt.init(params), opt, model.state_dict(), theirs.state_dict())
    for word in words:
        assert word in message
        assert word in str(error.value)


def test_an_optimizer_that_computes_the_same_is_taken():
    for build, kwargs, opt in (
        (torch.optim.Adam, {"amsgrad": True}, adamx.amsgrad(1e-3, max_of="raw")),
        (torch.optim.Adam, {"maximize": True}, optax.chain(optax.scale(-1.0), adamx.adam(1e-3))),
        (torch.optim.Adam, {}, optax.chain(adamx.scale_by_adam(), optax.scale(-1e-3))),
        (torch.optim.Adam, {"weight_decay": 1}, adamx.adam(1.0, weight_decay=adamx.decay.l2(0.1))),
    ):
        model, theirs = trained(build, **kwargs)
        weights, state = model.state_dict(), theirs.state_dict()
        moved = interop.from_torch(weights, state, models.template("float32"), opt=opt)
        back = interop.to_torch(moved.params, moved.state, opt, weights, state)
        assert torch.equal(back.optimizer["state"][0]["exp_avg"], state["state"][0]["exp_avg"])


def test_other_hyperparameters_of_an_optimizer_are_noted():
    model, theirs = trained(torch.optim.AdamW, betas=(0.9, 0.999))
    notes = interop.from_torch(
        model.state_dict(),
        theirs.state_dict(),
        models.template("float32"),
        opt=adamx.adamw(1e-3, b2=0.95),
    ).report.notes
    assert notes == ["order: the weights' own", "b2 is 0.95 here, 0.999 in torch's group0"]


def test_a_float_buffer_that_no_leaf_takes_is_no_parameter():
    model = models.network(torch, torch.float32)
    model.fc1.register_buffer("pe", torch.ones(5))
    opt = torch.optim.AdamW(model.parameters())
    models.train_torch(torch, model, opt, 0, 3)
    weights, state = model.state_dict(), opt.state_dict()
    moved = interop.from_torch(weights, state, models.template("float32"))
    mu = state["state"][4]["exp_avg"].numpy()
    np.testing.assert_array_equal(moved.state[0].mu["fc2"]["kernel"], mu.T)
    assert list(moved.rest) == ["fc1.pe"]
    back = interop.to_torch(moved.params, moved.state, moved.opt, weights, state)
    assert torch.equal(back.optimizer["state"][5]["exp_avg"], state["state"][5]["exp_avg"])
    params = models.template("float32")
    params["fc1"]["pe"] = jax.ShapeDtypeStruct((5,), jnp.float32)
    message = said(model, opt, params)
    assert message.endswith(
        "have [6] parameters, the weights' own names [7]: if buffers or frozen parameters are "
        "among these, give `order`, such as [n for n, p in model.named_parameters() if "
        "p.requires_grad]"
    )
    order = [name for name, _ in model.named_parameters()]
    moved = interop.from_torch(weights, state, params, order=order)
    np.testing.assert_array_equal(moved.params["fc1"]["pe"], 1)
