# SPDX-License-Identifier: Apache-2.0
"""Small problems on which an optimizer is run, many at once, in float64."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

LONG = 1000  # steps: by then what is special about the first ones has passed
STEPS = 200
SIZE = 64


class Steps(NamedTuple):
    """Updates at constant parameters, with their sign, an array of `LONG` steps each.

    Attributes:
      small, usual, large, huge: at gradients of 1e-8, 1e-4, 1 and 1e4, and parameters of 0.
      still, at_rest, at_rest_twice: at zero gradients, and parameters of 0, 1 and 2.
      at_one, at_two: at gradients of 1, and parameters of 1 and 2.
      flipped: at gradients 1, -1, 0, 0 ..., and parameters of 0.
      outlier: at gradients 10, 1, 1, 1 ..., and parameters of 0.
    """

    small: np.ndarray
    usual: np.ndarray
    large: np.ndarray
    huge: np.ndarray
    still: np.ndarray
    at_rest: np.ndarray
    at_rest_twice: np.ndarray
    at_one: np.ndarray
    at_two: np.ndarray
    flipped: np.ndarray
    outlier: np.ndarray


def steps(opt: optax.GradientTransformation) -> Steps:
    """What `opt` does at constant parameters."""
    constant = [(0, 1e-8), (0, 1e-4), (0, 1), (0, 1e4), (0, 0), (1, 0), (2, 0), (1, 1), (2, 1)]
    rows = [*constant, (0, 0), (0, 1)]
    params = np.array([[p] for p, _ in rows], float)
    grads = np.array([[[g]] * LONG for _, g in rows], float)
    grads[-2, :2, 0], grads[-1, 0] = (1, -1), 10
    return Steps(*_run(opt, params, grads, lambda p, u: (p, u))[..., 0])


def path(opt: optax.GradientTransformation, scale: float) -> np.ndarray:
    """The parameters after each of `STEPS` steps of random gradients of this size."""
    rng = np.random.default_rng(0)
    params = rng.normal(size=(1, SIZE))
    grads = scale * rng.normal(size=(1, STEPS, SIZE))
    return _run(opt, params, grads, lambda p, u: (p + u, p + u))[0]


def _run(opt: Any, params: np.ndarray, grads: np.ndarray, move: Callable[..., Any]) -> np.ndarray:
    """For each row of `params`, what `move` gives at each step of a row of `grads`."""
    opt = optax.with_extra_args_support(opt)

    def one(p: jax.Array, grads: jax.Array) -> jax.Array:
        def step(carry: Any, g: jax.Array) -> Any:
            p, state = carry
            updates, state = opt.update({"leaf": g}, state, {"leaf": p})
            p, seen = move(p, jnp.asarray(updates["leaf"]).astype(p.dtype))
            return (p, state), seen

        return jax.lax.scan(step, (p, opt.init({"leaf": p})), grads)[1]

    # Optax mixes dtypes; a landing warns that no parameter is in half precision.
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        warnings.catch_warnings(),
        jax.default_device(jax.devices("cpu")[0]),
    ):
        warnings.simplefilter("ignore")
        return np.asarray(jax.jit(jax.vmap(one))(jnp.asarray(params), jnp.asarray(grads)))
