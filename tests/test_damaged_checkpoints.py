# SPDX-License-Identifier: Apache-2.0
"""Damaged checkpoints and full disks: one sentence, and the step to go on from."""

import gc
import json
import resource
import shutil
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import adamx
from adamx import parallel
from adamx.checkpoints import Checkpoints, DamagedError, SaveError, about
from adamx.checkpoints.checksums import checksums
from adamx.checkpoints.quiet import quiet
from tests.products import some_slow
from tests.test_checkpoints import blank, mesh

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

OPT = adamx.adamw(1e-2, storage="int8")


def run_of(step):
    """A run whose arrays are all of one file, of more than a kilobyte that zstd cannot shrink."""
    params = {"kernel": jax.random.normal(jax.random.key(step), (64, 40)), "bias": jnp.ones(3)}
    return parallel.Run(params, OPT.init(params))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "checkpoints"
    with Checkpoints(folder, OPT) as kept:
        for step in (1, 2, 3):
            kept.save(step, run_of(step))
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "checkpoints")


def data(step):
    """The largest file of the arrays."""
    return max(step.glob("run/**/d/*"), key=lambda path: path.stat().st_size)


def overwrite(step):
    """Changes three bytes that are not compressed, as TensorStore cannot tell."""
    path = data(step)
    found = bytearray(path.read_bytes())
    found[2000:2003] = b"\xff\xff\xff"
    path.write_bytes(found)


def replace(step):
    shutil.rmtree(step)
    step.write_text("no folder")


DAMAGE = {
    "`run` cannot be read (Expecting value": lambda step: (step / "run/_METADATA").write_text("x"),
    "`run` cannot be read (": lambda step: data(step).write_bytes(data(step).read_bytes()[:99]),
    "less than minimum length": lambda step: (step / "run/manifest.ocdbt").write_bytes(b""),
    "did Orbax alone write this checkpoint?": lambda step: shutil.rmtree(step / "about"),
    "params/kernel is not what was saved, by its checksum": overwrite,
    "is damaged: `about`": replace,
}


@some_slow("said", DAMAGE, list(DAMAGE)[1::2])
def test_a_damaged_checkpoint_is_refused_and_the_newest_whole_one_named(said, folder, capfd):
    DAMAGE[said](folder / "3")
    overwrite(folder / "2")
    like = blank(run_of(0))
    with Checkpoints(folder, OPT) as kept:
        with pytest.raises(DamagedError) as error:
            kept.restore(like)
        told = str(error.value)
        assert said in told
        assert f"checkpoint 3 in {folder} is damaged: " in told
        assert told.endswith(
            "the newest whole one is of step 1 (`step=1`, or `train --resume --step 1`)"
        )
        assert "\n" not in told
        assert "tensorstore_spec" not in told
        assert len(told) < 400 + len(str(folder))
        back = kept.restore(like, step=1)
    np.testing.assert_array_equal(back.params["kernel"], run_of(1).params["kernel"])
    time.sleep(0.2)  # for what is told late
    gc.collect()
    assert capfd.readouterr().err == ""


def test_where_no_checkpoint_is_whole_that_is_said(folder):
    for step in folder.iterdir():
        overwrite(step)
    with (
        Checkpoints(folder, OPT) as kept,
        pytest.raises(DamagedError, match="no other one is whole"),
    ):
        kept.restore(blank(run_of(0)))


def test_a_mistake_in_the_optimizer_is_not_taken_for_damage(folder):
    wrong = adamx.adamw(1e-2, storage="int8", mask="!*/biass")
    said = pytest.raises(ValueError, match="no leaf matches '!\\*/biass'")
    with Checkpoints(folder, wrong) as kept, said as caught:
        kept.restore(blank(run_of(3)))
    assert not isinstance(caught.value, DamagedError)


def test_later_checkpoints_are_forgotten_so_that_their_steps_can_be_saved_again(folder):
    replace(folder / "3")
    with Checkpoints(folder, OPT) as kept:
        kept.forget_after(1)
        assert kept.steps == [1]
        kept.save(2, run_of(2))
    with Checkpoints(folder, OPT) as kept:
        assert kept.steps == [1, 2]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("no folder")
    with pytest.raises(NotADirectoryError, match="checkpoints is a file, not a folder"):
        Checkpoints(tmp_path / "checkpoints", OPT)


def test_a_checkpoint_of_before_the_checksums_is_restored(tmp_path, monkeypatch):
    packed = about.packed

    def without(described):
        described = {k: v for k, v in described.items() if k != "checksums"}
        return {"json": packed(described)["json"]}

    monkeypatch.setattr(about, "packed", without)
    with Checkpoints(tmp_path, OPT) as kept:
        kept.save(1, run_of(1))
        back = kept.restore(blank(run_of(0)))
    np.testing.assert_array_equal(back.params["kernel"], run_of(1).params["kernel"])


def test_a_changed_description_is_not_believed():
    packed = about.packed({"version": 1, "leaves": {"x": "float32[3]"}})
    assert about.unpacked(packed)["version"] == 1
    text = packed["json"].tobytes().replace(b"[3]", b"[4]")
    with pytest.raises(ValueError, match="its checksum"):
        about.unpacked(packed | {"json": np.frombuffer(text, np.uint8)})
    assert json.loads(text)["leaves"] == {"x": "float32[4]"}


def test_a_checksum_is_the_same_under_every_sharding():
    x = jax.random.normal(jax.random.key(0), (16, 24))
    want = checksums({"x": x})
    for devices, spec in ((8, P("data")), (8, P(None, "data")), (4, P()), (2, P("data"))):
        placed = jax.device_put(x, NamedSharding(mesh(devices), spec))
        assert checksums({"x": placed}) == want
    assert checksums({"x": np.asarray(x)}) == want


BITS = ["float32", "bfloat16", "float8_e4m3fn", "int4", "uint8", "bool", "complex64", "int32"]


@pytest.mark.parametrize("dtype", BITS)
def test_a_checksum_depends_on_every_element_and_its_place(dtype):
    x = np.zeros((3, 5), dtype)
    found = {checksums({"x": x})["x"]}
    for i in range(x.size):
        changed = x.copy()
        changed.flat[i] = 1
        found.add(checksums({"x": changed})["x"])
    if dtype == "complex64":
        found.add(checksums({"x": x + np.complex64(1j)})["x"])
    assert len(found) == x.size + 1 + (dtype == "complex64")


def test_a_checksum_sees_the_sign_of_zero_and_the_payload_of_nan():
    words = np.array([0, 1 << 31, 0x7FC00000, 0x7FC00001], np.uint32)
    assert len({checksums({"x": w.view(np.float32)})["x"] for w in words}) == 4


def test_zeros_of_either_sign_and_nans_come_back_as_saved(tmp_path):
    params = {"a": jnp.full(3, -0.0), "b": jnp.full(3, jnp.nan), "c": jnp.zeros(3)}
    run = parallel.Run(params, OPT.init(params))
    with Checkpoints(tmp_path, OPT) as kept:
        kept.save(1, run)
        back = kept.restore(blank(run))  # raises if a checksum differs
    assert np.signbit(back.params["a"]).all()


def test_what_an_error_leaves_undone_is_not_told_of(capfd):
    async def read():
        pass

    def fail():
        undone = read()
        raise ValueError(str(undone))

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="coroutine"), quiet():
            fail()
        gc.collect()
    assert not seen
    assert capfd.readouterr().err == ""


def test_a_full_disk_is_told_in_a_sentence_and_leaves_the_checkpoint_before(tmp_path, capfd):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = Checkpoints(tmp_path, OPT)
    kept.save(1, run_of(1))
    kept._wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        kept.save(2, run_of(2))
        with pytest.raises(SaveError) as error:
            kept.save(3, run_of(3))
        kept.close()  # tells it once
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = f"cannot write checkpoint 2 in {tmp_path}: File too large; the latest is of step 1"
    assert str(error.value) == said
    assert capfd.readouterr().err == ""
    with Checkpoints(tmp_path, OPT) as kept:
        back = kept.restore(blank(run_of(0)))
    np.testing.assert_array_equal(back.params["kernel"], run_of(1).params["kernel"])
