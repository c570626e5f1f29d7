# SPDX-License-Identifier: Apache-2.0
"""One recipe on one tree: the samples of every contestant and measure."""

import gc
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamx import kernels
from adamx.cli import names, shapes
from adamx.cli.bench.equations import count_equations
from adamx.cli.bench.programs import Build, one_off_costs, step_of
from adamx.cli.bench.timing import in_turn
from adamx.cli.bench.torch_step import torch_step
from adamx.core.step import jit_step

LEARNING_RATE = 1e-3
Samples = dict[str, dict[str, list[float]]]
"""`samples[contestant][measure]`; seconds, bytes or counts."""


class Contestant(NamedTuple):
    """An optimizer, the dtype of parameters and gradients, and whether it has loops in C++."""

    build: Build
    dtype: str = "float32"
    kernels: bool = True


def contest(
    recipe: str,
    storages: Sequence[str],
    tree: shapes.Shapes,
    repeats: int,
    landings: Sequence[str] = (),
    without_kernels: bool = False,
) -> Samples:
    """Measures our recipe with each storage, Optax's and, where available, torch's.

    With each landing, bfloat16 parameters and gradients take part too, and `without_kernels` all of
    ours a second time, stepped by XLA alone.
    """
    entries = _contestants(recipe, storages, landings, without_kernels)
    samples: Samples = {name: {} for name in entries}
    for name, entry in entries.items():
        with kernels.using(entry.kernels):
            top, total = count_equations(entry.build(), _avals(tree, entry))
        samples[name] |= {
            "equations": [top],
            "equations per leaf": [top / len(tree)],
            "equations in all": [total],
        }
    _collect_one_off_costs(samples, entries, tree, repeats=max(1, repeats // 5))
    random = np.random.default_rng(0)
    grads = {name: random.standard_normal(s, dtype=np.float32) for name, s in tree.items()}
    _collect_steps(samples, entries, recipe, grads, repeats)
    _collect(samples, entries, grads, repeats, "update, apply", _update_and_apply)
    _collect(samples, entries, grads, repeats, "eager update", _eager_update)
    return samples


def _contestants(
    recipe: str, storages: Sequence[str], landings: Sequence[str], without_kernels: bool
) -> dict[str, Contestant]:
    def ours(**kwargs: Any) -> Build:
        return lambda: names.ours(recipe, learning_rate=LEARNING_RATE, **kwargs)

    found = {f"adamx {x}": Contestant(ours(storage=x)) for x in storages}
    for storage, landing in itertools.product(storages, landings):
        build = ours(storage=storage, landing=landing)
        found[f"bfloat16 {storage} {landing}"] = Contestant(build, "bfloat16")
    if without_kernels:
        found |= {f"{k}, XLA": x._replace(kernels=False) for k, x in found.items()}
    reference = names.reference(recipe)
    theirs = Contestant(lambda: names.theirs(reference, learning_rate=LEARNING_RATE))
    return found | {"optax": theirs}


def _avals(tree: shapes.Shapes, entry: Contestant) -> Any:
    return {name: jax.ShapeDtypeStruct(shape, entry.dtype) for name, shape in tree.items()}


def _collect_one_off_costs(
    samples: Samples, entries: Mapping[str, Contestant], tree: shapes.Shapes, repeats: int
) -> None:
    for entry in entries.values():
        scalar = jax.ShapeDtypeStruct((), entry.dtype)
        one_off_costs(entry.build, scalar)  # excludes what is imported or built at first use
    for i in range(repeats):
        for name in list(entries)[:: 1 if i % 2 else -1]:
            with kernels.using(entries[name].kernels):
                found = one_off_costs(entries[name].build, _avals(tree, entries[name]))
            for measure, value in found.items():
                samples[name].setdefault(measure, []).append(value)


def _collect_steps(
    samples: Samples,
    entries: Mapping[str, Contestant],
    recipe: str,
    grads: dict[str, np.ndarray],
    repeats: int,
) -> None:
    calls = _started(entries, grads, _whole_step)
    calls |= dict([fused] if (fused := torch_step(recipe, grads)) else [])
    calls[PASS] = _pass_over(grads)
    seconds = in_turn(calls, repeats)
    passes = [8 * sum(g.size for g in grads.values()) / s for s in seconds.pop(PASS)]
    for name, taken in seconds.items():
        samples.setdefault(name, {})["jitted step"] = taken
        moved = _bytes(entries[name], grads) if name in entries else 28 * _count(grads)
        samples[name]["bandwidth"] = [moved / s / p for s, p in zip(taken, passes, strict=True)]
    calls.clear()
    gc.collect()


def _collect(
    samples: Samples,
    entries: Mapping[str, Contestant],
    grads: dict[str, np.ndarray],
    repeats: int,
    measure: str,
    start: Callable[..., Callable[[], None]],
) -> None:
    calls = _started(entries, grads, start)
    for name, seconds in in_turn(calls, repeats).items():
        samples[name][measure] = seconds
    calls.clear()
    gc.collect()


def _started(
    entries: Mapping[str, Contestant], grads: Any, start: Callable[..., Callable[[], None]]
) -> dict[str, Callable[[], None]]:
    """Calls that take one step after the other. Only the gradients lie in memory once for all."""
    dtypes = {entry.dtype for entry in entries.values()}
    held = {x: {k: jnp.asarray(g, x) for k, g in grads.items()} for x in dtypes}
    return {k: _call(x, start(x.build(), held[x.dtype])) for k, x in entries.items()}


def _call(entry: Contestant, step: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        with kernels.using(entry.kernels):
            step()

    return call


PASS = "a pass over memory"


def _pass_over(grads: Any) -> Callable[[], None]:
    """Reads and writes an array as large as the parameters, in its place."""
    array = jnp.zeros(_count(grads), jnp.float32)
    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def call() -> None:
        nonlocal array
        array = jax.block_until_ready(add(array))

    return call


def _count(grads: Any) -> int:
    return sum(g.size for g in jax.tree.leaves(grads))


def _bytes(entry: Contestant, grads: Any) -> int:
    """The fewest bytes that a step reads and writes."""
    like = _avals({k: g.shape for k, g in grads.items()}, entry)
    state = jax.eval_shape(entry.build().init, like)
    moved = [*jax.tree.leaves(state), *jax.tree.leaves(like)] * 2 + jax.tree.leaves(like)
    return sum(x.size * x.dtype.itemsize for x in moved)


def _whole_step(opt: optax.GradientTransformation, grads: optax.Updates) -> Callable[[], None]:
    return _stepping(jit_step(opt), opt, grads)


def _update_and_apply(opt: optax.GradientTransformation, grads: Any) -> Callable[[], None]:
    """`opt.update` and `optax.apply_updates` on gradients that the same program makes, as in
    training: they are in memory, and may be overwritten."""
    step = step_of(opt)

    def with_gradients(params: Any, state: Any, grads: Any) -> Any:
        return step(params, state, jax.tree.map(_product, grads))

    return _stepping(jax.jit(with_gradients, donate_argnums=(0, 1)), opt, grads)


def _product(g: jax.Array) -> jax.Array:
    """A matrix of rank two like `g`: what XLA multiplies it does not fuse into what comes after."""
    if g.ndim < 2:
        return g
    columns = g.reshape(-1, g.shape[-1])[:, :2]
    return jnp.dot(columns, jnp.ones((columns.shape[1], g.shape[-1]), g.dtype)).reshape(g.shape)


def _stepping(step: Any, opt: optax.GradientTransformation, grads: Any) -> Callable[[], None]:
    params = jax.tree.map(jnp.zeros_like, grads)
    state = opt.init(params)

    def call() -> None:
        nonlocal params, state
        params, state = jax.block_until_ready(step(params, state, grads))

    return call


def _eager_update(opt: optax.GradientTransformation, grads: Any) -> Callable[[], None]:
    params = jax.tree.map(jnp.zeros_like, grads)
    state = opt.init(params)

    def call() -> None:
        nonlocal state
        _, state = jax.block_until_ready(opt.update(grads, state, params))

    return call
