# SPDX-License-Identifier: Apache-2.0
"""A run that takes no time, cut off before its end, and a disk that is full."""

import contextlib
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adamx import health
from adamx.cli import tasks
from adamx.cli.tasks import Defaults, Task
from tests.cli.commands import here

STEPS, SAVED = 12, 8  # of the whole run, and of the one that is damaged


def batch(step):
    return np.random.default_rng(step).normal(size=(8, 300)).astype(np.float32)


def loss(params, batch):
    return jnp.mean((params["x"] * batch - 3) ** 2)


@jax.jit
def glance(params):
    return loss(params, batch(0))


def make(seed, batch_size, data):
    """A quadratic whose programs compile in no time."""
    scores = lambda params: {"loss": glance(params)}  # noqa: E731
    return Task("tiny", {"x": jnp.ones(300)}, loss, batch, glance, scores)


@pytest.fixture(scope="module", autouse=True)
def tiny():
    tasks.TASKS["tiny"] = (make, Defaults(STEPS, 8, 1e-2))
    yield
    del tasks.TASKS["tiny"]


def train(flags, root):
    code, out, err = here(f"train {flags} --devices 1", root)
    assert "Traceback" not in err
    return code, out, err


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with the whole run, and with one that ended earlier."""
    root = tmp_path_factory.mktemp("runs")
    for name, steps in (("whole", STEPS), ("cut", SAVED)):
        flags = f"--task tiny --steps {steps} --save-every 3 --watch 0 --schedule constant"
        assert train(f"{flags} --run {name}", root)[0] == 0
    return root


def losses(run):
    return {row["step"]: row["loss"] for row in health.history(run / "run.jsonl")}


@contextlib.contextmanager
def files_of_at_most(size):
    """No file may grow beyond `size` bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
