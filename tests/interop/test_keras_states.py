# SPDX-License-Identifier: Apache-2.0
"""Runs of Keras 3 carried over, and back: the paths stay together to 1e-9 of a step."""

import errno
import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx import interop
from tests.cases import STORAGES
from tests.interop.keras_side import RATE, Side, distance, double, ours, problem
from tests.interop.keras_side import keras as real
from tests.interop.test_keras import BOUND, CLASSES, ROWS, drawn
from tests.products import values_in_turn

STEPS = 100  # on each side; between two steps of the row that accumulates six gradients

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True)
def in_double():
    real()
    with double():
        yield


def half(grads, second):
    return {k: g[STEPS:] if second else g[:STEPS] for k, g in grads.items()}


def last(path):
    return {k: x[-1] for k, x in path.items()}


def trained(row):
    """A run of Keras that has stopped, with its live optimizer, and the gradients to come."""
    name, asked = ROWS[row]
    rng, arguments = drawn(row)
    start, grads = problem(rng, 2 * STEPS)
    theirs = Side(CLASSES[name], start, learning_rate=RATE, **arguments, **asked)
    path, held = theirs.run(start, half(grads, False))
    theirs.assign(last(path), held)
    opt = getattr(interop.keras, name)(RATE, **arguments, **asked)
    return theirs, last(path), held, opt, half(grads, True)


# One of each recipe, and all that stands around one; the other rows are slow tests.
FAST = ("adam, decay", "amsgrad", "nadam", "adamax", "lamb, decay", "accumulation and average")
every_row = pytest.mark.parametrize(
    "row", [pytest.param(r, marks=() if r in FAST else pytest.mark.slow) for r in ROWS]
)


@every_row
def test_a_run_goes_on_here_and_there_again(row):
    theirs, params, held, opt, grads = trained(row)
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    got = interop.from_keras(theirs.opt, shapes, opt, variables=theirs.variables)
    assert distance(got.params, params) == 0
    path, state = ours(opt)(got.params, grads, got.state)
    want, _ = theirs.run(params, grads, held)
    assert distance(path, want) < BOUND

    interop.to_keras(last(path), state, opt, theirs.opt, variables=theirs.variables)
    held = [jnp.asarray(v.value) for v in theirs.opt.variables]
    back, _ = theirs.run(last(path), grads, held)
    again, _ = ours(opt)(last(path), grads, state)
    assert distance(back, again) < BOUND


@pytest.mark.parametrize("row", ["adam", "amsgrad", "nadam", "accumulation and average"])
def test_a_round_trip_loses_nothing(row):
    theirs, params, held, opt, _ = trained(row)
    got = interop.from_keras(theirs.opt, params, opt)
    theirs.assign(params, theirs.blank)
    interop.to_keras(got.params, got.state, opt, theirs.opt)
    for v, x in zip(theirs.opt.variables, held, strict=True):
        if "learning_rate" not in v.name:
            np.testing.assert_allclose(v.value, x, rtol=1e-13, err_msg=v.name)


def test_the_optimizer_is_built_from_the_configuration_of_keras():
    theirs, params, held, _, grads = trained("adamw, amsgrad")
    params, opt, state = interop.from_keras(theirs.opt, params)
    want, _ = theirs.run(params, grads, held)
    assert distance(ours(opt)(params, grads, state)[0], want) < BOUND


@values_in_turn("landing, storage", ["nearest", "exact", "kahan", "compensated8"], STORAGES)
def test_every_storage_and_landing_holds_what_it_can(storage, landing):
    theirs, params, _, plain, _ = trained("adam")
    kept = {k: getattr(theirs.opt, k) for k in ("beta_1", "beta_2", "epsilon")}
    like = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.bfloat16), params)
    opt = interop.keras.adam(RATE, **kept, storage=storage, landing=landing)
    got = interop.from_keras(theirs.opt, like, opt, variables=theirs.variables)
    master = adamx.master_params(got.state, got.params)
    error = {"nearest": 2**-8, "exact": 2**-24, "kahan": 2**-16, "compensated8": 2**-15}[landing]
    for k, p in params.items():
        np.testing.assert_allclose(master[k], p, rtol=error)
    if landing != "nearest":  # nothing of which the moments depend on
        return
    whole = adamx.convert(got.state, opt, plain, like)
    for variable in theirs.opt.variables:
        if variable.name.endswith("velocity"):
            name = variable.name.removesuffix("_velocity")
            octaves = {"float32": 1e-6, "bfloat16": 0.012, "int8": 0.5, "int4": 4.0}[storage]
            off = np.log2(np.asarray(whole[0].nu[name]) / np.asarray(variable.value))
            assert np.all(np.abs(off) < octaves)


@pytest.fixture
def model():
    """A small model of Keras, trained for some steps, with names and an order of its own."""
    real().utils.set_random_seed(1)
    layers = real().layers
    model = real().Sequential(
        [layers.Input((5,)), layers.Dense(4, "tanh"), layers.LayerNormalization(), layers.Dense(3)]
    )
    model.compile("nadam", loss="mse")
    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", io.StringIO())
        model.fit(rng.normal(size=(32, 5)), rng.normal(size=(32, 3)), epochs=3, verbose=0)
    return model


NAMES = {
    "Dense_0/kernel": "layers/dense/vars/0",
    "Dense_0/bias": "layers/dense/vars/1",
    "LayerNorm_0/scale": "layers/layer_normalization/vars/0",
    "LayerNorm_0/bias": "layers/layer_normalization/vars/1",
    "Dense_1/kernel": "layers/dense_1/vars/0",
    "Dense_1/bias": "layers/dense_1/vars/1",
}
SHAPES = {
    "Dense_0": {"kernel": (5, 4), "bias": (4,)},
    "LayerNorm_0": {"scale": (4,), "bias": (4,)},
    "Dense_1": {"kernel": (4, 3), "bias": (3,)},
}


def shapes():
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float64),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


@pytest.mark.parametrize("kind", [".weights.h5", ".keras"])
def test_files_are_read_and_written(model, kind, tmp_path):
    pytest.importorskip("h5py", reason="Keras' files")
    path, copy = tmp_path / f"run{kind}", tmp_path / f"copy{kind}"
    model.save_weights(path) if kind == ".weights.h5" else model.save(path)
    opt = interop.keras.nadam() if kind == ".weights.h5" else None
    got = interop.from_keras(path, shapes(), opt, names=NAMES)
    variables = dict(zip(NAMES, model.trainable_variables, strict=True))
    for name, variable in variables.items():
        group, leaf = name.split("/")
        np.testing.assert_array_equal(got.params[group][leaf], variable.value)
    assert int(got.state[0].count) == int(model.optimizer.iterations)

    grads = got.params
    updates, state = got.opt.update(grads, got.state, got.params)
    params = optax.apply_updates(got.params, updates)
    interop.to_keras(params, state, got.opt, path, names=NAMES, out=copy)
    if kind == ".weights.h5":
        model.load_weights(copy)
    else:
        model = real().saving.load_model(copy)
    for (name, _), variable in zip(variables.items(), model.trainable_variables, strict=True):
        group, leaf = name.split("/")
        np.testing.assert_array_equal(params[group][leaf], variable.value)
    again = interop.from_keras(model.optimizer, params, got.opt, names=list(NAMES))
    jax.tree.map(np.testing.assert_array_equal, again.state, state)


@pytest.mark.parametrize("kind", [".weights.h5", ".keras"])
def test_a_file_may_be_written_over_itself_and_is_whole_whatever_happens(
    model, kind, tmp_path, monkeypatch
):
    pytest.importorskip("h5py", reason="Keras' files")
    path = tmp_path / f"run{kind}"
    model.save_weights(path) if kind == ".weights.h5" else model.save(path)
    params, opt, state = interop.from_keras(path, shapes(), interop.keras.nadam(), names=NAMES)
    moved = jax.tree.map(lambda p: p + 1, params)
    interop.to_keras(moved, state, opt, path, names=NAMES, out=path)
    again = interop.from_keras(path, shapes(), opt, names=NAMES)
    jax.tree.map(np.testing.assert_array_equal, again.params, moved)

    def full(file, new):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(interop.keras.files, "_put", full)
    with pytest.raises(OSError, match="no space"):
        interop.to_keras(params, state, opt, path, names=NAMES, out=path)
    again = interop.from_keras(path, shapes(), opt, names=NAMES)
    jax.tree.map(np.testing.assert_array_equal, again.params, moved)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [".weights.h5", ".keras"])
def test_files_of_a_scaled_loss_hold_the_optimizer_inside(kind, tmp_path):
    """Keras puts a `LossScaleOptimizer` around what `compile` gets where layers are float16."""
    pytest.importorskip("h5py", reason="Keras' files")
    path, copy = tmp_path / f"run{kind}", tmp_path / f"copy{kind}"
    layers, optimizers = real().layers, real().optimizers
    model = real().Sequential([layers.Input((3,)), layers.Dense(2)])
    model.compile(optimizers.LossScaleOptimizer(optimizers.AdamW(1e-3)), loss="mse")
    model.fit(np.ones((32, 3)), np.ones((32, 2)), epochs=2, verbose=0)
    model.save_weights(path) if kind == ".weights.h5" else model.save(path)
    like = {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}
    names = {"kernel": "layers/dense/vars/0", "bias": "layers/dense/vars/1"}
    opt = interop.keras.adamw() if kind == ".weights.h5" else None
    params, opt, state = interop.from_keras(path, like, opt, names=names)
    inner = model.optimizer.inner_optimizer
    np.testing.assert_array_equal(state[0].mu["kernel"], inner.variables[2].value)
    updates, state = opt.update(params, state, params)
    params = optax.apply_updates(params, updates)
    interop.to_keras(params, state, opt, path, names=names, out=copy)
    if kind == ".weights.h5":
        model.load_weights(copy)
    else:
        model = real().saving.load_model(copy)
    inner = model.optimizer.inner_optimizer
    assert int(inner.iterations) == 3
    np.testing.assert_array_equal(state[0].mu["kernel"], inner.variables[2].value)
    np.testing.assert_array_equal(params["kernel"], model.layers[0].kernel.value)


def test_live_models_are_matched_by_name_or_by_a_mapping(model):
    names = {k: v.path for k, v in zip(NAMES, model.trainable_variables, strict=True)}
    variables = model.trainable_variables
    got = interop.from_keras(model.optimizer, shapes(), variables=variables, names=names)
    np.testing.assert_array_equal(got.params["Dense_1"]["bias"], model.layers[-1].bias.value)


def test_everything_that_does_not_fit_is_one_error(model):
    variables, wrong = model.trainable_variables, shapes()
    wrong["Dense_0"]["kernel"] = jax.ShapeDtypeStruct((4, 5), jnp.float64)
    names = list(NAMES)
    with pytest.raises(ValueError, match="from_keras: ") as caught:
        interop.from_keras(model.optimizer, wrong, names=[*names[:-1], "Dense_1/biass"])
    said = str(caught.value)
    assert "Dense_1/biass, which is not trained here; the nearest are Dense_1/bias" in said
    assert "Dense_1/bias is trained here and has no partner" in said
    with pytest.raises(ValueError, match="from_keras: ") as caught:
        interop.from_keras(model.optimizer, wrong, names=names, variables=variables)
    said = str(caught.value)
    for slot in ("mu", "nu", "weight"):
        assert f"Dense_0/kernel: Keras' {slot} has shape (5, 4), expected (4, 5)" in said
    with pytest.raises(ValueError, match="has no partner here; the nearest are"):
        interop.from_keras(model.optimizer, shapes(), variables=variables)


def test_variables_in_another_order_are_refused():
    start = {k: jnp.zeros((4, 4)) for k in ("a", "b")}
    theirs = Side("Adam", start)
    opt, other = interop.keras.adam(), theirs.variables[::-1]
    sentence = "in its order: number 0 is b, the optimizer's a; give `model.trainable_variables`"
    with pytest.raises(ValueError, match=sentence):
        interop.from_keras(theirs.opt, start, opt, variables=other)
    state = opt.init(start)
    with pytest.raises(ValueError, match=sentence):
        interop.to_keras(start, state, opt, theirs.opt, variables=other, names=["b", "a"])
    with pytest.raises(ValueError, match="has 1 variables, the optimizer trains 2"):
        interop.from_keras(theirs.opt, start, opt, variables=other[:1])
    del theirs.opt._trainable_variables  # then the names of the moments tell
    with pytest.raises(ValueError, match=sentence):
        interop.from_keras(theirs.opt, start, opt, variables=other)
    interop.from_keras(theirs.opt, start, opt, variables=theirs.variables)


@pytest.mark.parametrize(
    "name, arguments, differences",
    [
        ("adam", {"beta_2": 0.5}, ["b2 is 0.9 in Keras, 0.5 in `opt`"]),
        ("adam", {"epsilon": 1e-3, "beta_2": 0.9}, ["eps is 1e-07 in Keras, 0.001 in `opt`"]),
        ("adam", {"beta_2": 0.9, "clipnorm": None}, ["clipnorm is 0.5 in Keras, None in `opt`"]),
        (
            "adam",
            {"beta_2": 0.8, "weight_decay": 0.1},
            ["b2 is 0.9 in Keras, 0.8", "weight_decay is 0.0 in Keras, 0.1 in `opt`"],
        ),
        ("adamax", {}, ["the optimizer in Keras is Adam (adam here), `opt` is keras.adamax"]),
        ("lamb", {"beta_2": 0.9}, ["trust ratio in `opt` alone", "`eps_mode` is 'hat' in Keras"]),
    ],
)
def test_another_algorithm_is_refused_with_every_difference(name, arguments, differences):
    start = {"kernel": jnp.ones((4, 3))}
    theirs = Side("Adam", start, beta_2=0.9, clipnorm=0.5)
    opt = getattr(interop.keras, name)(**{"clipnorm": 0.5, **arguments})
    with pytest.raises(ValueError, match="from_keras: ") as caught:
        interop.from_keras(theirs.opt, start, opt)
    with pytest.raises(ValueError, match="to_keras: ") as back:
        interop.to_keras(start, opt.init(start), opt, theirs.opt)
    for difference in differences:
        assert difference in str(caught.value)
        assert difference in str(back.value)


@pytest.mark.parametrize("name", ["adabelief", "yogi", "lamb", "radam", "adam"])
def test_rules_of_ours_that_are_not_those_of_keras_are_refused(name):
    start = {"kernel": jnp.ones((4, 3))}
    opt = getattr(adamx, name)(1e-3)
    with pytest.raises(ValueError, match=r"Keras is Adam .*`opt` is |`eps_mode` is 'hat' in Keras"):
        interop.from_keras(Side("Adam", start).opt, start, opt)


def test_the_other_maximum_of_amsgrad_is_refused():
    start = {"kernel": jnp.ones((4, 3))}
    opt = adamx.amsgrad(1e-3, eps=1e-7, eps_mode="hat")
    theirs = Side("Adam", start, amsgrad=True)
    with pytest.raises(ValueError, match="`max_of` is 'raw' in Keras, 'corrected' in `opt`"):
        interop.from_keras(theirs.opt, start, opt)
    opt = adamx.amsgrad(1e-3, eps=1e-7, eps_mode="hat", max_of="raw")
    interop.from_keras(theirs.opt, start, opt)


def test_leaves_that_keras_leaves_out_of_its_decay_do_not_decay_here():
    start = {"bias": jnp.ones(3), "kernel": jnp.ones((4, 3))}
    variables = [real().Variable(np.asarray(p), name=k) for k, p in start.items()]
    theirs = real().optimizers.AdamW(1e-3, weight_decay=0.1)
    theirs.exclude_from_weight_decay(var_names=["bias"])
    theirs.build(variables)
    got = interop.from_keras(theirs, start, variables=variables)
    updates, _ = got.opt.update(jax.tree.map(jnp.zeros_like, start), got.state, got.params)
    assert not np.any(updates["bias"])
    assert np.all(updates["kernel"] < 0)
    opt = interop.keras.adamw(1e-3, weight_decay=0.1)
    with pytest.raises(ValueError, match=r"bias decays here and not in Keras .*: give .* `mask`"):
        interop.from_keras(theirs, start, opt, variables=variables)
    with pytest.raises(ValueError, match="bias decays here and not in Keras"):
        interop.to_keras(start, opt.init(start), opt, theirs)
    opt = interop.keras.adamw(1e-3, weight_decay=0.1, mask="!bias")
    interop.from_keras(theirs, start, opt, variables=variables)


def test_kernels_of_transposed_convolutions_are_refused_or_rearranged():
    rng = np.random.default_rng(7)
    start = {"conv2d_transpose_kernel": jnp.asarray(rng.normal(size=(2, 2, 4, 4)))}
    grads = {"conv2d_transpose_kernel": jnp.asarray(rng.normal(size=(3, 2, 2, 4, 4)))}
    theirs = Side("Adam", start)
    path, held = theirs.run(start, grads)
    theirs.assign(last(path), held)
    shapes = {"up": {"kernel": jax.ShapeDtypeStruct((2, 2, 4, 4), jnp.float64)}}
    names, variables = {"up/kernel": "conv2d_transpose_kernel"}, theirs.variables
    asked = {"variables": variables, "names": names}
    with pytest.raises(ValueError, match="up/kernel: a kernel of a transposed convolution does"):
        interop.from_keras(theirs.opt, shapes, **asked)
    with pytest.raises(ValueError, match="`layouts` has 'flex' for up/kernel"):
        interop.from_keras(theirs.opt, shapes, **asked, layouts={"up/kernel": "flex"})
    layouts = {"up/kernel": "flax"}
    got = interop.from_keras(theirs.opt, shapes, **asked, layouts=layouts)
    there = np.asarray(variables[0].value)  # (*, outputs, inputs), whose spatial axes Flax reverses
    want = there[::-1, ::-1].swapaxes(2, 3)
    np.testing.assert_array_equal(got.params["up"]["kernel"], want)
    moment = np.asarray(held[2])[::-1, ::-1].swapaxes(2, 3)
    np.testing.assert_array_equal(got.state[0].mu["up"]["kernel"], moment)
    before = [np.asarray(v.value) for v in theirs.opt.variables]
    theirs.assign(start, theirs.blank)
    interop.to_keras(got.params, got.state, got.opt, theirs.opt, **asked, layouts=layouts)
    np.testing.assert_array_equal(variables[0].value, there)
    for v, x in zip(theirs.opt.variables, before, strict=True):
        np.testing.assert_allclose(v.value, x, rtol=1e-6)
    same = interop.from_keras(theirs.opt, shapes, **asked, layouts={"up/kernel": "keras"})
    np.testing.assert_array_equal(same.params["up"]["kernel"], there)


def test_another_optimizer_is_refused(model):
    opt = interop.keras.adam(amsgrad=True)
    with pytest.raises(ValueError, match=r"15 variables, `opt` goes with 19 .*nu_max"):
        interop.from_keras(model.optimizer, shapes(), opt, names=list(NAMES))
    with pytest.raises(ValueError, match=r"b1 is 0.9 in Keras, 0.5 in `opt`"):
        interop.from_keras(
            model.optimizer,
            shapes(),
            interop.keras.nadam(beta_1=0.5),
            names=list(NAMES),
            variables=model.trainable_variables,
        )
    with pytest.raises(ValueError, match="Dense_0/kernel is a shape, and Keras' value of it"):
        interop.from_keras(model.optimizer, shapes(), names=list(NAMES))


def test_a_file_needs_names(model, tmp_path):
    pytest.importorskip("h5py", reason="Keras' files")
    model.save_weights(tmp_path / "run.weights.h5")
    with pytest.raises(ValueError, match=r"give `names`, our leaves in the order of"):
        interop.from_keras(tmp_path / "run.weights.h5", shapes(), interop.keras.nadam())
    with pytest.raises(ValueError, match="does not say which optimizer"):
        interop.from_keras(tmp_path / "run.weights.h5", shapes(), names=NAMES)


def test_hostile_files_end_in_a_sentence(model, tmp_path):
    h5py = pytest.importorskip("h5py", reason="Keras' files")
    good = tmp_path / "good.weights.h5"
    model.save_weights(good)
    whole = good.read_bytes()

    def refused(name, sentence):
        with pytest.raises(ValueError, match=sentence):
            interop.keras.read(tmp_path / name)

    (tmp_path / "cut.weights.h5").write_bytes(whole[: len(whole) // 2])
    refused("cut.weights.h5", "is damaged, or no file of Keras 3")
    (tmp_path / "text.weights.h5").write_bytes(b"not a file of Keras")
    refused("text.weights.h5", "is damaged, or no file of Keras 3")
    (tmp_path / "empty.weights.h5").write_bytes(b"")
    refused("empty.weights.h5", "is damaged, or no file of Keras 3")

    with h5py.File(tmp_path / "huge.weights.h5", "w") as file:
        file.create_dataset("optimizer/vars/0", (10**9,), "f8")
    refused("huge.weights.h5", r"says that it has 8,000,000,000 bytes, the file holds 0")
    with h5py.File(tmp_path / "link.weights.h5", "w") as file:
        file["optimizer/vars/0"] = h5py.ExternalLink(str(good), "/optimizer/vars/0")
    refused("link.weights.h5", "is a link to another place")
    with h5py.File(tmp_path / "outside.weights.h5", "w") as file:
        file.create_dataset("a", (4,), "f4", external=[(str(good), 0, 16)])
    refused("outside.weights.h5", "is no plain array of numbers")
    with h5py.File(tmp_path / "strings.weights.h5", "w") as file:
        file["optimizer/vars/0"] = ["a", "b"]
    refused("strings.weights.h5", "is no plain array of numbers")
    with h5py.File(tmp_path / "gap.weights.h5", "w") as file:
        file["optimizer/vars/1"] = np.ones(3)
    refused("gap.weights.h5", r"variables are numbered \[1\]")

    with zipfile.ZipFile(tmp_path / "bare.keras", "w") as archive:
        archive.writestr("config.json", "{")
    refused("bare.keras", "is damaged")
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", whole)
    refused("bomb.keras", "is compressed, which Keras never does")


def test_files_whose_parts_are_in_many_places_are_refused_at_once(tmp_path):
    h5py = pytest.importorskip("h5py", reason="Keras' files")

    def refused(name, sentence):
        with pytest.raises(ValueError, match=sentence):
            interop.keras.read(tmp_path / name)

    with h5py.File(tmp_path / "groups.weights.h5", "w") as file:
        below = file.create_group("g0")
        for i in range(1, 60):  # 2^60 paths
            above = file.create_group(f"g{i}")
            above["a"], above["b"] = below, below
            below = above
    refused("groups.weights.h5", r"groups.weights.h5: \S+ is in the file under another name too")
    with h5py.File(tmp_path / "loop.weights.h5", "w") as file:
        file["again"] = file["/"]
    refused("loop.weights.h5", "again is in the file under another name too")
    with h5py.File(tmp_path / "arrays.weights.h5", "w") as file:
        file["optimizer/vars/0"] = np.ones(1000)
        for i in range(1, 200):
            file[f"optimizer/vars/{i}"] = file["optimizer/vars/0"]
    refused("arrays.weights.h5", r"optimizer/vars/\d+ is in the file under another name too")
    for word in ("abc", "-1", "1_0", "²"):
        with h5py.File(tmp_path / "named.weights.h5", "w") as file:
            file[f"optimizer/vars/{word}"] = np.ones(3)
        refused("named.weights.h5", f"optimizer/vars/{word} is no numbered variable")
    with h5py.File(tmp_path / "zeros.weights.h5", "w") as file:
        file["optimizer/vars/00"] = np.ones(3)
    refused("zeros.weights.h5", "the optimizer's variables are 00")


@pytest.mark.parametrize(
    "config, sentence",
    [
        ("3", "optimizer in its config.json must have a `class_name`, got 3"),
        ("{}", r"bad.keras: the optimizer .* must have a `class_name`, got {}"),
        ('{"class_name": "Adam", "config": 3}', "`config` in its config.json is no mapping"),
        ("[" * 100_000, "config.json is damaged"),
        (" " * (2**26 + 1) + "{}", r"config.json has 67,\d+,\d+ bytes, at most 67,108,864"),
    ],
    ids=["number", "no class", "no mapping", "deep", "large"],
)
def test_a_configuration_that_is_none_is_refused(tmp_path, config, sentence):
    pytest.importorskip("h5py", reason="Keras' files")
    path = tmp_path / "bad.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", f'{{"compile_config": {{"optimizer": {config}}}}}')
    with pytest.raises(ValueError, match=sentence):
        interop.keras.read(path)


def test_a_configuration_needs_its_class():
    with pytest.raises(ValueError, match=r"has a `class_name`, .* this one has config"):
        interop.keras.of_config({"config": {}})


def test_what_is_neither_keras_nor_a_file_is_refused():
    with pytest.raises(TypeError, match="a Keras optimizer or the path of a file, got int"):
        interop.from_keras(3, {})
    with pytest.raises(ValueError, match="has no variables yet"):
        interop.from_keras(real().optimizers.Adam(), {})
