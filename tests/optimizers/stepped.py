# SPDX-License-Identifier: Apache-2.0
"""A few steps of an optimizer, compiled."""

import jax
import optax


def after(opt, params, grads):
    """The parameters and the state after one step with each of the gradients."""

    @jax.jit
    def step(params, state, g):
        updates, state = opt.update(g, state, params)
        return optax.apply_updates(params, updates), state

    state = opt.init(params)
    for g in grads:
        params, state = step(params, state, g)
    return params, state
