# SPDX-License-Identifier: Apache-2.0
"""safetensors files are read as they are documented; hostile ones end in a sentence."""

import json
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest

from adamx.interop import safetensors


def written(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype, shape, first, last):
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def test_arrays_come_back(tmp_path):
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.asarray([1.5, -2.0], jnp.bfloat16)
    header = {
        "__metadata__": {"format": "pt"},
        "a": entry("F32", [2, 3], 0, 24),
        "b": entry("BF16", [2], 24, 28),
        "c": entry("I64", [], 28, 36),
        "d": entry("F32", [0, 5], 36, 36),
    }
    data = a.tobytes() + b.tobytes() + np.int64(7).tobytes()
    found = safetensors.read(written(tmp_path / "x.safetensors", header, data))
    np.testing.assert_array_equal(found["a"], a)
    np.testing.assert_array_equal(found["b"], b)
    assert found["c"] == 7
    assert found["d"].shape == (0, 5)
    assert safetensors.read(written(tmp_path / "y.safetensors", {})) == {}


def entry_of(shape):
    """A header with a shape as it is written."""
    return b'{"a": {"dtype": "F32", "shape": ' + shape + b', "data_offsets": [0, 4]}}'


BIG = [1_000_000_000]
HOSTILE = {
    "no header": (b"", "is no whole safetensors file"),
    "short": (b"\x01\x00", "is no whole safetensors file"),
    "long header": ((10**15).to_bytes(8, "little") + b"{}", "claims 1,000,000,000,000,000 bytes"),
    "not JSON": ((4).to_bytes(8, "little") + b"abcd", "header is not JSON"),
    "not an object": ((2).to_bytes(8, "little") + b"[]", "no JSON object"),
    "deep": ((10**5).to_bytes(8, "little") + b"[" * 10**5, "header is not JSON"),
}
HEADERS = {
    "1e9 elements": ({"a": entry("F32", BIG, 0, 4 * BIG[0])}, "claims 4,000,000,000 bytes"),
    "1e9 elements in 4 bytes": ({"a": entry("F32", BIG, 0, 4)}, "claims 4,000,000,000 bytes"),
    "truncated": ({"a": entry("F32", [3], 0, 12)}, r"the file has 8 of data"),
    "negative": ({"a": entry("F32", [-2], 0, 8)}, "not whole numbers"),
    "fraction": ({"a": entry("F32", [2.0], 0, 8)}, "not whole numbers"),
    "dtype": ({"a": entry("F31", [2], 0, 8)}, "has dtype 'F31', which is none of F64"),
    "dtype of another type": ({"a": entry([], [2], 0, 8)}, "has dtype"),
    "no dtype": ({"a": {"shape": [2]}}, "'a' lacks a dtype"),
    "an endless axis": ({"a": entry("F32", [0, 10**30], 0, 0)}, "or one that is too long"),
    "70 axes": ({"a": entry("F32", [1] * 70, 0, 4)}, "a has 70 axes"),
    "digits": (entry_of(b"[1" + b"0" * 4000 + b"]"), "or one that is too long"),
    "an endless product": ({"a": entry("F32", [10**18] * 60, 0, 4)}, "claims 2.63 bytes or more"),
    "a name of a million letters": ({"a" * 10**6: entry("F32", [2], 0, 4)}, "1,000,000 letters"),
    "the same name, no entry": ({"a" * 10**6: 3}, "1,000,000 letters"),
    "an endless end": ({"a": entry("F32", [1], 10**300, 10**300 + 4)}, "ends beyond 2.63 bytes"),
    "overlap": ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [1], 4, 8)}, "a and b lie in the"),
}


@pytest.mark.parametrize("what", [*HOSTILE, *HEADERS])
def test_a_hostile_file_ends_in_a_sentence_and_asks_for_no_memory(tmp_path, what):
    path = tmp_path / "x.safetensors"
    if what in HOSTILE:
        content, said = HOSTILE[what]
        path.write_bytes(content)
    else:
        header, said = HEADERS[what]
        written(path, header, b"\0" * 8)
    tracemalloc.start()
    with pytest.raises(ValueError, match=said) as error:
        safetensors.read(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400 + len(str(path))
    assert str(path) in str(error.value)
    assert most < 10_000_000
