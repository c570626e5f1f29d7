# SPDX-License-Identifier: Apache-2.0
"""Rearrangements and their way back; what the layouts mean is tested with the libraries."""

import itertools

import numpy as np
import pytest

from adamx.interop import layouts
from adamx.interop.layouts import AXES, Part, positions, rearranged, undone

RANKS = {"linear": (2,), "conv": (3, 4, 5), "conv_transpose": (3, 4, 5), "transpose_kernel": (4,)}
WAYS = [
    (kind, of, to, rank)
    for of, to in itertools.permutations(AXES, 2)
    for kind in AXES[of].keys() & AXES[to].keys()
    for rank in RANKS[kind]
]


@pytest.mark.parametrize("kind, of, to, rank", sorted(WAYS))
def test_every_way_has_a_way_back(kind, of, to, rank):
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6)[:rank])
    there = rearranged(x, kind, of, to)
    np.testing.assert_array_equal(rearranged(there, kind, to, of), x)
    part = Part((0,), lambda a: rearranged(a, kind, of, to), there)
    np.testing.assert_array_equal(undone([part], [x.shape])[0], x)


def test_a_transposed_convolution_is_reversed_in_space_alone():
    x = np.arange(2 * 3 * 4).reshape(2, 3, 4)  # in, out, space
    there = rearranged(x, "conv_transpose", "torch", "flax")  # space, in, out
    np.testing.assert_array_equal(there, x.transpose(2, 0, 1)[::-1])


def test_several_leaves_make_one_array_and_several_arrays_one_leaf():
    x = np.arange(12.0).reshape(6, 2)

    def third(i):
        return lambda a: a[2 * i : 2 * i + 2].T

    thirds = [Part((0,), third(i), third(i)(x)) for i in range(3)]
    np.testing.assert_array_equal(undone(thirds, [(6, 2)])[0], x)
    stacked = Part((0, 1), lambda *a: np.stack(a), np.stack([x, x + 100]))
    back = undone([stacked], [(6, 2), (6, 2)])
    np.testing.assert_array_equal(back, [x, x + 100])


def test_a_function_that_does_more_than_move_is_refused():
    with pytest.raises(ValueError, match="computes"):
        positions(lambda x: x * 2.0, [(3,)])
    with pytest.raises(ValueError, match="computes"):
        positions(lambda x: x + 1, [(3,)])
    with pytest.raises(ValueError, match="twice"):
        positions(lambda x: np.concatenate([x, x]), [(3,)])


def test_elements_without_a_leaf_are_counted():
    with pytest.raises(ValueError, match=r"array 0 of shape \(3,\): 2 elements"):
        undone([Part((0,), lambda x: x[:1], np.ones(1))], [(3,)])
    with pytest.raises(ValueError, match=r"fc of shape \(3,\): 2 elements"):
        undone([Part((0,), lambda x: x[:1], np.ones(1))], [(3,)], ["fc"])


def test_leaves_that_share_an_array_have_to_agree():
    one = Part((0,), lambda x: x, np.ones(3))
    np.testing.assert_array_equal(undone([one, one], [(3,)])[0], np.ones(3))
    with pytest.raises(ValueError, match=r"fc of shape \(3,\): two leaves of it differ here"):
        undone([one, one._replace(leaf=np.array([1.0, 1.0, 2.0]))], [(3,)], ["fc"])


def test_a_vector_is_no_kernel():
    with pytest.raises(ValueError, match=r"at least 2 axes, got shape \(3,\)"):
        layouts.rearranged(np.ones(3), "linear", "torch", "flax")
