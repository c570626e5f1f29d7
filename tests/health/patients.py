# SPDX-License-Identifier: Apache-2.0
"""A small model that learns which word follows which, and runs of it with one problem each."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx
from adamx import health
from adamx.health import trend
from adamx.health.states import CountedState, LossScaleState, ObserveState, SkipState, nodes
from tests.health.test_faults import SUCCESSOR, WORDS, loss_fn, model

STEPS, SEEDS = 320, 20
LEAVES = len(jax.tree.leaves(model(0)))
# The end of a run on which a guard acts, and when a lasting fault begins.
LAST, BEGIN = STEPS - 8, 100


def healthy(seed: int) -> dict[str, Any]:
    """The knobs of a run without a problem."""
    return {
        "rate": 1e-2,
        "eps": 1e-8,
        "loss": 1.0,  # what the loss is multiplied by
        "growth": 1.0,  # the factor per step by which gradients grow
        "times": np.ones(LEAVES),  # what the gradient of a leaf is multiplied by, from `since` on
        "plus": np.zeros(LEAVES),  # and what is added to it
        "keep": np.ones(LEAVES),  # what parameters are multiplied by, after each step from then on
        "since": BEGIN,
        "until": STEPS,
        "dead": 0,  # how many words get no gradient any more, from step 60 on
        "noise": 0.1,  # the share of labels that are drawn at random
    }


def _one(value: float, rest: float, leaf: int) -> np.ndarray:
    return np.where(np.arange(LEAVES) == leaf, value, rest)


# For each rule: the setup, and the knobs from a random generator and a leaf.
PROBLEMS: dict[str, tuple[str, Any]] = {
    "not finite": (
        "plain",
        lambda rng, leaf: {"plus": _one(np.nan, 0, leaf), "since": rng.integers(20, 300)},
    ),
    "no gradient": ("plain", lambda rng, leaf: {"times": _one(0, 1, leaf)}),
    "no steps": ("plain", lambda rng, leaf: {"rate": 0.0}),
    "diverged": ("plain", lambda rng, leaf: {"rate": rng.uniform(0.5, 2)}),
    "all zero": ("plain", lambda rng, leaf: {"keep": _one(0, 1, leaf)}),
    "lost updates": ("bfloat16", lambda rng, leaf: {"rate": 10 ** rng.uniform(-5, -4)}),
    "under epsilon": ("plain", lambda rng, leaf: {"loss": 10 ** rng.uniform(-9, -7)}),
    "at ceiling": ("int8", lambda rng, leaf: {"loss": 10 ** rng.uniform(5, 8)}),
    "at floor": ("int8", lambda rng, leaf: {"loss": 10 ** rng.uniform(-10, -8), "eps": 1e-16}),
    "long steps": ("plain", lambda rng, leaf: {"rate": rng.uniform(0.1, 0.5)}),
    "short steps": ("plain", lambda rng, leaf: {"rate": 10 ** rng.uniform(-9, -7)}),
    "drift": ("plain", lambda rng, leaf: {"growth": rng.uniform(1.02, 1.05)}),
    "all noise": ("plain", lambda rng, leaf: {"noise": 1.0, "rate": 1e-3}),
    "idle": ("plain", lambda rng, leaf: {"dead": rng.integers(8, WORDS)}),
    "stalled": (
        "plain",
        lambda rng, leaf: {"times": _one(10 ** rng.uniform(4, 6), 1, leaf), "until": BEGIN + 1},
    ),
    "always clipped": ("clipped", lambda rng, leaf: {}),
    "spikes": ("guarded", lambda rng, leaf: {"times": _one(1e6, 1, leaf), "since": LAST}),
    "loss scale": (
        "scaled",
        lambda rng, leaf: {"times": _one(np.inf, 1, leaf), "until": BEGIN + rng.integers(17, 40)},
    ),
    "skipped": ("guarded", lambda rng, leaf: {"plus": _one(np.nan, 0, leaf), "since": LAST}),
}


def knobs(rule: str, seed: int) -> dict[str, Any]:
    """The knobs of one run with the problem that the rule is for."""
    rng = np.random.default_rng([seed, list(PROBLEMS).index(rule)])
    return healthy(seed) | PROBLEMS[rule][1](rng, int(rng.integers(LEAVES)))


def histories(setup: str, runs: list[dict[str, Any]]) -> list[list[dict[str, float]]]:
    """The logs of many runs at once, run i with seed i."""
    stacked = {k: jnp.asarray(np.array([run[k] for run in runs]), _dtype(k)) for k in runs[0]}
    found = jax.device_get(_trained(setup, jnp.arange(len(runs)), stacked))
    return [
        [{"step": t + 1} | {k: float(x[i, t]) for k, x in found.items()} for t in range(STEPS)]
        for i in range(len(runs))
    ]


def _dtype(name: str) -> Any:
    return jnp.int32 if name in ("since", "until", "dead") else jnp.float32


def _optimizer(setup: str, knob: dict[str, jax.Array]) -> Any:
    storage = "int8" if setup == "int8" else "float32"
    opt = adamx.adamw(knob["rate"], eps=knob["eps"], storage=storage)
    if setup == "clipped":
        opt = optax.chain(health.counted(adamx.clip_by_global_norm(1e-3)), opt)
    if setup == "guarded":
        opt = health.skip_spikes(health.skip_nonfinite(opt))
    opt = health.observe(opt, per_leaf=True)
    return health.scale_loss(opt) if setup == "scaled" else opt


@functools.partial(jax.jit, static_argnums=0)
def _trained(setup: str, seeds: jax.Array, knobs: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return jax.vmap(lambda seed, knob: _run(setup, seed, knob))(seeds, knobs)


def _run(setup: str, seed: jax.Array, knob: dict[str, jax.Array]) -> dict[str, jax.Array]:
    dtype = jnp.bfloat16 if setup == "bfloat16" else jnp.float32
    first, rest = jax.random.split(jax.random.key(seed))
    params = _drawn(first, dtype)
    opt = _optimizer(setup, knob)

    def step(carry: Any, at: tuple[jax.Array, jax.Array]) -> tuple[Any, dict[str, jax.Array]]:
        (params, state), (t, key) = carry, at
        batch = _batch(key, knob["noise"])

        def loss(p: Any) -> tuple[jax.Array, jax.Array]:
            value = loss_fn(p, batch)
            told = health.scaled(value, state) if setup == "scaled" else value
            return told * knob["loss"], value

        grads, value = jax.grad(loss, has_aux=True)(params)
        grads = _faulty(grads, knob, t)
        params, state = adamx.step(opt, params, state, grads)
        lasts = (t >= knob["since"]) & (t < knob["until"])
        params = _each(
            lambda p, k: jnp.where(lasts, p * k.astype(p.dtype), p), params, knob["keep"]
        )
        return (params, state), {"loss": value, **read(state)}

    begin = params, opt.init(params)
    _, figures = jax.lax.scan(step, begin, (jnp.arange(STEPS), jax.random.split(rest, STEPS)))
    return figures


def _faulty(grads: Any, knob: dict[str, jax.Array], t: jax.Array) -> Any:
    lasts = (t >= knob["since"]) & (t < knob["until"])
    growth = knob["growth"] ** t.astype(jnp.float32)
    grads = _each(
        lambda g, k: g * (growth * jnp.where(lasts, k, 1)).astype(g.dtype), grads, knob["times"]
    )
    grads = _each(lambda g, k: g + jnp.where(lasts, k, 0).astype(g.dtype), grads, knob["plus"])
    dead = (jnp.arange(WORDS) < knob["dead"]) & (t >= 60)
    return {**grads, "embed": jnp.where(dead[:, None], 0, grads["embed"])}


def _each(change: Any, tree: Any, values: jax.Array) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    return treedef.unflatten([change(x, values[i]) for i, x in enumerate(leaves)])


def _drawn(key: jax.Array, dtype: Any) -> Any:
    leaves, treedef = jax.tree.flatten(model(0))
    keys = jax.random.split(key, len(leaves))
    # Each leaf of the usual size, but drawn anew.
    drawn = [
        jnp.std(x) * jax.random.normal(k, x.shape, jnp.float32)
        for k, x in zip(keys, leaves, strict=True)
    ]
    return treedef.unflatten([x.astype(dtype) for x in drawn])


def _batch(key: jax.Array, noise: jax.Array) -> dict[str, jax.Array]:
    words, which, other = jax.random.split(key, 3)
    x = jax.random.randint(words, (64,), 0, WORDS)
    drawn = jax.random.randint(other, (64,), 0, WORDS)
    is_noise = jax.random.uniform(which, (64,)) < noise
    return {"x": x, "y": jnp.where(is_noise, drawn, jnp.asarray(SUCCESSOR)[x])}


def read(state: Any) -> dict[str, jax.Array]:
    """As `health.read`, but traced."""
    found: dict[str, Any] = {}
    for node in nodes(state):
        match node:
            case ObserveState():
                found |= node.figures | trend.figures(node.trend)
            case SkipState():
                found["skipped_in_a_row" if node.usual is None else "spikes_in_a_row"] = (
                    node.in_a_row
                )
            case CountedState():
                found["clip_rate"] = node.rate
            case LossScaleState():
                found["loss_scale"] = node.scale
    return {k: jnp.asarray(x, jnp.float32) for k, x in found.items()}
