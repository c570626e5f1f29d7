# SPDX-License-Identifier: Apache-2.0
"""Every rule in every storage goes where it goes in float32, whatever its gradients are like."""

from itertools import product

import jax
import numpy as np
import pytest

from tests import cases
from tests.products import rest_slow

STEPS, LAST, SIZE = 800, 200, 512
RULES = {cases.RECIPES[name].link: cases.RECIPES[name] for name in cases.RULES}
RULES |= {"scale_by_adam, nesterov": cases.RECIPES["nadamw"]}
ADAMS = ("scale_by_adam", "scale_by_adam, nesterov")


def streams():
    """Gradients of elements of many sizes, side by side."""
    rng = np.random.default_rng(0)
    noise, half = rng.normal(size=(STEPS, SIZE)), np.arange(STEPS)[:, None] < STEPS // 2
    found = {
        "constant": np.broadcast_to(rng.choice([-1, 1], SIZE), (STEPS, SIZE)),
        "noisy": noise,
        "sparse": np.where(rng.random((STEPS, SIZE)) < 0.02, noise, 0),
        "falling": np.where(half, noise, 0.05 * noise),
        "drifting": 0.3 * noise + 1,
    }
    sizes = 10.0 ** rng.uniform(-4, 1, SIZE)
    return {name: (stream * sizes).astype(np.float32) for name, stream in found.items()}


STREAMS = streams()
ALL = np.concatenate(list(STREAMS.values()), 1)


@pytest.fixture(scope="module")
def exact():
    return {}


def directions(link):
    def step(state, g):
        return link.update(g, state)[::-1]

    return np.asarray(jax.jit(lambda gs: jax.lax.scan(step, link.init(gs[0]), gs)[1])(ALL)[-LAST:])


# By how much of float32's direction a small state may be off on average, and the noise that it may
# add, as shares of the direction; then the same where gradients have fallen to a twentieth.
BOUNDS = {"bfloat16": (0.04, 0.04), "int8": (0.02, 0.16), "int4": (0.25, 0.8)}
FALLING = {"bfloat16": (0.01, 0.02), "int8": (0.03, 0.25), "int4": (0.3, 2.6)}
# Where a rule itself makes more of it. AMSGrad: the largest of many roundings is above the largest
# square. AdaBelief: gradients that never change are at a distance from their mean that soon is
# below what 8 bits of it can tell. ADOPT and Adan: a byte for two moments is too coarse for a ratio
# of two times. Lion: where a mean is small, noise has its sign. Simplified AdEMAMix: at b2 = 0.95
# squares move by more than rounding without bias in the root allows for. AdEMAMix, both: after a
# fall the slow mean is large beside new gradients, and so is its noise. SPAM: these steps are the
# 100th to the 300th since a reset, where Adam is as far off.
WIDER = {
    ("scale_by_amsgrad", "int8"): (0.15, 0.16),
    ("scale_by_amsgrad", "int4"): (0.15, 0.16),
    ("scale_by_belief", "constant"): (0.08, 0.12),
    ("scale_by_adan", "bfloat16"): (0.13, 0.7),
    ("scale_by_adan", "int4"): (0.7, 5.8),
    ("scale_by_adopt", "int4"): (0.25, 2.0),
    ("scale_by_ademamix", "bfloat16"): (0.04, 0.04),
    ("scale_by_simplified_ademamix", "bfloat16"): (0.04, 0.04),
    ("scale_by_simplified_ademamix", "sparse"): (0.06, 0.16),
    ("scale_by_spam", "int8"): (0.025, 0.16),
    ("scale_by_spam", "int4"): (0.35, 0.8),
    ("scale_by_lion", "bfloat16"): (0.01, 0.14),
    ("scale_by_lion", "int8"): (0.22, 0.66),
    ("scale_by_lion", "int4"): (0.22, 0.66),
}


@rest_slow(
    "name, storage",
    product(RULES, BOUNDS),
    [*product(RULES, ["int8"]), ("scale_by_adam", "int4"), ("scale_by_adam, nesterov", "int4")],
)
def test_a_small_state_goes_where_float32_goes(name, storage, exact):
    rule = RULES[name]
    if name not in exact:
        exact[name] = directions(rule.scale_by())
    got = directions(rule.scale_by(storage=storage))
    for i, stream in enumerate(STREAMS):
        here = slice(i * SIZE, (i + 1) * SIZE)
        a, b = got[:, here].astype(float), exact[name][:, here].astype(float)
        share = np.sum(a * b) / np.sum(b * b)
        noise = np.sqrt(np.mean((a - b) ** 2) / np.mean(b * b))
        most = (FALLING if stream == "falling" else BOUNDS)[storage]
        for key in ((name, storage), (name, stream)):
            most = WIDER.get(key, most)
        assert abs(share - 1) < most[0], (stream, share)
        assert noise < most[1], (stream, noise)
