# SPDX-License-Identifier: Apache-2.0
"""A rule's scalars at one step: what depends on the step alone, computed once for a whole tree."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx import kernels
from adamx.core import hyperparameters
from adamx.core.rule import Rule


class Scalars(dict):
    """The rule's scalars of this step, computed once for each real dtype that leaves ask for."""

    def __init__(
        self,
        rule: Rule,
        count: jax.Array,
        extra: dict[str, Any],
        counters: Mapping[str, jax.Array] | None = None,
    ):
        self.rule, self.step = rule, optax.safe_increment(count)
        counters = counters or {}
        self.counters = {k: optax.safe_increment(c) for k, c in counters.items()}
        own = {name: counters[k] for k, names in rule.counters.items() for name in names}
        self.hyper = {
            k: hyperparameters.value_at(k, v, own.get(k, count), extra)
            for k, v in rule.hyper.items()
        }

    @functools.cached_property
    def vector(self) -> Any:
        """The scalars in float32 for the loops in C++, one array for all leaves."""
        return kernels.vector(self.rule, self[jnp.dtype(jnp.float32)])

    def __missing__(self, dtype: jnp.dtype) -> dict[str, jax.Array]:
        values = {k: hyperparameters.exact(v, dtype) for k, v in self.hyper.items()}
        values |= {k: jnp.asarray(c).astype(dtype) for k, c in self.counters.items()}
        found = self.rule.at(jnp.asarray(self.step).astype(dtype), **values)
        self[dtype] = {k: hyperparameters.rounded(v, dtype) for k, v in found.items()}
        return self[dtype]
