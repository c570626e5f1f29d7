# SPDX-License-Identifier: Apache-2.0
"""The few lines of the large JAX trainers that touch an optimizer, re-enacted with ours.

What each of them needs is written beside its test: nothing, a registration, or entries.
"""

import dataclasses
import inspect
import re
from typing import Any, NamedTuple

import equinox as eqx
import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import adamx
from adamx import health, interop
from adamx.core import paths
from tests.cases import form

STORAGES = ("float32", "bfloat16", "int8", "int4")
SCHEDULE = optax.linear_schedule(1e-2, 0.0, 10)

every_storage = pytest.mark.parametrize("storage", STORAGES)


@pytest.fixture(autouse=True)
def as_trainers_do():
    """They mix dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = {"dense": {"kernel": (8, 4), "bias": (4,)}, "norm": {"scale": (4,)}}
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s), dtype), shapes, is_leaf=lambda x: type(x) is tuple
    )


def trained(opt, p, steps=3, **extra):
    state, update = opt.init(p), jax.jit(opt.update)
    for _ in range(steps):
        updates, state = update(p, state, p, **extra)
        p = optax.apply_updates(p, updates)
    return p, state


# MaxText: `optax.adamw` with these arguments, a frozen part by `multi_transform`: a registration
# gives it ours. ZeRO-1 takes shardings from `opt_state` or `opt_state[0]` if that is a
# `ScaleByAdamState`, which int4's is not, or (later versions) from a node with `mu` and `nu`.


class MaxTextConfig(NamedTuple):
    adam_b1: float = 0.9
    adam_b2: float = 0.95
    adam_eps: float = 1e-8
    adam_eps_root: float = 0.0
    adam_weight_decay: float = 0.1
    mu_dtype: Any = None


def maxtext_optimizer(config):
    return optax.adamw(
        SCHEDULE,
        b1=config.adam_b1,
        b2=config.adam_b2,
        eps=config.adam_eps,
        eps_root=config.adam_eps_root,
        weight_decay=config.adam_weight_decay,
        mu_dtype=config.mu_dtype,
        mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p),
    )


def maxtext_zero_source(opt_state):
    node = opt_state if hasattr(opt_state, "mu") else opt_state[0]
    assert hasattr(node, "mu")
    assert hasattr(node, "nu")
    return node.mu, node.nu


@every_storage
def test_maxtext(storage):
    with adamx.register(optax, storage=storage):
        opt = maxtext_optimizer(MaxTextConfig())
    mesh = Mesh(np.array(jax.devices()), ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))
    p = params()
    p["dense"]["kernel"] = jax.device_put(p["dense"]["kernel"], split)
    state = opt.init(p)
    for tree in maxtext_zero_source(state):
        assert jax.tree.structure(tree) == jax.tree.structure(p)
        assert tree["dense"]["kernel"].sharding == split
    assert isinstance(state[0], optax.ScaleByAdamState) == (storage != "int4")
    moved, _ = trained(opt, p)
    assert np.all(np.isfinite(moved["dense"]["kernel"]))


def test_maxtext_trains_a_part():
    with adamx.register(optax):
        inner = maxtext_optimizer(MaxTextConfig())
    labels = {"dense": {"kernel": "trainable", "bias": "frozen"}, "norm": {"scale": "frozen"}}
    opt = optax.multi_transform({"trainable": inner, "frozen": optax.set_to_zero()}, labels)
    moved, state = trained(opt, params())
    np.testing.assert_array_equal(moved["dense"]["bias"], params()["dense"]["bias"])
    assert len([x for x in jax.tree.leaves(state) if x.ndim]) == 2


def test_maxtext_skips_spikes():
    """Its `skip_step_on_spikes(opt, 128, 6.0)`, called with `loss` and `grad_norm`."""
    opt = health.skip_outliers(adamx.adamw(1e-2), window=128, sigmas=6.0)
    p = params()
    state, update = opt.init(p), jax.jit(opt.update)
    rng = np.random.default_rng(1)
    for loss in [*rng.normal(2.0, 0.1, 70), 9.0]:
        updates, state = update(p, state, p, loss=jnp.float32(loss), grad_norm=jnp.float32(1.0))
    assert int(state.total) == 1
    assert not np.any(updates["dense"]["kernel"])


# T5X: every state class whose name ends in `State` needs an entry. Optax's own are there.


class T5xRules:
    """As its table, for the classes of Optax that ours need."""

    def __init__(self):
        self.rules = {
            optax.EmptyState: lambda state, axes: optax.EmptyState(),
            optax.ScaleByAdamState: lambda state, axes: optax.ScaleByAdamState(None, axes, axes),
            optax.ScaleByScheduleState: lambda state, axes: optax.ScaleByScheduleState(None),
        }

    def derive(self, state, axes):
        def is_state(x):
            return (
                isinstance(x, tuple) and hasattr(x, "_fields") and type(x).__name__[-5:] == "State"
            )

        def one(x):
            if type(x) in self.rules:
                return self.rules[type(x)](x, axes)
            if is_state(x):
                raise ValueError(f"unregistered {type(x).__name__}")
            return None

        leaves, treedef = jax.tree.flatten(state, is_leaf=is_state)
        return treedef.unflatten([one(x) for x in leaves])


T5X = {
    "int4": lambda: adamx.adamw(1e-2, storage="int4"),
    "mixed": lambda: adamx.adamw(1e-2, storage={"*/kernel": "int4", "*": "float32"}),
    "exact": lambda: adamx.adamw(1e-2, storage="int8", landing="exact"),
    "stochastic": lambda: adamx.adam(1e-2, landing="stochastic"),
    "amsgrad": lambda: adamx.amsgrad(1e-2),
    "lion": lambda: adamx.lion(SCHEDULE, weight_decay=SCHEDULE),
    "adan": lambda: adamx.adan(1e-2),
    "ademamix": lambda: adamx.ademamix(1e-2),
    "average": lambda: interop.keras.adam(use_ema=True),
    "guarded": lambda: health.scale_loss(
        health.observe(health.skip_outliers(health.skip_nonfinite(adamx.adam(1e-2))))
    ),
}


@pytest.mark.parametrize("build", T5X.values(), ids=T5X)
def test_t5x(build):
    state = jax.eval_shape(build().init, params(jnp.bfloat16))
    axes = {"dense": {"kernel": "embed, mlp", "bias": "mlp"}, "norm": {"scale": "mlp"}}
    table = T5xRules()
    with pytest.raises(ValueError, match=r"unregistered \w+State"):
        table.derive(state, axes)
    table.rules.update(interop.t5x_rules(table.derive))
    found = table.derive(state, axes)
    given = dict(jax.tree_util.tree_flatten_with_path(found)[0])
    known = {("dense", "kernel"): "embed, mlp", ("dense", "bias"): "mlp", ("norm", "scale"): "mlp"}
    for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]:
        words = tuple(paths.name(path).split("/")[-2:])  # of a figure or a counter: no parameter's
        assert given.pop(path, None) == known.get(words), path
    assert not given


# axlearn: `init({})` to see the structure, moments declared in the parameters' dtype (so bfloat16
# parameters need `storage="bfloat16"`), the state moved to another memory and back around `update`.


def test_axlearn():
    p = params(jnp.bfloat16)
    with adamx.register(optax, storage="bfloat16"):
        opt = optax.chain(optax.scale_by_adam(b1=0.9, b2=0.95), optax.scale(-1e-2))
    assert jax.tree.leaves(opt.init({}))[0].shape == ()
    declared = jax.tree.map(lambda x: (x.shape, x.dtype), p)
    state = opt.init(p)
    for tree in (state[0].mu, state[0].nu):
        assert jax.tree.map(lambda x: (x.shape, x.dtype), tree) == declared

    kinds = [memory.kind for memory in jax.devices()[0].addressable_memories()]
    here = jax.tree.leaves(state)[0].sharding

    @jax.jit
    def step(p, state):
        state = jax.device_put(state, here)
        updates, state = opt.update(p, state, p)
        return optax.apply_updates(p, updates), state

    for kind in kinds:
        there = jax.device_put(state, here.with_memory_kind(kind))
        moved, after = step(p, there)
        want, want_state = step(p, state)
        jax.tree.map(np.testing.assert_array_equal, (moved, after), (want, want_state))


# Tunix, big_vision: `getattr(optax, name)`, in `inject_hyperparams`, or in a chain of schedules.


@every_storage
def test_tunix(storage):
    """Takes from its settings what the signature names, and runs in an `nnx.Optimizer`, whose
    floats it casts back to the dtypes that they had; the rate it reads from the state."""
    settings = {"b1": 0.9, "b2": 0.99, "weight_decay": 0.1, "storage": storage, "warmup": 3}
    with adamx.register(optax):
        build = getattr(optax, "adamw")  # noqa: B009
    signature = inspect.signature(build).parameters
    arguments = {k: v for k, v in settings.items() if k in signature}
    opt = optax.inject_hyperparams(build, hyperparam_dtype=jnp.float32)(
        learning_rate=SCHEDULE, **arguments
    )
    model = nnx.Linear(8, 4, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16)
    holder = nnx.Optimizer(model, optax.chain(optax.clip_by_global_norm(1.0), opt), wrt=nnx.Param)
    dtypes = jax.tree.map(lambda x: x.dtype, nnx.state(holder))

    @nnx.jit
    def step(model, holder):
        holder.update(model, nnx.grad(lambda m: jnp.sum(m(jnp.ones((2, 8))) ** 2))(model))

    for _ in range(3):
        step(model, holder)
    assert jax.tree.map(lambda x: x.dtype, nnx.state(holder)) == dtypes
    assert holder.opt_state[1].hyperparams["learning_rate"][...] == np.float32(SCHEDULE(2))
    assert np.all(np.isfinite(model.kernel[...].astype(np.float32)))


def test_big_vision():
    p = params()
    config = {
        "optax_name": "scale_by_adam",
        "optax": {"b2": 0.95, "mu_dtype": "bfloat16"},
        "wd": 0.1,
    }
    masks = [{"dense": {"kernel": k, "bias": k}, "norm": {"scale": not k}} for k in (True, False)]

    def make():
        return optax.chain(
            optax.clip_by_global_norm(1.0),
            getattr(optax, config["optax_name"])(**config["optax"]),
            optax.add_decayed_weights(0.1),
            *[optax.masked(optax.scale_by_schedule(SCHEDULE), mask) for mask in masks],
            optax.scale(-1.0),
        )

    with adamx.register(optax):
        opt = make()
    moved, state = trained(opt, p)
    want, their_state = trained(make(), p)
    assert form(state) == form(their_state)
    # Of steps of 1e-2, what a mean in bfloat16 may be off.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), moved, want)
    found = [x for x in jax.tree.leaves(state, is_leaf=_is_adam) if _is_adam(x)]
    assert len(found) == 1


def _is_adam(x):
    return isinstance(x, optax.ScaleByAdamState)


# Levanter: `inject_hyperparams` around a chain that it builds, leaves in haliax's `NamedArray`, and
# the loss, as a number and as a function, among the extra arguments.


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class NamedArray:
    """An array with names of its axes, which are static."""

    array: Any
    axes: tuple[str, ...]

    def tree_flatten_with_keys(self):
        return [(jax.tree_util.GetAttrKey("array"), self.array)], self.axes

    @classmethod
    def tree_unflatten(cls, axes, children):
        return cls(children[0], axes)


@every_storage
def test_levanter(storage):
    p = params()
    p["dense"]["kernel"] = NamedArray(p["dense"]["kernel"], ("embed", "mlp"))
    p["norm"]["scale"] = NamedArray(p["norm"]["scale"], ("mlp",))

    def build(learning_rate):
        mask = jax.tree.map(lambda x: x.ndim > 1, p)
        return optax.chain(
            optax.clip_by_global_norm(1.0),
            adamx.scale_by_adam(0.9, 0.95, 1e-8, storage=storage),
            optax.add_decayed_weights(0.1, mask),
            optax.scale(-learning_rate),
        )

    opt = optax.inject_hyperparams(build)(learning_rate=SCHEDULE)
    state = opt.init(p)

    @jax.jit
    def step(p, state):
        def again(model):
            return jnp.sum(model["dense"]["kernel"].array)

        updates, state = opt.update(p, state, params=p, obj_fn=again, loss=again(p))
        return optax.apply_updates(p, updates), state

    moved, state = step(*step(p, state))
    assert moved["dense"]["kernel"].axes == ("embed", "mlp")
    assert state.inner_state[1].mu["dense"]["kernel"].axes == ("embed", "mlp")
    kept = adamx.adam(1e-2, storage={"*/kernel/array": "int8", "*": "float32"}).init(p)
    assert kept[0].nu["dense"]["kernel"].array.dtype == jnp.uint8


# EasyDeL: keyword arguments, `init` compiled for shards that regular expressions over the paths of
# the state give it.


@pytest.mark.parametrize("landing", ["nearest", "exact"])
@every_storage
def test_easydel(storage, landing):
    p = params(jnp.bfloat16)
    opt = optax.chain(
        optax.clip_by_global_norm(1.0), adamx.adamw(1e-2, storage=storage, landing=landing)
    )
    state = opt.init(p)
    updates, state = opt.update(updates=p, state=state, params=p)
    assert jax.tree.structure(updates) == jax.tree.structure(p)
    rules = [(r"kernel", "2d"), (r"(bias|scale)", "1d"), (r".*", "replicated")]
    for path, x in jax.tree_util.tree_flatten_with_path(state)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found = next(spec for pattern, spec in rules if re.search(pattern, name))
        assert found == {0: "replicated", 1: "1d", 2: "2d"}[x.ndim], name
    mesh = Mesh(np.array(jax.devices()), ("fsdp",))
    shards = jax.tree.map(
        lambda x: NamedSharding(mesh, PartitionSpec(*["fsdp"] * (x.ndim == 2))),
        jax.eval_shape(opt.init, p),
        is_leaf=lambda x: hasattr(x, "ndim"),
    )
    placed = jax.jit(opt.init, out_shardings=shards)(p)
    assert jax.tree.map(lambda x: x.sharding, placed) == shards


# Brax: `update(grads, state)` without parameters, in a scan. Decay and landings need parameters.
# Its adaptive rate, by the divergence of policies, is written into the state between two steps.


@every_storage
def test_brax(storage):
    opt, p = adamx.adam(1e-2, storage=storage), params()

    @jax.jit
    def run(p, state):
        def step(carry, _):
            p, state = carry
            updates, state = opt.update(p, state)
            return (optax.apply_updates(p, updates), state), None

        return jax.lax.scan(step, (p, state), None, 3)[0]

    moved, _ = run(p, opt.init(p))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), moved, trained(opt, p)[0]
    )
    for needy in (adamx.adamw(1e-2), adamx.adam(1e-2, landing="exact")):
        with pytest.raises(ValueError, match="needs the parameters"):
            needy.update(p, needy.init(p))


@every_storage
def test_brax_adapts_the_rate(storage):
    with adamx.register(optax, storage=storage):
        opt = optax.inject_hyperparams(optax.adam)(learning_rate=1e-2)
    opt, p = optax.chain(optax.clip_by_global_norm(1.0), opt), params()

    @jax.jit
    def step(p, state, factor):
        updates, state = opt.update(p, state)
        rates = state[-1].hyperparams
        rates["learning_rate"] = rates["learning_rate"] * factor
        return updates, state

    def second(factor):
        _, state = step(p, opt.init(p), factor)
        return step(p, state, 1.0)[0]

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b / 1.5, rtol=1e-6), second(1 / 1.5), second(1.0)
    )


# Kauldron: `init`, `update` and `apply_updates` in one jit.


@every_storage
def test_kauldron(storage):
    opt, p = adamx.adamw(SCHEDULE, storage=storage, landing="exact"), params(jnp.bfloat16)

    @jax.jit
    def first(p):
        state = opt.init(p)
        updates, state = opt.update(p, state, p)
        return optax.apply_updates(p, updates), state

    moved, state = first(p)
    want, want_state = trained(opt, p, 1)
    assert form(state) == form(want_state)
    weights, others = (adamx.master_params(s, p) for s, p in ((state, moved), (want_state, want)))
    # A step may be fused into its addition in one of the two programs.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), weights, others)


# The frameworks themselves, beyond what tests/laws/test_frameworks.py has.


@every_storage
def test_train_state_of_linen(storage):
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(1)(linen.LayerNorm()(linen.Dense(4)(x)))

    model, x = Model(), jnp.ones((2, 3))
    p = model.init(jax.random.key(0), x)["params"]
    opt = adamx.adamw(1e-2, storage=storage, mask="!*/bias|*/scale")
    state = flax.training.train_state.TrainState.create(apply_fn=model.apply, params=p, tx=opt)

    @jax.jit
    def step(state):
        loss, grads = jax.value_and_grad(lambda p: jnp.sum(state.apply_fn({"params": p}, x) ** 2))(
            state.params
        )
        return state.apply_gradients(grads=grads), loss

    losses = []
    for _ in range(5):
        state, loss = step(state)
        losses.append(float(loss))
    assert int(state.step) == 5
    assert losses[-1] < losses[0]


@every_storage
def test_equinox(storage):
    model = eqx.nn.MLP(2, "scalar", 8, 1, key=jax.random.key(0))
    opt = adamx.adamw(1e-2, storage=storage, mask="!*/bias")
    state = opt.init(eqx.filter(model, eqx.is_inexact_array))
    x = jnp.ones((4, 2))

    @eqx.filter_jit
    def step(model, state):
        loss, grads = eqx.filter_value_and_grad(lambda m: jnp.mean(jax.vmap(m)(x) ** 2))(model)
        updates, state = opt.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state, loss

    losses = []
    for _ in range(5):
        model, state, loss = step(model, state)
        losses.append(float(loss))
    assert losses[-1] < losses[0]


@every_storage
def test_dictionaries_of_haiku(storage):
    p = {
        "mlp/~/linear_0": {"w": jnp.ones((3, 4)), "b": jnp.zeros(4)},
        "norm": {"scale": jnp.ones(4)},
    }
    table = {"mlp/*/w": storage, "*": "float32"}
    opt = adamx.adamw(1e-2, storage=table, weight_decay=0.5, mask="*/w")
    moved, state = trained(opt, p, 1)
    zero = jax.tree.map(jnp.zeros_like, p)
    updates, _ = opt.update(zero, opt.init(p), p)
    np.testing.assert_allclose(updates["mlp/~/linear_0"]["w"], -1e-2 * 0.5, rtol=1e-6)
    assert not np.any(updates["norm"]["scale"])
    assert moved["mlp/~/linear_0"]["b"].shape == (4,)
    assert state[0].nu["norm"]["scale"].dtype == jnp.float32


def test_packed_states_show_where_their_moments_are():
    p = params()
    state = adamx.adamw(1e-2, storage={"*/kernel": "int4", "*": "int8"}).init(p)[0]
    assert state.mu["dense"]["kernel"].dtype == state.nu["dense"]["kernel"].dtype == jnp.uint8
    assert state.mu["dense"]["bias"] is state.arrays["mu"]["dense"]["bias"]
    assert state.nu["dense"]["kernel"] is state.arrays["packed"]["dense"]["kernel"]
