# SPDX-License-Identifier: Apache-2.0
"""What an optimizer does to each leaf: told of chains, groups, masks, wrappers and foreign ones."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest

import adamx
from adamx import health
from tests.cli.commands import done


def model(layers=24, dtype="bfloat16"):
    """Shapes of a transformer; nothing is allocated."""
    leaf = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.dtype(dtype))
    block = {
        "attention": {"qkv": {"kernel": leaf((8, 24)), "bias": leaf((24,))}},
        "mlp": {"up": {"kernel": leaf((8, 32))}, "down": {"kernel": leaf((32, 8))}},
        "norm": {"scale": leaf((8,))},
    }
    return {"embedding": leaf((100, 8)), "layers": [block] * layers}


GROUPS = {
    "*/kernel": adamx.store(optax.contrib.muon(0.02, weight_decay=0.1), "int8"),
    "embedding": optax.adamw(optax.linear_schedule(3e-3, 0.0, 10)),
    "*": adamx.adamw(
        1e-3,
        weight_decay=adamx.decay.cautious(0.2),
        mask="!*/bias",
        storage={"*/scale": "int4", "*": "float32"},
        landing="kahan",
    ),
}


@pytest.mark.parametrize(
    "clip", ["clip", "clip_by_leaf_norm", "clip_by_global_norm", "clip_by_block_rms"]
)
def test_clips_have_their_names(clip):
    chain = optax.chain(getattr(adamx, clip)(1.0), adamx.adam(1e-3))
    assert adamx.describe(chain, model()).around.startswith(f"adamx.{clip}(")


def test_a_large_model_in_groups_has_a_row_for_each_kind_of_leaf():
    chain = optax.chain(adamx.clip_by_global_norm(1.0), adamx.groups(GROUPS), optax.scale(0.5))
    found = adamx.describe(health.skip_nonfinite(chain), model())
    assert found.around == "adamx.health.skip_nonfinite > adamx.clip_by_global_norm(max_norm=1)"
    told = {
        row["leaves"]: [
            row[k] for k in ("count", "optimizer", "storage", "landing", "decay", "rate")
        ]
        for row in found.rows
    }
    muon = [24, "adamx.store(optax.contrib.muon)", "int8", "nearest", "0.1", "0.01"]
    assert told == {
        "embedding": [1, "optax.scale_by_adam", "bfloat16", "nearest", "0.0001", "0.0015"],
        "layers/*/attention/qkv/bias": [24, "adamx.adamw", "float32", "kahan", "-", "0.0005"],
        "layers/*/attention/qkv/kernel": muon,
        "layers/*/mlp/down/kernel": muon,
        "layers/*/mlp/up/kernel": muon,
        "layers/*/norm/scale": [24, "adamx.adamw", "int4", "kahan", "0.2 cautious", "0.0005"],
    }


@pytest.mark.parametrize("recipe", [optax.adamw, adamx.adamw, adamx.prodigy])
def test_a_mask_that_asks_for_arrays_sees_arrays(recipe):
    def mask(tree):
        return jax.tree.map(lambda p: isinstance(p, jax.Array) and p.ndim > 1, tree)

    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    rows = adamx.describe(recipe(1e-3, weight_decay=0.1, mask=mask), params).rows
    assert {row["leaves"]: row["decay"] for row in rows} == {"kernel": "0.1", "bias": "-"}


def test_bytes_add_up_to_those_of_the_run():
    opt, params = adamx.groups(GROUPS), model()
    rows, run = adamx.describe(opt, params).rows, adamx.nbytes(opt, params)
    assert sum(row["parameter bytes"] for row in rows) == run.parameters
    assert sum(row["state bytes"] for row in rows) == run.moments + run.landing
    assert sum(row["count"] for row in rows) == len(jax.tree.leaves(params))
    assert [len(row["names"]) for row in rows] == [row["count"] for row in rows]


OTHERS = {
    "sgd": (optax.sgd(0.1), "optax.scale", "-", "-", "0.1"),
    "momentum": (optax.sgd(0.1, 0.9), "optax.trace", "float32", "-", "0.1"),
    "ours": (adamx.lion(1e-4), "adamx.lion", "float32", "0.001", "0.0001"),
    "penalty": (
        *(adamx.adam(1e-3, weight_decay=adamx.decay.l2(0.5)), "adamx.adam"),
        *("float32", "0.5 l2", "0.001"),
    ),
    "links": (
        optax.chain(adamx.scale_by_adam(), adamx.scale_by_learning_rate(0.1)),
        *("adamx.scale_by(adam)", "float32", "-", "0.1"),
    ),
    "partition": (
        optax.partition({"all": optax.rmsprop(0.1)}, "all"),
        *("optax.scale_by_rms", "float32", "-", "0.1"),
    ),
    "MultiSteps": (
        optax.MultiSteps(optax.adam(0.1), 2),
        *("optax.MultiSteps > optax.scale_by_adam", "float32", "-", "0.1"),
    ),
    "prodigy": (optax.contrib.prodigy(), "optax.contrib.prodigy", "float32", "-", "1"),
    "injected": (
        optax.inject_hyperparams(optax.adamw)(0.1),
        *("optax.inject_hyperparams(adamw)", "float32", "?", "?"),
    ),
    "store": (
        adamx.store(adamx.adam(0.1), "bfloat16"),
        *("adamx.store > adamx.adam", "bfloat16", "-", "0.1"),
    ),
    "stored twice": (
        adamx.store(adamx.adam(0.1, storage="int4"), "int8"),
        *("adamx.store > adamx.adam", "int4", "-", "0.1"),
    ),
}


@pytest.mark.parametrize("opt, optimizer, storage, decay, rate", OTHERS.values(), ids=OTHERS)
def test_any_optimizer_is_told_as_far_as_it_can_be(opt, optimizer, storage, decay, rate):
    found = adamx.describe(opt, {"kernel": jnp.ones((4, 4))})
    (row,) = found.rows
    names = " > ".join(filter(None, (found.around, row["optimizer"])))
    told = (names, row["storage"], row["decay"], row["rate"], row["landing"])
    assert told == (optimizer, storage, decay, rate, "-")


def test_a_transformation_without_closures_and_a_traced_rate_are_no_error():
    class Plain:
        """Someone's own optimizer."""

        def init(self, params):
            return jax.tree.map(jnp.zeros_like, params)

        def update(self, updates, state, params=None):
            return updates, state

    params = {"kernel": jnp.ones((4, 4))}
    (row,) = adamx.describe(Plain(), params).rows
    assert (row["optimizer"].rpartition(".")[2], row["state bytes"], row["rate"]) == (
        "Plain",
        64,
        "-",
    )

    def rate_of(rate):
        return adamx.describe(adamx.adam(rate), params).rows[0]["rate"]

    told = []
    jax.jit(lambda rate: told.append(rate_of(rate)))(0.1)
    assert told == ["?"]


def test_many_kinds_of_leaves_are_put_together_more_coarsely():
    params = {
        f"{a}{b}": {"kernel": jnp.ones(2), "bias": jnp.ones(1)} for a in "abcd" for b in "xyz"
    }
    opt = adamx.adamw(1e-3, mask="*/kernel")
    rows = adamx.describe(opt, params).rows
    assert [(row["leaves"], row["count"]) for row in rows] == [("*/bias", 12), ("*/kernel", 12)]


def test_text_and_markdown_have_the_same_cells():
    found = adamx.describe(adamx.groups(GROUPS), model(2))
    text = [line.split() for line in str(found).splitlines()]
    lines = [line.strip("| ").split("|") for line in found.markdown.splitlines()]
    assert str(found) == found.text
    assert [" ".join(line).split() for line in lines][2:] == text[2:]
    assert text[-1] == ["all", "11", "4,544", "5,136"]  # by hand


def test_bases_of_a_leaf_are_its_bytes():
    params = {"kernel": jnp.ones((64, 32)), "bias": jnp.ones(64)}
    opt = adamx.soap(1e-3)
    found = adamx.describe(opt, params)
    bytes_of = {row["leaves"]: row["state bytes"] for row in found.rows}
    assert bytes_of == {"kernel": 4 * (2 * 64 * 32 + 2 * 64**2 + 2 * 32**2), "bias": 4 * 2 * 64}
    counted = sum(x.nbytes for x in jax.tree.leaves(opt.init(params)))
    assert counted - sum(bytes_of.values()) <= 16  # counters


def test_train_describes_and_ends(tmp_path):
    line = "train --task digits --describe --storage int8 --compare optax"
    said = done(line, tmp_path)
    assert "adamx.adamw" in said
    assert "around all: adamx.health.observe" in said
    assert "float32" in said.rpartition("optax.adamw\n")[2]
    assert not list(tmp_path.iterdir())


def test_changes_of_directions_and_joined_decay_are_told():
    params = {"w": jnp.ones(3)}
    inner = adamx.stable_adamw(1e-3, weight_decay=0.2, storage="int8")
    (row,) = adamx.describe(adamx.cautious(inner), params).rows
    assert row["optimizer"] == "adamx.cautious(adamx.stable_adamw)"
    assert (row["storage"], row["decay"], row["rate"]) == ("int8", "0.2", "0.001")


def zero_bias(*before):
    return optax.chain(*before, optax.masked(optax.set_to_zero(), {"kernel": False, "bias": True}))


MASKED = {"weight_decay": 0.1, "mask": "kernel"}
# For each optimizer the decay and the rate of the kernel, then those of the bias.
PLACES = {
    "adafactor": (adamx.adafactor(1e-3, weight_decay=0.1), "0.1", "0.001", "0.1", "0.001"),
    "adafactor's own": (
        *(adamx.adafactor(1e-3, weight_decay_rate=0.1), "0.1 independent", "0.001"),
        *("0.1 independent", "0.001"),
    ),
    "adafactor of Optax": (
        *(optax.adafactor(1e-3, weight_decay_rate=0.1), "0.1 independent", "0.001"),
        *("0.1 independent", "0.001"),
    ),
    "prodigy": (adamx.prodigy(0.5, **MASKED), "0.1", "0.5", "-", "0.5"),
    "schedule-free": (adamx.schedule_free_adamw(0.5, **MASKED), "0.1", "0.5", "-", "0.5"),
    "landed": (
        *(adamx.schedule_free_adamw(0.5, landing="kahan", **MASKED), "0.1", "0.5", "-", "0.5"),
    ),
    "penalty": (
        *(optax.chain(optax.add_decayed_weights(0.1), optax.adam(1e-3)), "0.1 l2", "0.001"),
        *("0.1 l2", "0.001"),
    ),
    "growth": (
        *(optax.chain(optax.adam(1e-3), optax.add_decayed_weights(0.1)), "-0.1 independent"),
        *("0.001", "-0.1 independent", "0.001"),
    ),
    "scaled gradients": (
        *(optax.chain(optax.scale(0.5), optax.adam(1e-3)), "-", "0.001", "-", "0.001"),
    ),
    "scaled steps": (
        *(optax.chain(optax.scale(0.5), optax.sgd(1e-2, 0.9)), "-", "0.005", "-", "0.005"),
    ),
    "frozen": (zero_bias(optax.adamw(1e-3, weight_decay=0.1)), "0.1", "0.001", "-", "0"),
}


@pytest.mark.parametrize("name", PLACES)
def test_decays_and_rates_are_those_of_their_place(name):
    opt, *wanted = PLACES[name]
    leaf = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.bfloat16)
    rows = adamx.describe(opt, {"kernel": leaf((4, 4)), "bias": leaf((4,))}).rows
    found = {row["leaves"]: (row["decay"], row["rate"]) for row in rows}
    assert [*found["kernel"], *found["bias"]] == wanted


@pytest.mark.parametrize(
    ("name", "opt"),
    [
        ("adamx.came", adamx.came(1e-3)),
        ("adamx.schedule_free_adamw", adamx.schedule_free_adamw(1e-3)),
        ("adamx.fold_micro_batches > adamx.adamw", adamx.fold_micro_batches(adamx.adamw(1e-3), 2)),
    ],
)
def test_recipes_of_several_links_have_their_names(name, opt):
    found = adamx.describe(opt, {"kernel": jax.ShapeDtypeStruct((4, 4), jnp.float32)})
    told = [found.around, *(row["optimizer"] for row in found.rows)]
    assert " > ".join(filter(None, told)) == name


def test_arguments_that_changed_places_are_named():
    params, opt = {"kernel": jnp.ones(2)}, adamx.adam(0.1)
    for call in (
        lambda: adamx.describe(params, opt),
        lambda: adamx.nbytes(params, opt),
        lambda: adamx.convert(opt, opt.init(params), opt),
        lambda: adamx.parallel.data_parallel(lambda p, b: 0.0, params, opt),
    ):
        with pytest.raises(
            TypeError, match=r"`opt(_from)?` must be an optimizer.* got a (dict|tu)"
        ):
            call()
