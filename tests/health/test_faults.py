# SPDX-License-Identifier: Apache-2.0
"""Faults at random in a training run: each is noticed, named by its leaf, and survived."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamx
from adamx import health, parallel
from adamx.core import paths
from tests.parallel.test_check_replicas import with_a_flipped_bit

WIDTH, WORDS, STEPS = 24, 48, 520
SUCCESSOR = np.random.default_rng(7).permutation(WORDS)


def model(seed):
    rng = np.random.default_rng(seed)

    def normal(*shape, scale):
        return jnp.asarray(scale * rng.normal(size=shape), jnp.float32)

    layers = {
        f"layer{i}": {
            "kernel": normal(WIDTH, WIDTH, scale=WIDTH**-0.5),
            "bias": normal(WIDTH, scale=0.01),
        }
        for i in range(2)
    }
    return {
        "embed": normal(WORDS, WIDTH, scale=0.3),
        **layers,
        "head": normal(WIDTH, WORDS, scale=0.3),
    }


def loss_fn(params, batch, dtype=jnp.float32):
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    hidden = params["embed"][batch["x"]]
    for i in range(2):
        layer = params[f"layer{i}"]
        hidden = hidden + jnp.tanh(hidden @ layer["kernel"] + layer["bias"])
    logits = (hidden @ params["head"]).astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()


def batch(seed, step, size=64):
    """Words and, but for one in ten, their successors."""
    rng = np.random.default_rng([seed, step])
    x = rng.integers(0, WORDS, size)
    y = np.where(rng.random(size) < 0.1, rng.integers(0, WORDS, size), SUCCESSOR[x])
    return {"x": x.astype(np.int32), "y": y.astype(np.int32)}


HELD_OUT = batch(1234, 0, 2000)


def guarded():
    inner = optax.chain(health.counted(adamx.clip_by_global_norm(1.0)), adamx.adamw(1e-2))
    guards = health.observe(health.skip_spikes(health.skip_nonfinite(inner)), per_leaf=True)
    guards = health.scale_loss(guards, 2.0**15, growth_interval=100)
    return health.rewind(guards, every=20, patience=3, slow_steps=20)


def of_optax():
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))
    return optax.apply_if_finite(inner, max_consecutive_errors=3)


# Kinds of faults: what a leaf's gradient is multiplied by, what is added to one of its elements.
GRADIENTS = {
    "nan": (1, np.nan),
    "inf": (1, np.inf),
    "nan for long": (1, np.nan),
    "spike": (1e6, 0),
    "dead row": (1, 0),
}
PARAMETERS = ("zero layer", "flipped bit")
KINDS = (*GRADIENTS, *PARAMETERS, "overflow")
LASTS = {"nan for long": 8, "dead row": 1000, "flipped bit": 1}


def drawn(seed):
    """One fault of each kind, well apart: its first step and its leaf."""
    rng = np.random.default_rng([seed, 99])
    names = paths.names(model(0))
    starts = 60 + 50 * rng.permutation(len(KINDS)) + rng.integers(0, 10, len(KINDS))
    starts[KINDS.index("dead row")] = 60  # which takes its time to show
    faults = {}
    for kind, start in zip(KINDS, starts, strict=True):
        among = [name for name in names if name.endswith("kernel")] if kind in PARAMETERS else names
        faults[kind] = int(start), "embed" if kind == "dead row" else str(rng.choice(among))
    return faults


@functools.cache
def on_gradients(active):
    """What gradients are multiplied by, and what is added."""
    names, (leaves, treedef) = paths.names(model(0)), jax.tree.flatten(model(0))
    times, plus = ([np.full(x.shape, v, np.float32) for x in leaves] for v in (1, 0))
    for kind, leaf in active:
        if kind in GRADIENTS:
            at = names.index(leaf)
            times[at] *= GRADIENTS[kind][0]
            plus[at][(0,) * plus[at].ndim] += GRADIENTS[kind][1]
            if kind == "dead row":
                times[at][5] = 0
    return jax.device_put((treedef.unflatten(times), treedef.unflatten(plus)))


def on_parameters(active, params):
    names, (leaves, treedef) = paths.names(params), jax.tree.flatten(params)
    for kind, leaf in active:
        x = np.array(leaves[names.index(leaf)])
        if kind == "zero layer":
            x[:] = 0
        if kind == "flipped bit":  # the highest of the exponent
            x.view(np.uint32)[3, 4] ^= 1 << 30
        leaves[names.index(leaf)] = jnp.asarray(x)
    return treedef.unflatten(leaves)


@functools.cache
def compiled(make):
    opt = make()

    @jax.jit
    def step(params, state, data, times, plus, scale):
        def loss(p):  # forward in half precision, in which a loss too large overflows
            value = loss_fn(p, data, jnp.float16)
            return health.scaled(value, state) * scale, value

        (_, value), grads = jax.value_and_grad(loss, has_aux=True)(params)
        grads = jax.tree.map(lambda g, t, p: g * t + p, grads, times, plus)
        return *adamx.step(opt, params, state, grads, value=value), value

    return opt, step


def trained(make, seed, faults):
    """The final loss; for each fault the figures before, those after, and the state after."""
    opt, step = compiled(make)
    params = model(seed)
    state, seen = opt.init(params), {}
    for i in range(STEPS):
        active = tuple(
            (kind, leaf)
            for kind, (start, leaf) in faults.items()
            if start <= i < start + LASTS.get(kind, 1)
        )
        watched = [kind for kind, _ in active if kind != "dead row"] + ["end"] * (i == STEPS - 1)
        before = health.read(state) if watched else {}
        if {kind for kind, _ in active} & set(PARAMETERS):
            params = on_parameters([f for f in active if f[0] in PARAMETERS], params)
        scale = 1e6 if "overflow" in watched else 1.0
        params, state, _ = step(
            params, state, batch(seed, i), *on_gradients(active), jnp.float32(scale)
        )
        for kind in watched:
            seen[kind] = seen.get(kind, (before,))[0], health.read(state), state
    return float(loss_fn(params, HELD_OUT)), seen


@functools.cache
def clean(make):
    return [trained(make, seed, {})[0] for seed in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_every_fault_is_noticed_named_and_survived(seed):
    faults = drawn(seed)
    loss, seen = trained(guarded, seed, faults)

    def grew(kind, counter):
        before, after, _ = seen[kind]
        return after[counter] > before[counter]

    for kind in ("nan", "inf", "nan for long", "overflow"):
        assert grew(kind, "overflows"), kind
        assert (
            kind == "overflow" or health.first_bad(seen[kind][2].inner, model(0)) == faults[kind][1]
        )
    assert grew("spike", "spikes")
    spikes = seen["spike"][2].inner.inner.inner
    assert health.first_bad(spikes, model(0)) == faults["spike"][1]
    said = [str(finding) for finding in health.doctor(seen["zero layer"][2])]
    assert any(f"`{faults['zero layer'][1]}`: all parameters are zero" in s for s in said)
    assert seen["end"][1]["rewinds"] > 0  # after the bit
    assert seen["end"][1]["idle/embed"] == pytest.approx(1 / WORDS)
    mean, noise = np.mean(clean(guarded)), np.std(clean(guarded), ddof=1)
    assert loss < mean + 3 * noise
    # Optax's guard lets the NaN in once its patience is over, and knows nothing of the rest.
    with jax.numpy_dtype_promotion("standard"):
        assert not trained(of_optax, seed, faults)[0] < mean + 3 * noise


def test_a_flipped_bit_in_a_replica_is_found_and_survived():
    opt = adamx.adamw(1e-2)
    train = parallel.data_parallel(loss_fn, opt, model(0), how="jit")
    run, plain = train.init(model(0)), train.init(model(0))
    kept, said = train.collect(run), []
    for i in range(40):
        data = batch(0, i)
        run, plain = train.step(run, data)[0], train.step(plain, data)[0]
        if i == 15:
            head = with_a_flipped_bit(run.params["head"], jax.devices()[3])
            run = run._replace(params={**run.params, "head": head})
        if i % 5 == 0:
            try:
                parallel.check_replicas(run)
                kept = train.collect(run)
            except ValueError as error:
                said.append(str(error))
                run = train.spread(kept)
    assert len(said) == 1
    assert "params/head: the copy of" in said[0]
    parallel.check_replicas(run)
    there, here = (float(loss_fn(train.collect(r).params, HELD_OUT)) for r in (run, plain))
    assert there == pytest.approx(here, abs=0.2)  # it has missed five of forty steps
