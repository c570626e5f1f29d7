# SPDX-License-Identifier: Apache-2.0
"""The tables that the laws take their product over: recipes, dtypes, storages, trees."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import adamx
from adamx.moments.layout import PackedState
from adamx.optimizers.recipe import TABLE


class Recipe(NamedTuple):
    """A recipe, what Optax has for it, and the link that holds its rule."""

    name: str
    link: str
    kwargs: dict[str, Any] = {}
    link_kwargs: dict[str, Any] = {}

    def __call__(self, learning_rate: Any = 1e-2, **kwargs: Any) -> Any:
        return getattr(adamx, self.name)(learning_rate, **(self.kwargs | kwargs))

    @property
    def in_optax(self) -> Any:
        """Optax's recipe of this name; None if it has none."""
        return getattr(optax, self.name, None) or getattr(optax.contrib, self.name, None)

    def of_optax(self, learning_rate: Any = 1e-2, **kwargs: Any) -> Any:
        return self.in_optax(learning_rate, **(self.kwargs | kwargs))

    def scale_by(self, **kwargs: Any) -> Any:
        return getattr(adamx, self.link)(**(self.link_kwargs | kwargs))

    @property
    def packs(self) -> bool:
        """Whether `int4` stores a mean and its square in one byte."""
        state = jax.eval_shape(self(storage="int4").init, jnp.ones(1))
        nodes = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, PackedState))
        return any(isinstance(node, PackedState) for node in nodes)


def _of_table(elementwise: bool) -> dict[str, Recipe]:
    return {
        name: Recipe(name, entry.link.__name__, {}, dict(entry.link_kwargs))
        for name, entry in TABLE.items()
        if entry.elementwise is elementwise
    }


RECIPES = _of_table(elementwise=True)
METHODS = _of_table(elementwise=False)  # factored, per block, in an eigenbasis …

# Everything a rule can be asked for beyond its defaults.
VARIANTS = {
    "adam hat": Recipe("adam", "scale_by_adam", {}, {"eps_mode": "hat"}),
    "adam atan2": Recipe("adam", "scale_by_adam", {}, {"eps_mode": "atan2"}),
    "adam eps_root": Recipe("adam", "scale_by_adam", {}, {"eps_root": 1e-6}),
    "nadam torch": Recipe("nadam", "scale_by_adam", {}, {"nesterov": True, "momentum_decay": 4e-3}),
    "amsgrad torch": Recipe("amsgrad", "scale_by_amsgrad", {}, {"max_of": "raw"}),
    "amsgrad paper": Recipe(
        "amsgrad",
        "scale_by_amsgrad",
        {},
        dict.fromkeys(("bias_correction_mu", "bias_correction_nu"), False),
    ),
    "radam nesterov": Recipe("radam", "scale_by_radam", {}, {"nesterov": True, "threshold": 4.0}),
    "radam torch": Recipe("radam", "scale_by_radam", {}, {"eps_mode": "hat"}),
    "adabelief nesterov": Recipe("adabelief", "scale_by_belief", {}, {"nesterov": True}),
    "lion smooth": Recipe("lion", "scale_by_lion", {}, {"mode": "smooth", "smooth_beta": 2.0}),
    "lion refined": Recipe("lion", "scale_by_lion", {}, {"mode": "refined"}),
    "adopt nesterov": Recipe("adopt", "scale_by_adopt", {}, {"nesterov": True}),
    "ademamix warming": Recipe("ademamix", "scale_by_ademamix", {}, {"warmup_steps": 1000.0}),
    "spam often": Recipe(
        "spam", "scale_by_spam", {}, {"reset_every": 5, "warmup_steps": 3, "clip_after": 2}
    ),
}

DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64")

STORAGES = ("float32", "bfloat16", "int8", "int4")

LANDINGS = ("nearest", "stochastic", "kahan", "exact", "compensated8")


# Storages see rules, not recipes. These pairs meet every recipe and every storage; the other pairs
# of rule and storage are slow tests.
TELLING = [
    *((name, "float32") for name in RECIPES),
    *(("adam", storage) for storage in STORAGES[1:]),
    *(("lion", storage) for storage in STORAGES[2:]),
    ("amsgrad", "int8"),
    ("adamax", "int8"),
    ("adopt", "int8"),
    ("adan", "int4"),
]
RULES = tuple({recipe.link: name for name, recipe in reversed(RECIPES.items())}.values())


def pairs(*others: Any, fast_rules: Sequence[str] = tuple(RECIPES)) -> Any:
    """Parametrizes `recipe` and `storage`, and `dtype` where dtypes are given: every recipe, every
    storage and every dtype in the fast tests, all rules × storages × dtypes with the slow ones."""
    found = []
    every = dict.fromkeys([*TELLING, *((name, s) for name in RULES for s in STORAGES)])
    for (name, storage), other in itertools.product(every, others or (None,)):
        fast = (name, storage) in TELLING if other in (None, "float32") else name == "adam"
        fast = fast and name in fast_rules
        label = "-".join(filter(None, (name, storage, other)))
        values = (RECIPES[name], storage, other) if others else (RECIPES[name], storage)
        found.append(pytest.param(*values, id=label, marks=() if fast else pytest.mark.slow))
    return pytest.mark.parametrize("recipe, storage, dtype" if others else "recipe, storage", found)


each_rule = pytest.mark.parametrize(  # the other recipes of a rule are slow
    "recipe",
    [
        pytest.param(recipe, id=name, marks=() if name in RULES else pytest.mark.slow)
        for name, recipe in RECIPES.items()
    ],
)
every_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
every_pair = pairs()


def skip_where_optax_is_right() -> NoReturn:
    """Ends a test that shows a mistake of Optax, where the installed Optax makes it no more."""
    pytest.skip(f"Optax {optax.__version__} gets this right")


def form(tree: Any) -> Any:
    """Everything about a tree that must not change from step to step."""
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def params(dtype: Any = "float32") -> dict[str, Any]:
    """A small tree with a matrix, a vector, a scalar and a hole."""
    rng = np.random.default_rng(0)
    shapes = {"dense": {"kernel": (3, 5), "bias": (5,)}, "gain": ()}

    def draw(shape: tuple[int, ...]) -> jax.Array:
        x = rng.normal(size=shape)
        x = x + 1j * rng.normal(size=shape) if jnp.issubdtype(dtype, jnp.complexfloating) else x
        return jnp.asarray(x, dtype)

    leaves = jax.tree.map(draw, shapes, is_leaf=lambda s: isinstance(s, tuple))
    return {**leaves, "frozen": None}


def grads(tree: Any, seed: int = 1) -> Any:
    """Gradients for `tree`: as many random numbers, in the same dtypes."""
    rng = np.random.default_rng(seed)

    def draw(p: jax.Array) -> jax.Array:
        x = rng.normal(size=p.shape)
        x = x + 1j * rng.normal(size=p.shape) if jnp.iscomplexobj(p) else x
        return jnp.asarray(x, p.dtype)

    return jax.tree.map(draw, tree)


class Layer(NamedTuple):
    """A NamedTuple with an optional part."""

    kernel: Any
    bias: Any = None


def _equinox() -> Any:
    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    return eqx.filter(model, eqx.is_inexact_array)


def _dataclass() -> Any:
    return eqx.filter(eqx.nn.Linear(3, 2, key=jax.random.key(1)), eqx.is_array)


def _nnx() -> Any:
    return nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.Param)


TREES: dict[str, Callable[[], Any]] = {
    "nested": params,
    "empty": dict,
    "none": lambda: None,
    "bare array": lambda: jnp.ones(3),
    "bare scalar": lambda: jnp.asarray(2.0),
    "zero-size": lambda: {"a": jnp.ones((0, 3)), "b": jnp.ones(2)},
    "tuple": lambda: (jnp.ones(2), [jnp.ones(1), None], {}),
    "namedtuple": lambda: Layer(jnp.ones((2, 2))),
    "masked": lambda: {"a": jnp.ones(2), "b": optax.MaskedNode()},
    "mixed dtypes": lambda: {
        "a": jnp.ones(2, jnp.bfloat16),
        "b": jnp.ones(2),
        "c": jnp.ones(2, jnp.complex64),
        "d": jnp.ones(2, jnp.float16),
    },
    "python scalars": lambda: {"a": 1.0, "b": np.float32(2.0), "c": np.ones(3, np.float32)},
    "equinox": _equinox,
    "equinox module": _dataclass,
    "nnx": _nnx,
}
