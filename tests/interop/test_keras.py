# SPDX-License-Identifier: Apache-2.0
"""The same 200 steps by the real Keras 3 and by the recipe with its arguments, in float64.

The bound is 1e-9 of a step, as for torch: 1,000 times what two evaluations of one formula part by,
and far below any difference of formulas. Hyperparameters are drawn anew in every run; a failure
prints their seed, and ADAMX_TEST_SEED repeats it.
"""

import os

import numpy as np
import pytest

from adamx.interop import keras
from tests.interop.keras_side import RATE, Side, distance, double, ours, problem
from tests.interop.keras_side import keras as real
from tests.products import some_slow

BOUND = 1e-9
STEPS = 200
SCALES = (1e-10, 1e-7, 1.0, 1e4)
SEED = int(os.environ.get("ADAMX_TEST_SEED", 0)) or int.from_bytes(os.urandom(4), "little")

CLASSES = {"adam": "Adam", "adamw": "AdamW", "nadam": "Nadam", "adamax": "Adamax", "lamb": "Lamb"}

# What is asked of Keras, beyond drawn betas and epsilon.
ROWS = {
    "adam": ("adam", {}),
    "adam, decay": ("adam", {"weight_decay": 0.01}),
    "amsgrad": ("adam", {"amsgrad": True}),
    "adamw": ("adamw", {}),
    "adamw, amsgrad": ("adamw", {"amsgrad": True, "weight_decay": 0.1}),
    "nadam": ("nadam", {}),
    "nadam, decay": ("nadam", {"weight_decay": 0.01}),
    "adamax": ("adamax", {}),
    "adamax, decay": ("adamax", {"weight_decay": 0.01}),
    "lamb": ("lamb", {}),
    "lamb, decay": ("lamb", {"weight_decay": 0.1}),
    "clipnorm": ("adam", {"clipnorm": 0.5}),
    "clipvalue": ("adamw", {"clipvalue": 0.3}),
    "global_clipnorm": ("nadam", {"global_clipnorm": 0.7}),
    "loss scale": ("adam", {"loss_scale_factor": 1024.0}),
    "average": ("adam", {"use_ema": True, "ema_momentum": 0.9}),
    "average that overwrites": ("adamw", {"use_ema": True, "ema_overwrite_frequency": 7}),
    "accumulation": ("adamw", {"gradient_accumulation_steps": 4, "clipnorm": 0.5}),
    "accumulation and average": (
        "lamb",
        {
            "gradient_accumulation_steps": 6,
            "use_ema": True,
            "ema_momentum": 0.8,
            "ema_overwrite_frequency": 5,
            "weight_decay": 0.05,
        },
    ),
}


@pytest.fixture(autouse=True)
def in_double():
    real()
    with double():
        yield


def drawn(row):
    """Hyperparameters, the same for a row wherever it runs."""
    print(f"ADAMX_TEST_SEED={SEED}")
    rng = np.random.default_rng([SEED, list(ROWS).index(row)])
    b1, b2 = 1 - 10 ** rng.uniform(-2, -0.3), 1 - 10 ** rng.uniform(-4, -1)
    arguments = {"beta_1": b1, "beta_2": b2, "epsilon": 10 ** rng.uniform(-9, -5)}
    print(arguments)
    return rng, arguments


@some_slow("row", ROWS, list(ROWS)[::2])
def test_recipe_takes_the_path_of_keras(row):
    name, asked = ROWS[row]
    rng, arguments = drawn(row)
    start, grads = problem(rng, STEPS)
    theirs = Side(CLASSES[name], start, learning_rate=RATE, **arguments, **asked)
    run = ours(getattr(keras, name)(RATE, **arguments, **asked))
    for scale in SCALES:
        scaled = {k: scale * g for k, g in grads.items()}
        path, _ = theirs.run(start, scaled)
        got, _ = run(start, scaled)
        assert distance(path, got) < BOUND, scale


@pytest.mark.parametrize("name", CLASSES)
def test_defaults_are_those_of_keras(name):
    start, grads = problem(np.random.default_rng(3), STEPS)
    theirs = Side(CLASSES[name], start)
    path, _ = theirs.run(start, grads)
    assert distance(path, ours(getattr(keras, name)())(start, grads)[0]) < BOUND


@pytest.mark.parametrize("steps", [None, 3])
def test_schedules_of_keras_are_schedules_of_ours(steps):
    schedule = real().optimizers.schedules.ExponentialDecay(RATE, 10, 0.5)
    start, grads = problem(np.random.default_rng(4), STEPS)
    asked = {"gradient_accumulation_steps": steps, "weight_decay": 0.1}
    for name in ("adam", "lamb"):
        theirs = Side(CLASSES[name], start, learning_rate=schedule, **asked)
        mine = ours(getattr(keras, name)(schedule, **asked))
        assert distance(theirs.run(start, grads)[0], mine(start, grads)[0]) < BOUND
