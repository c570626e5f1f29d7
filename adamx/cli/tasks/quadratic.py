# SPDX-License-Identifier: Apache-2.0
"""Adam's arithmetic step by step, on x squared from x = 5."""

from typing import Any

import jax.numpy as jnp
import optax

import adamx
from adamx.core.instances import instances
from adamx.core.tables import as_text

START, STEPS, RATE, B1, B2 = 5.0, 10, 0.1, 0.9, 0.999
HEADER = ["t", "x", "g = 2x", "m", "v", "m / (1 - b1^t)", "v / (1 - b2^t)", "step", "next x"]


def narrated(rate: float, steps: int) -> str:
    """A table with one row per step, read from the optimizer's own state."""
    opt = adamx.adam(rate, B1, B2)
    params: Any = jnp.float32(START)
    after: Any
    state, rows = opt.init(params), []
    for t in range(1, steps + 1):
        g = 2 * params
        after, state = adamx.step(opt, params, state, g)
        m, v = _moments(state)
        cells = (m / (1 - B1**t), v / (1 - B2**t), float(after - params), float(after))
        rows.append([str(t), *(f"{x:.7g}" for x in (float(params), float(g), m, v, *cells))])
        params = after
    return (
        f"f(x) = x^2 from x = {START:g}, b1 = {B1}, b2 = {B2}, learning rate {rate:g}, float32\n\n"
        f"m <- b1 m + (1 - b1) g      v <- b2 v + (1 - b2) g^2\n"
        f"step = -rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)\n\n{as_text(HEADER, rows)}"
    )


def _moments(state: Any) -> tuple[float, float]:
    for node in instances(state, optax.ScaleByAdamState):
        if jnp.shape(node.mu) == ():
            return float(node.mu), float(node.nu)
    raise TypeError(f"no Adam state in {state}")
