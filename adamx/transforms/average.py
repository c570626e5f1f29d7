# SPDX-License-Identifier: Apache-2.0
"""The average of schedule-free learning: the link around a base optimizer's step.

`optimizers/schedule_free.py` says what y, z and x are.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax.typing import DTypeLike

from adamx.core import dtypes, hyperparameters, paths, random_bits, shards
from adamx.core.arithmetic import straight, times, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.links import Around, Inside
from adamx.core.per_leaf import leafwise
from adamx.core.rows import check_floating, check_state, rows, widest
from adamx.core.values import value
from adamx.storage.floats import stochastic

State = optax.contrib.ScheduleFreeState


@value
class Average:
    """The average around a link that steps z; emits at least float32."""

    name: str
    base: Any
    learning_rate: Hyper
    b1: Hyper
    weight_lr_power: Hyper
    state_dtype: DTypeLike | None

    def __post_init__(self) -> None:
        hyperparameters.check(
            learning_rate=self.learning_rate, b1=self.b1, weight_lr_power=self.weight_lr_power
        )
        if isinstance(self.b1, int | float) and self.b1 == 0:
            raise ValueError("`b1` must be in (0, 1) for an average, got 0")
        if self.state_dtype is not None:
            dtype = jnp.dtype(self.state_dtype)
            if not jnp.issubdtype(dtype, jnp.inexact) or dtype.itemsize < 2:
                raise ValueError(
                    "`state_dtype` must be a floating or complex dtype of at least 16 bits, got "
                    f"{dtype}"
                )

    def init(self, params: optax.Params) -> Any:
        for path, p in paths.flatten(params)[0]:
            check_floating(self.name, paths.name(path), "parameter", p)
        real = widest(params)
        b1: Any = hyperparameters.value_at("b1", self.b1, jnp.zeros([], jnp.int32), {})
        return State(
            b1=jnp.asarray(b1, real),
            weight_sum=jnp.zeros([], real),
            step_count=jnp.ones([], jnp.int32),
            max_lr=jnp.zeros([], real),
            base_optimizer_state=self.base.init(jax.tree.map(dtypes.widen, params)),
            z=jax.tree.map(lambda p: jnp.array(p, self._dtype(p), copy=True), params),
        )

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        check_state(self.name, state, State)
        params = paths.needed(updates, params, self.name)
        table = rows(self.name, updates, params=params, z=state.z)
        wide = jax.tree.map(dtypes.widen, (updates, params))
        steps, base_state = self.base.update(wide[0], state.base_optimizer_state, wide[1], **extra)
        steps = table.treedef.flatten_up_to(steps)
        scalars, after = self._scalars(state, extra)
        names, count = table.names, state.step_count - 1
        noise = random_bits.of_leaves([0] * len(names), count, names)
        moved = []
        for name, y, z, step, words in zip(
            names, table.columns["params"], table.columns["z"], steps, noise, strict=True
        ):
            part = shards.part(name, jnp.shape(y))
            moved.append(_moved((y, z, step, words, part.first), scalars, part.whole))
        us, zs = [u for u, _ in moved], [z for _, z in moved]
        state = after._replace(base_optimizer_state=base_state, z=table.treedef.unflatten(zs))
        return table.treedef.unflatten(us), state

    def inside(self) -> list[Inside]:
        """The base optimizer, for tools that look into optimizers."""
        kind = "wrapper" if hasattr(self.base, "_fields") else "recipe"
        return [
            Inside(("base_optimizer_state",), self.base, Around(f"adamx.{self.name}", kind, self))
        ]

    def _scalars(self, state: Any, extra: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """What the step depends on beside its leaf, and the state with its new scalars."""
        real, count = state.weight_sum.dtype, state.step_count - 1
        given = {
            k: hyperparameters.value_at(k, getattr(self, k), count, extra)
            for k in ("learning_rate", "b1", "weight_lr_power")
        }
        rate, b1, power = (hyperparameters.exact(x, real) for x in given.values())
        most = jnp.maximum(state.max_lr, jnp.asarray(rate, real))
        weight = jnp.power(most, jnp.asarray(power, real))
        total = state.weight_sum + weight
        share = jnp.where(total > 0, weight / jnp.where(total > 0, total, 1), 0 * weight)
        b1, rest = weights(b1, jnp.zeros([], real))
        b1 = jnp.asarray(b1, real)
        again = b1 / state.b1  # 1 but where b1 changes: x is what the last b1 says
        scalars = {"of_step": rest + b1 * share, "of_gap": (1 - again) + again * share}
        return scalars, state._replace(
            b1=b1,
            weight_sum=total,
            step_count=optax.safe_increment(state.step_count),
            max_lr=most,
        )

    def _dtype(self, p: Any) -> jnp.dtype:
        """The dtype of a parameter's z."""
        working = dtypes.working(dtypes.of(p))
        if self.state_dtype is None or dtypes.is_complex(working):
            return working
        return jnp.dtype(self.state_dtype)


@leafwise
def _moved(arrays: tuple, scalars: dict[str, Any], whole: Any) -> tuple[jax.Array, jax.Array]:
    """The step of y and the new z: `(y, z, step of z, random bits, position)`.

    With y = b1 x + (1 - b1) z, the step of y is (1 - b1 + b1 c) s - c (y - z), where s is the step
    that z made: differences only, in which nothing cancels.
    """
    y, old, step, words, first = arrays
    is_real = not jnp.iscomplexobj(y)
    dtype = dtypes.working(dtypes.of(y), dtypes.of(old), dtypes.of(step))
    y, z, step = (jnp.asarray(x).astype(dtype) for x in (y, old, step))
    wanted = z + step
    if old.dtype == jnp.bfloat16:
        key = random_bits.Key(words, whole, first)
        bits = random_bits.noise(key, jnp.shape(old)).draw(_DRAW)
        new = straight(stochastic(wanted, bits), wanted)
    else:
        new = dtypes.cast(wanted, old.dtype)
    real = dtypes.real(dtype)
    of_step, of_gap = (jnp.asarray(scalars[k]).astype(real) for k in ("of_step", "of_gap"))
    moved = times(of_step, new.astype(dtype) - z) - times(of_gap, y - z)
    return moved.real if is_real else moved, new


_DRAW = 2  # which neither a mean square nor a landing takes
