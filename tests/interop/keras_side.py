# SPDX-License-Identifier: Apache-2.0
"""Keras 3 on JAX in float64: many steps of one of its optimizers as one compiled program."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")  # before Keras is imported, which is below
jax_is_meant = os.environ["KERAS_BACKEND"] == "jax"

SHAPES = {"bias": (3,), "gain": (), "kernel": (4, 3)}  # sorted, as JAX hands dictionaries back
RATE = 1e-3


def keras() -> Any:
    """Keras, or the end of the test where it is not installed, or runs on something else."""
    if not jax_is_meant:
        pytest.skip("Keras is told by KERAS_BACKEND to run on something else than JAX")
    return pytest.importorskip("keras", reason="compares with Keras 3")


@contextlib.contextmanager
def double() -> Iterator[None]:
    """Both libraries in float64. Keras mixes dtypes, which JAX's strict promotion refuses."""
    config = keras().config
    before = config.floatx(), config.dtype_policy()  # the policy outlives a change of the float
    config.set_floatx("float64")
    config.set_dtype_policy("float64")
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield
    config.set_floatx(before[0])
    config.set_dtype_policy(before[1])


def problem(rng: np.random.Generator, steps: int) -> tuple[dict, dict]:
    """Parameters, and gradients of many steps."""
    start = {k: jnp.asarray(rng.normal(size=shape)) for k, shape in SHAPES.items()}
    grads = {k: jnp.asarray(rng.normal(size=(steps, *s))) for k, s in SHAPES.items()}
    return start, grads


class Side:
    """A Keras optimizer and its variables, trained by compiled scans."""

    def __init__(self, name: str, params: dict, **arguments: Any):
        self.variables = [
            keras().Variable(np.asarray(p), dtype="float64", name=k) for k, p in params.items()
        ]
        self.opt = getattr(keras().optimizers, name)(**arguments)
        self.opt.build(self.variables)

        def step(carry: Any, grads: Any) -> Any:
            trained, held = carry
            trained, held = self.opt.stateless_apply(held, list(grads.values()), trained)
            return (trained, held), dict(zip(params, trained, strict=True))

        self._run = jax.jit(lambda carry, grads: jax.lax.scan(step, carry, grads))
        self.blank = [jnp.asarray(v.value) for v in self.opt.variables]

    def run(self, params: dict, grads: dict, held: Any = None) -> tuple[Any, Any]:
        """The parameters after each step, and the optimizer's variables after the last."""
        held = self.blank if held is None else held
        (_, held), path = self._run((list(params.values()), held), grads)
        return path, held

    def assign(self, params: dict, held: Any) -> None:
        """Puts values into the live variables."""
        for v, value in zip(self.variables, params.values(), strict=True):
            v.assign(value)
        for v, value in zip(self.opt.variables, held, strict=True):
            v.assign(value)


def ours(opt: optax.GradientTransformation) -> Any:
    """A function that does the same with one of our recipes."""

    def step(carry: Any, grads: Any) -> Any:
        params, state = carry
        updates, state = opt.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    run = jax.jit(lambda carry, grads: jax.lax.scan(step, carry, grads))

    def path(params: dict, grads: dict, state: Any = None) -> tuple[Any, Any]:
        state = opt.init(params) if state is None else state
        (_, state), path = run((params, state), grads)
        return path, state

    return path


def distance(a: Any, b: Any, rate: float = RATE) -> float:
    """The largest difference of two paths, in steps."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in pairs) / rate
