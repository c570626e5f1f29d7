# SPDX-License-Identifier: Apache-2.0
"""One recipe on one tree: the samples of every contestant and measure."""

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx.cli import names, shapes
from adamx.cli.bench.equations import count_equations
from adamx.cli.bench.programs import Build, one_off_costs, step_of
from adamx.cli.bench.timing import in_turn
from adamx.cli.bench.torch_step import torch_step

LEARNING_RATE = 1e-3
Samples = dict[str, dict[str, list[float]]]
"""`samples[contestant][measure]`; seconds, bytes or counts."""


def contest(recipe: str, storages: Sequence[str], tree: shapes.Shapes, repeats: int) -> Samples:
    """Measures our recipe with each storage, Optax's and, where available, torch's."""
    builds = _builds(recipe, storages)
    samples: Samples = {name: {} for name in builds}
    avals = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in tree.items()}
    for name, build in builds.items():
        top, total = count_equations(build(), avals)
        samples[name] |= {
            "equations": [top],
            "equations per leaf": [top / len(tree)],
            "equations in all": [total],
        }
    _collect_one_off_costs(samples, builds, avals, repeats=max(1, repeats // 5))
    random = np.random.default_rng(0)
    grads = {name: random.standard_normal(s, dtype=np.float32) for name, s in tree.items()}
    _collect_steps(samples, builds, recipe, grads, repeats)
    _collect_eager(samples, builds, grads, repeats)
    return samples


def _builds(recipe: str, storages: Sequence[str]) -> dict[str, Build]:
    def build_ours(storage: str) -> Build:
        return lambda: names.ours(recipe, learning_rate=LEARNING_RATE, storage=storage)

    return {
        **{f"adamx {storage}": build_ours(storage) for storage in storages},
        "optax": lambda: names.theirs(recipe, learning_rate=LEARNING_RATE),
    }


def _collect_one_off_costs(
    samples: Samples, builds: Mapping[str, Build], avals: Any, repeats: int
) -> None:
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    for build in builds.values():
        one_off_costs(build, scalar)  # excludes what is imported or built at first use
    for i in range(repeats):
        for name in list(builds)[:: 1 if i % 2 else -1]:
            for measure, value in one_off_costs(builds[name], avals).items():
                samples[name].setdefault(measure, []).append(value)


def _collect_steps(
    samples: Samples,
    builds: Mapping[str, Build],
    recipe: str,
    grads: dict[str, np.ndarray],
    repeats: int,
) -> None:
    on_device = jax.device_put(grads)
    calls = {name: _jitted_step(build(), on_device) for name, build in builds.items()}
    calls |= dict([fused] if (fused := torch_step(recipe, grads)) else [])
    for name, seconds in in_turn(calls, repeats).items():
        samples.setdefault(name, {})["jitted step"] = seconds
    calls.clear()
    gc.collect()


def _collect_eager(
    samples: Samples,
    builds: Mapping[str, Build],
    grads: dict[str, np.ndarray],
    repeats: int,
) -> None:
    on_device = jax.device_put(grads)
    params = jax.tree.map(jnp.zeros_like, on_device)
    calls = {name: _eager_update(build(), on_device, params) for name, build in builds.items()}
    for name, seconds in in_turn(calls, repeats).items():
        samples[name]["eager update"] = seconds
    calls.clear()
    gc.collect()


def _jitted_step(opt: optax.GradientTransformation, grads: optax.Updates) -> Callable[[], None]:
    step = step_of(opt)
    params = jax.tree.map(jnp.zeros_like, grads)
    state = opt.init(params)

    def call() -> None:
        nonlocal params, state
        params, state = jax.block_until_ready(step(params, state, grads))

    return call


def _eager_update(
    opt: optax.GradientTransformation, grads: optax.Updates, params: optax.Params
) -> Callable[[], None]:
    state = opt.init(params)

    def call() -> None:
        nonlocal state
        _, state = jax.block_until_ready(opt.update(grads, state, params))

    return call
