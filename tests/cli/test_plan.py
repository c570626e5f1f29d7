# SPDX-License-Identifier: Apache-2.0
"""Bytes: `adamx.nbytes` against live arrays, and the tables of `python -m adamx plan`."""

import json
import math
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import adamx
from adamx import landing, storage
from adamx.cli import main
from adamx.cli.plan import device_share
from adamx.cli.plan.formats import side_by_side
from adamx.cli.plan.models import MODELS
from adamx.footprint import Footprint
from tests import cases
from tests.products import some_slow, values_in_turn

FORMATS = [(s, land) for s in storage.NAMED for land in landing.NAMED]


def shapes_of(params: Any) -> Any:
    return jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)


def live(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


# adamx.nbytes


@values_in_turn("recipe, dtype", cases.RECIPES, ["bfloat16", "float32"])
def test_figures_are_those_of_live_arrays(recipe: str, dtype: str):
    params = cases.params(dtype)
    size = 3 * 5 + 5 + 1
    for resting, land in FORMATS:
        opt = cases.RECIPES[recipe](storage=resting, landing=land)
        state = opt.init(params)
        counted = adamx.nbytes(opt, params)
        what = (resting, land)
        assert counted.size == size, what
        assert counted.parameters == counted.gradients == live(params), what
        assert counted.moments + counted.landing + counted.other == live(state), what
        assert counted.total == 2 * live(params) + live(state), what
        rests = [s for s in state if isinstance(s, landing.LandingState)]
        assert counted.landing == sum(live(s.remainder) for s in rests), what
        # A counter of steps, and one of draws where the landing draws.
        nodes = jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "_fields"))
        counts = ("count", "count_m2", "t", "draws")
        assert counted.other == sum(4 for s in nodes for f in counts if _has(s, f))
        assert adamx.nbytes(opt, shapes_of(params)) == counted, what


def _has(state: Any, field: str) -> bool:
    return getattr(state, field, None) is not None and not callable(getattr(state, field))


@pytest.mark.parametrize("tree", cases.TREES)
def test_any_tree_of_parameters_is_counted(tree: str):
    params = cases.TREES[tree]()
    opt = adamx.adamw(1e-3)
    counted = adamx.nbytes(opt, params)
    assert counted.total - 2 * counted.parameters == live(opt.init(params))
    arrays = [jnp.asarray(p) for p in jax.tree.leaves(params)]
    assert counted.parameters == live(arrays)
    assert counted.size == sum(a.size for a in arrays)


@pytest.mark.parametrize(
    ("opt", "moments", "other"),
    [
        (optax.sgd(0.1), 0, 0),
        (optax.sgd(0.1, momentum=0.9), 4 * 30, 0),
        (optax.adamw(0.1), 8 * 30, 4),
        (optax.adamw(lambda step: 0.1), 8 * 30, 8),
        (optax.lion(0.1), 4 * 30, 4),
        (optax.amsgrad(0.1), 12 * 30, 4),
        (optax.masked(optax.adam(0.1), {"kernel": True, "bias": False}), 8 * 24, 4),
        (optax.MultiSteps(optax.adam(0.1), 4), 12 * 30, 12),
        (
            optax.partition(
                {"a": optax.adam(0.1), "b": optax.sgd(0.1)}, {"kernel": "b", "bias": "a"}
            ),
            8 * 6,
            4,
        ),
        (optax.chain(optax.adam(0.1), landing.exact()), 8 * 30, 4),
    ],
    ids=(
        "sgd",
        "momentum",
        "adamw",
        "schedule",
        "lion",
        "amsgrad",
        "masked",
        "steps",
        "partition",
        "landing",
    ),
)
def test_what_optax_keeps_is_told_apart(opt: Any, moments: int, other: int):
    params = {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}
    counted = adamx.nbytes(opt, params)
    assert counted[3:] == (moments, 0, other)
    assert moments + other == live(opt.init(params))


def test_a_landing_in_any_chain_is_counted_as_one():
    params = {"kernel": jnp.ones((4, 6), jnp.bfloat16), "bias": jnp.ones(6)}
    opt = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1), landing.exact())
    counted = adamx.nbytes(opt, params)
    assert counted.landing == 2 * 24
    assert counted.moments == 2 * (2 * 24 + 4 * 6)


def test_figures_per_parameter_are_the_same_ones_divided():
    params = {"kernel": jax.ShapeDtypeStruct((64, 32), jnp.bfloat16)}
    opt = adamx.adamw(1e-3, storage="bfloat16", landing="compensated8")
    counted = adamx.nbytes(opt, params)
    assert counted.per_parameter[:-1] == (1, 2, 2, 4, 1)
    assert counted.per_parameter.total == counted.total / 2048
    assert adamx.nbytes(opt, {}).per_parameter.total == counted.other  # and not a division by zero


@pytest.mark.parametrize(
    ("resting", "moments"), [("float32", 8), ("bfloat16", 4), ("int8", 2), ("int4", 1)]
)
def test_live_arrays_have_the_bytes_per_parameter_that_each_format_promises(
    resting: str, moments: int
):
    params = {"kernel": jnp.ones((64, 33), jnp.bfloat16), "bias": jnp.ones(7, jnp.bfloat16)}
    opt = adamx.adamw(1e-3, storage=resting, landing="compensated8")
    counted = adamx.nbytes(opt, params)
    assert counted.per_parameter[:-1] == (1, 2, 2, moments, 1)
    assert live(opt.init(params)) == (moments + 1) * (64 * 33 + 7) + counted.other


def test_printed_figures_are_exact():
    params = {"kernel": jax.ShapeDtypeStruct((1000, 1000), jnp.float32)}
    lines = str(adamx.nbytes(adamx.lion(1e-3), params)).splitlines()
    assert [line.split() for line in lines] == [
        ["bytes", "per", "parameter"],
        ["parameters", "4,000,000", "4.000"],
        ["gradients", "4,000,000", "4.000"],
        ["moments", "4,000,000", "4.000"],
        ["landing", "0", "0.000"],
        ["other", "4", "0.000"],
        ["total", "12,000,004", "12.000"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_a_counter_is_no_moment_of_a_bare_array():
    assert adamx.nbytes(adamx.adam(1e-3), jnp.ones(3)) == Footprint(3, 12, 12, 24, 0, 4)


def test_a_leaf_of_the_state_belongs_to_the_parameter_with_the_longest_name():
    seen = set()
    params = {"kernel": jnp.ones(2), "dense": {"kernel": jnp.ones(3)}}
    adamx.nbytes(adamx.lion(1e-3), params, shard=lambda *leaf: seen.add(leaf) or leaf[-1])
    assert {(path, shape) for _, path, shape in seen} == {("kernel", (2,)), ("dense/kernel", (3,))}


def test_shard_sees_each_part_with_the_path_of_its_parameter():
    seen = set()

    def shard(part, path, shape):
        seen.add((part, path, shape))
        return (*shape[:-1], shape[-1] // 2) if part == "moments" else shape

    params = {"dense": {"kernel": jnp.ones((4, 6), jnp.bfloat16)}, "gain": jnp.ones(2)}
    opt = adamx.adam(1e-3, landing="kahan")
    whole, part = adamx.nbytes(opt, params), adamx.nbytes(opt, params, shard=shard)
    assert part == whole._replace(moments=whole.moments / 2)
    kernel = ("dense/kernel", (4, 6))
    assert seen == {
        (p, *leaf)
        for p in ("parameters", "gradients", "moments")
        for leaf in (kernel, ("gain", (2,)))
    } | {("landing", *kernel)}


# Meshes

TREE = {
    "kernel": (16, 24),
    "tall": (40, 6),
    "cube": (8, 2, 4),
    "odd": (7, 5),
    "bias": (12,),
    "gain": (),
}


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("axes", [{"data": 8}, {"model": 8}, {"data": 2, "model": 4}, {"x": 2}])
def test_bytes_on_a_device_are_those_of_real_shards(axes: dict[str, int], zero: int):
    devices = np.array(jax.devices()[: math.prod(axes.values())]).reshape(*axes.values())
    mesh = Mesh(devices, tuple(axes))

    def placed(part: Any, tree: Any) -> int:
        def put(x: jax.Array) -> jax.Array:
            spec = PartitionSpec(*device_share.spec(part, x.shape, axes, zero))
            return jax.device_put(x, NamedSharding(mesh, spec))

        arrays = jax.tree.leaves(jax.tree.map(put, tree))
        first = mesh.devices.flat[0]
        shards = [s.data for a in arrays for s in a.addressable_shards if s.device == first]
        return live(shards)

    params = {name: jnp.ones(shape, jnp.bfloat16) for name, shape in TREE.items()}
    opt = adamx.adamw(1e-3, landing="compensated8")
    rule, *_, last = opt.init(params)
    counted = adamx.nbytes(opt, params, shard=device_share.shard(axes, zero))
    assert counted.parameters == placed("parameters", params)
    assert counted.gradients == placed("gradients", params)
    assert counted.moments == placed("moments", (rule.mu, rule.nu))
    assert counted.landing == placed("landing", last.remainder)


def test_an_axis_splits_the_largest_dimension_that_it_divides():
    axes = {"data": 8, "model": 4}
    assert device_share.spec("moments", (6, 64), axes, 1) == ((), ("model", "data"))
    assert device_share.spec("moments", (32, 12), axes, 1) == (("model", "data"), ())
    assert device_share.spec("moments", (8, 12), axes, 1) == (("data",), ("model",))
    assert device_share.spec("moments", (32, 16), axes, 1) == (("model",), ("data",))
    assert device_share.spec("moments", (7, 5), axes, 3) == ((), ())
    assert device_share.spec("parameters", (8, 12), axes, 1) == ((), ("model",))
    assert device_share.spec("gradients", (8, 12), axes, 2) == (("data",), ("model",))


def test_the_whole_over_eight_devices_is_an_eighth():
    params = {"kernel": jax.ShapeDtypeStruct((64, 64), jnp.bfloat16)}
    opt = adamx.adamw(1e-3, storage="bfloat16", landing="exact")
    whole = adamx.nbytes(opt, params)

    def on_one(zero: int) -> Footprint:
        return adamx.nbytes(opt, params, shard=device_share.shard({"data": 8}, zero))

    assert on_one(0) == whole
    assert on_one(1) == whole._replace(moments=whole.moments / 8, landing=whole.landing / 8)
    assert on_one(2) == on_one(1)._replace(gradients=whole.gradients / 8)
    assert on_one(3) == on_one(2)._replace(parameters=whole.parameters / 8)


# Models


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("llama-7b", 6_738_415_616),
        ("llama-13b", 13_015_864_320),
        ("llama-70b", 68_976_648_192),
        ("llama3-8b", 8_030_261_248),
        ("llama3-70b", 70_553_706_496),
        ("llama3-405b", 405_853_388_800),
        ("mistral-7b", 7_241_732_096),
        ("vit-b16", 86_567_656),
        ("vit-l16", 304_326_632),
    ],
)
def test_models_have_their_published_numbers_of_parameters(name: str, parameters: int):
    assert sum(map(math.prod, MODELS[name]().values())) == parameters


# The command


def plan(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["plan", *words.split()]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def planned(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `--json` keeps, its bytes by storage and landing."""
    file = tmp_path / "plan.json"
    plan(f"{words} --json {file}", capsys)
    kept = json.loads(file.read_text())
    return kept | {"rows": {(r["storage"], r["landing"]): r["bytes"] for r in kept["rows"]}}


def written(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def safetensors(path: Path, header: dict[str, Any], weights: bytes = b"") -> str:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + weights)
    return str(path)


def test_a_table_shows_every_format_in_eighty_columns(capsys: pytest.CaptureFixture[str]):
    said = plan("llama-7b", capsys)
    title, where, _, header, _, *lines = said.splitlines()
    assert title == "llama-7b: 6,738,415,616 parameters in 291 leaves, bfloat16; adamw"
    assert where == "on one device"
    columns = ["params", "grads", "moments", "landing", "total", "B/param"]
    assert header.split() == ["GB", "(1e9", "bytes)", *columns]
    for name in (*storage.NAMED, *landing.NAMED):
        assert any(name in line for line in lines)
    rows = {label: rest.split() for label, rest in (line.split("   ", 1) for line in lines)}
    assert rows["float32 throughout"] == ["27.0", "27.0", "53.9", "0.0", "107.8", "16.00"]
    assert rows["float32 + float32 copy"] == ["13.5", "13.5", "53.9", "27.0", "107.8", "16.00"]
    assert rows["bfloat16 + compensated8"] == ["13.5", "13.5", "27.0", "6.7", "60.6", "9.00"]
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("words", ["gpt2", "llama3-405b", "llama-70b --recipe adan", "vit-b16"])
def test_no_table_is_wider_than_eighty_columns(words: str, capsys: pytest.CaptureFixture[str]):
    assert max(map(len, plan(words, capsys).splitlines())) <= 80


@some_slow("recipe", cases.RECIPES, cases.RULES)
def test_rows_are_what_nbytes_says_of_the_whole_tree(recipe: str):
    params = {
        name: jax.ShapeDtypeStruct(shape, dtype)
        for name, shape, dtype in (
            ("a", (8, 4), jnp.bfloat16),
            ("b", (8, 4), jnp.bfloat16),
            ("c", (8, 4), jnp.float32),
            ("d", (), jnp.bfloat16),
        )
    }
    shard = device_share.shard({"data": 4, "model": 2}, 1)
    first, copy, *rows = side_by_side(recipe, [*storage.NAMED], [*landing.NAMED], params, shard)
    assert [(row.storage, row.landing) for row in rows] == FORMATS
    for row in rows:
        opt = getattr(adamx, recipe)(1e-3, storage=row.storage, landing=row.landing)
        assert row.footprint == adamx.nbytes(opt, params, shard=shard), (row.storage, row.landing)
    assert first.footprint.parameters == 4 * (3 * 16 + 1)
    assert copy.footprint == rows[0].footprint._replace(landing=4 * (2 * 4 + 1))


def test_a_mesh_and_zero_say_what_one_device_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = written(tmp_path / "shapes.json", {"kernel": [1024, 4096]})
    words = f"{source} --mesh data=8,model=4 --zero 1 --storages bfloat16 --landings exact"
    said = plan(words, capsys)
    assert "\non each of 32 devices: data=8 (ZeRO 1), model=4 (splits)\n" in said
    kept = planned(words, tmp_path, capsys)
    assert (kept["mesh"], kept["zero"]) == ({"data": 8, "model": 4}, 1)
    row = kept["rows"]["bfloat16", "exact"]
    size = 1024 * 4096
    assert kept["size"] == size
    assert row["parameters"] == row["gradients"] == 2 * size // 4
    assert (row["moments"], row["landing"]) == (4 * size // 32, 2 * size // 32)
    assert row["total"] == sum(row[k] for k in Footprint._fields[1:])


def test_landings_share_a_line_where_their_bytes_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = written(tmp_path / "shapes.json", {"table": [100_000, 1000]})
    words = f"{source} --mesh data=100000 --zero 1 --storages float32"
    lines = [line for line in plan(words, capsys).splitlines() if line.startswith("float32 + ")]
    labels, figures = zip(
        *(line.removeprefix("float32 + ").split("  ", 1) for line in lines), strict=True
    )
    assert labels == ("float32 copy", "nearest, stochastic", "kahan, exact", "compensated8")
    # What a landing keeps on one device is too little to be seen beside the parameters.
    assert len({tuple(cells.split()) for cells in figures}) == 1


def test_float32_parameters_need_no_landing(capsys: pytest.CaptureFixture[str]):
    said = plan("vit-b16 --dtype float32 --recipe lion", capsys)
    assert "float32; lion\n" in said
    rows = [line for line in said.splitlines() if "any landing" in line]
    assert len(rows) == len(storage.NAMED)
    assert "throughout" not in said
    assert rows[0].split()[-6:] == ["0.35", "0.35", "0.35", "0.00", "1.04", "12.00"]


def test_shapes_may_be_nested_and_name_their_dtypes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    content = {
        "layers": [{"kernel": [4, 6], "gain": []}, {"kernel": [6, 2]}],
        "norm": {"scale": {"shape": [6], "dtype": "float32"}, "bias": {"shape": [6]}},
        "steps": {"shape": [], "dtype": "int32"},
    }
    source = written(tmp_path / "shapes.json", content)
    words = f"{source} --storages float32 --landings exact"
    said = plan(words, capsys)
    assert "49 parameters in 5 leaves, bfloat16, float32; adamw" in said
    assert "left out, as they do not train: 1 of int32" in said
    row = planned(words, tmp_path, capsys)["rows"]["float32", "exact"]
    assert row["parameters"] == 2 * 43 + 4 * 6
    assert row["landing"] == 2 * 43
    row = planned(f"{words} --dtype float32", tmp_path, capsys)["rows"]["float32", "exact"]
    assert (row["parameters"], row["landing"]) == (4 * 49, 0)


def test_only_the_header_of_safetensors_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    header = {
        "__metadata__": {"format": "pt"},
        "wte.weight": {"dtype": "BF16", "shape": [50, 8], "data_offsets": [0, 800]},
        "ln.weight": {"dtype": "F32", "shape": [8], "data_offsets": [800, 832]},
        "mask": {"dtype": "BOOL", "shape": [4, 4], "data_offsets": [832, 848]},
    }
    # The weights are missing, as they are where only the beginning of a file was fetched.
    source = safetensors(tmp_path / "model.safetensors", header)
    words = f"{source} --storages float32 --landings kahan"
    said = plan(words, capsys)
    assert "408 parameters in 2 leaves, bfloat16, float32" in said
    assert "1 of bool" in said
    row = planned(words, tmp_path, capsys)["rows"]["float32", "kahan"]
    assert (row["parameters"], row["moments"], row["landing"]) == (832, 8 * 408, 800)


def test_an_index_stands_for_all_of_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for i in (1, 2):
        header = {
            f"{name}.{i}": {"dtype": "F16", "shape": [10, i], "data_offsets": [0, 20 * i]}
            for name in ("kernel", "bias")
        }
        safetensors(tmp_path / f"model-{i}.safetensors", header, bytes(20 * i))
    index = {
        "metadata": {"total_size": 120},
        "weight_map": {
            f"{name}.{i}": f"model-{i}.safetensors" for name in ("kernel", "bias") for i in (1, 2)
        },
    }
    source = written(tmp_path / "model.safetensors.index.json", index)
    assert "60 parameters in 4 leaves, float16" in plan(source, capsys)


def test_a_plan_for_seventy_billion_parameters_allocates_next_to_nothing(
    capsys: pytest.CaptureFixture[str],
):
    plan("llama-70b", capsys)  # what is imported or traced once does not count
    before = {id(x) for x in jax.live_arrays()}
    tracemalloc.start()
    plan("llama-70b --recipe adan", capsys)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
    assert sum(x.nbytes for x in jax.live_arrays() if id(x) not in before) < 1000


def test_markdown_is_a_table_of_markdown(capsys: pytest.CaptureFixture[str]):
    *_, header, rule, row = plan(
        "gpt2 --dtype float32 --storages float32 --landings nearest --markdown", capsys
    ).splitlines()
    assert header.startswith("| GB (1e9 bytes) ")
    assert set(rule) == set("|-: ")
    assert row.startswith("| float32 + nearest |")


# Refusals


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[3", "is neither JSON nor a safetensors file"),
        ("", "is neither JSON nor a safetensors file"),
        ("\x00\x01", "is neither JSON nor a safetensors file"),
        ("{}", "lists no floating-point parameters"),
        ('{"step": {"shape": [], "dtype": "int32"}}', "lists no floating-point parameters"),
        ('{"w": "3x4"}', 'w: expected a shape such as [768, 3072], got "3x4"'),
        ('{"a": {"w": null}}', "a/w: expected a shape such as [768, 3072], got null"),
        ("7", "the file: expected a shape"),
        ('{"w": [3, -4]}', "w: a shape holds whole numbers of at least 0, got [3, -4]"),
        ('{"a": [{"w": [3.5]}]}', "a/0/w: a shape holds whole numbers of at least 0, got [3.5]"),
        ('{"w": [true]}', "w: a shape holds whole numbers"),
        ('{"w": {"shape": [3], "dtype": "bf17"}}', "w: no dtype is called 'bf17'"),
        ('{"w": {"shape": [3], "dtype": 16}}', "w: no dtype is called 16"),
        ('{"w": {"shape": [3], "dtype": "float8_e4m3fn"}}', "--dtype"),
        ('{"w": {"shape": [3], "dtype": "complex64"}}', "'int4' has no room for complex means"),
        ('{"weight_map": {"w": "elsewhere.safetensors"}}', "elsewhere.safetensors: No such file"),
        (
            '{"shape": [3], "w": [4]}',
            "the file: has a shape, which makes it one leaf, and also 'w'",
        ),
        (400 * '{"a":' + "[3]" + 400 * "}", "nested more than 100 deep"),
        pytest.param(10**5 * "[" + 10**5 * "]", "nested", id="10^5 lists"),
    ],
)
def test_a_file_without_shapes_is_refused_in_one_sentence(
    content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text(content)
    assert said in refusal(f"{tmp_path}/file", capsys)


def test_a_header_that_is_nested_very_deep_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    header = 10**5 * b'{"a":' + b"[3]" + 10**5 * b"}"
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "nested" in refusal(f"{tmp_path}/file", capsys)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    os.mkfifo(tmp_path / "pipe")
    assert "pipe is not a regular file" in refusal(f"{tmp_path}/pipe", capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("gpt5", "no file and no model is called 'gpt5'; models: gpt2, gpt2-medium, "),
        ("adamx", "cannot read"),  # a directory
        ("gpt2 --zero 1", "--zero 1 splits over the axis `data`: add --mesh data=N"),
        ("gpt2 --zero 3 --mesh model=4", "add --mesh data=N"),
        ("gpt2 --json /nowhere/plan.json", "cannot write /nowhere/plan.json"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_sentence(
    words: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert said in refusal(words, capsys)


def refusal(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["plan", *words.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("python -m adamx plan: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "SOURCE"),
        ("gpt2 --mesh data", "--mesh: must be distinct axes with their sizes"),
        ("gpt2 --mesh data=0", "got 'data=0'"),
        ("gpt2 --mesh data=8,data=2", "got 'data=8,data=2'"),
        ("gpt2 --mesh 8=data", "got '8=data'"),
        ("gpt2 --mesh data=8;model=4", "such as data=8,model=4, got 'data=8;model=4'"),
        ("gpt2 --zero 4", "--zero"),
        ("gpt2 --dtype int8", "'int8'"),
        ("gpt2 --storages int7", "'int7' is not one of: float32, bfloat16"),
        ("gpt2 --landings softly", "'softly' is not one of: nearest, stochastic"),
        ("gpt2 --recipe sgd", "'sgd'"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_sentence(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main(["plan", *words.split()])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert said in printed.err
