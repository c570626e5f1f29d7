# SPDX-License-Identifier: Apache-2.0
"""Adam-mini, against the paper in NumPy float64; its blocks, and the code of its mean."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx.core import random_bits
from adamx.storage import block_relative
from tests.optimizers.stepped import after

SHAPES = {
    "embed": {"embedding": (6, 4)},
    "query": {"kernel": (4, 2, 3)},
    "key": {"kernel": (4, 6)},
    "mlp": {"kernel": (4, 8), "bias": (8,)},
    "gain": (),
}
HEADS = {"*query/kernel|*key/kernel": 2}
# The number of blocks along each dimension: tokens, heads, heads, neurons, tensor, tensor.
BLOCKS = {
    "embed": {"embedding": (6, 1)},
    "query": {"kernel": (1, 2, 1)},
    "key": {"kernel": (1, 2)},
    "mlp": {"kernel": (1, 8), "bias": (1,)},
    "gain": (),
}


def is_shape(x):
    return isinstance(x, tuple)


def draws(steps, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [
        jax.tree.map(lambda s: np.asarray(rng.normal(size=s), dtype), SHAPES, is_leaf=is_shape)
        for _ in range(steps + 1)
    ]


def block_mean(x, blocks):
    """The mean of each block, in the shape of `x`."""
    out = np.empty_like(x)
    for index in np.ndindex(*blocks):
        part = tuple(
            slice(i * (n // b), (i + 1) * (n // b))
            for i, n, b in zip(index, x.shape, blocks, strict=True)
        )
        out[part] = x[part].mean()
    return out


def paper(x, grads, blocks, rate, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
    """Algorithm 1 of arXiv 2406.16793: Adam with the mean square of a block for each element's."""
    m = v = 0.0
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * block_mean(g**2, blocks)
        x = x - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps) - rate * decay * x
    return x


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_the_papers(decay):
    with jax.enable_x64(True):
        params, *grads = draws(5)
        opt = adamx.adam_mini(0.01, heads=HEADS, weight_decay=decay)
        got, state = after(opt, jax.tree.map(jnp.asarray, params), grads)
        assert jax.tree.map(jnp.shape, state[0].nu) == BLOCKS
        want = jax.tree.map(
            lambda p, b, *g: paper(p, g, b, 0.01, decay=decay), params, BLOCKS, *grads
        )
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_blocks_can_be_given_by_path():
    params = {"linear": {"weight": jnp.ones((3, 4))}, "odd": jnp.ones((2, 3))}
    opt = adamx.adam_mini(0.1, blocks={"*weight": 0, "odd": None})
    nu = opt.init(params)[0].nu
    assert nu["linear"]["weight"].shape == (3, 1)
    assert nu["odd"].shape == (1, 1)
    opt = adamx.adam_mini(0.1, heads={"*weight": (2, 1)})
    assert opt.init(params)[0].nu["linear"]["weight"].shape == (1, 2)


@pytest.mark.parametrize(
    "kwargs, words",
    [
        ({"heads": {"*qery": 2}}, r"`heads`: no leaf matches '\*qery'"),
        ({"blocks": ["*qery"]}, "`blocks` must be a table of path patterns, got"),
        ({"blocks": {"*query": "x"}}, "`blocks` must be a dimension or None, got 'x'"),
        ({"heads": {"kernel": 5}}, r"kernel: dimension 1 of \(4, 6\) does not fall into 5"),
        ({"heads": {"kernel": (2, 3)}}, r"kernel: `heads` names dimension 3 of \(4, 6\)"),
        ({"blocks": {"kernel": -3}}, r"kernel: `blocks` names dimension -3 of \(4, 6\)"),
        ({"heads": {"kernel": 0}}, "`heads` must be a number of at least 1"),
    ],
)
def test_wrong_blocks_are_errors_that_name_them(kwargs, words):
    with pytest.raises((TypeError, ValueError), match=words):
        adamx.adam_mini(0.1, **kwargs).init({"kernel": jnp.ones((4, 6))})


# The code of the mean


def test_no_mean_is_clipped_whatever_the_block():
    """|m| <= 7.27 sqrt(size) roots by Cauchy-Schwarz: one element has all of its block's square."""
    steps = [0.9**k for k in range(200)][::-1]  # the gradients for which the bound is attained
    b1, b2 = 0.9, 0.999
    for size in (1, 16, 4096, 2**20, 2**26):
        m = v = 0.0
        for k, _ in enumerate(steps):
            g = (b1 / b2) ** (len(steps) - 1 - k)
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g / size
        ratio = m / math.sqrt(v)
        assert 7.2 * math.sqrt(size) < ratio < 7.28 * math.sqrt(size)
        book = block_relative.book(size)
        unit = block_relative.unit(jnp.float32(1.0), book)
        assert float(book.decode(jnp.int32(book.count), unit)) > ratio, size


@pytest.mark.parametrize("size", [1, 768, 2**20])
def test_a_mean_is_rounded_without_bias(size):
    """Over 4,096 equally spaced roundings the mean is right to 4 standard errors."""
    root = jnp.float32(0.013)
    means = jnp.asarray([0.0, 3e-5, -1e-3, 2.7e-3, -0.011, 0.09], jnp.float32)
    draws = 4096
    tall = jnp.broadcast_to(means, (draws, means.size))
    key = random_bits.Key(random_bits.words(0, 0, 1))
    codes = block_relative.encode(tall, root, size, key)
    assert codes.dtype == jnp.int8
    got = np.asarray(block_relative.decode(codes, root, size), np.float64)
    error = got.std(0) / math.sqrt(draws)
    assert (np.abs(got.mean(0) - np.asarray(means)) <= 4 * error + 1e-9).all()
    assert (got[:, 0] == 0).all()


def test_a_mean_in_eight_bits_makes_little_more_than_a_byte_per_parameter():
    params = {"kernel": jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)}
    counted = adamx.nbytes(adamx.adam_mini(1e-3, storage="int8"), params)
    assert counted.per_parameter.moments < 1.01


@pytest.mark.parametrize("storage", ["bfloat16", "int8", "int4"])
def test_a_small_mean_goes_where_float32_goes(storage):
    params, *grads = draws(50, np.float32)
    params = jax.tree.map(jnp.asarray, params)
    want, _ = after(adamx.adam_mini(1e-3), params, grads)
    got, _ = after(adamx.adam_mini(1e-3, storage=storage), params, grads)
    far = optax.tree.norm(optax.tree.sub(want, params))
    assert optax.tree.norm(optax.tree.sub(got, want)) < 0.1 * far


def test_what_is_not_finite_stays_visible_in_codes():
    params = jnp.ones((2, 3))
    opt = adamx.adam_mini(0.1, storage="int8")
    for bad in (jnp.nan, jnp.inf):
        _, state = opt.update(params.at[0, 0].set(bad), opt.init(params), params)
        updates, _ = opt.update(params, state, params)
        assert np.isnan(updates[0, 0])
