# SPDX-License-Identifier: Apache-2.0
"""Prodigy as a link: two sums over all parameters give an estimate, all else is elementwise.

The moments are of d g, and `ScaleBy` updates them once the sums are known. `prodigy.py` has the
recipe.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from adamx.core import dtypes, hyperparameters, paths, shards
from adamx.core.arithmetic import abs_sq, correction, lerp, magnitude, ratio, root, times, weights
from adamx.core.hyperparameters import Hyper
from adamx.core.norms import mapped_axes
from adamx.core.per_leaf import leafwise
from adamx.core.rows import check_floating, check_state, rows, widest
from adamx.core.rule import Rule
from adamx.core.values import value
from adamx.moments.described import Described
from adamx.moments.scale_by import ScaleBy
from adamx.storage import Choice
from adamx.transforms.learning_rate import scaled
from adamx.transforms.weight_decay import Decay, Mask, as_decay, pull

State = optax.contrib.ProdigyState


@value
class Prodigy:
    """Prodigy as a link; emits at least float32."""

    name: str
    learning_rate: Hyper
    betas: tuple[Hyper, Hyper]
    beta3: Hyper | None
    eps: Hyper
    estim_lr0: float
    estim_lr_coef: Hyper
    weight_decay: Hyper | Decay
    mask: Mask | None
    safeguard_warmup: bool
    axis_name: tuple[str, ...] | None
    choice: Choice
    flip_sign: bool = True

    def __post_init__(self) -> None:
        hyperparameters.check_static(estim_lr0=self.estim_lr0)
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise ValueError(f"`betas` must be two numbers, got {self.betas!r}")
        b1, b2 = self.betas
        hyperparameters.check(b1=b1, b2=b2, b3=self.beta3, eps=self.eps)
        hyperparameters.check(
            learning_rate=self.learning_rate,
            estim_lr0=self.estim_lr0,
            estim_lr_coef=self.estim_lr_coef,
            weight_decay=self._decay.strength,
        )
        if isinstance(self.estim_lr0, int | float) and self.estim_lr0 == 0:
            raise ValueError("`estim_lr0` must be positive, got 0")
        if self._decay.place != "between" or self._decay.relative:
            raise ValueError(
                "`weight_decay` of prodigy must be a number, a schedule, `decay.decoupled` or "
                "`decay.cautious`"
            )

    def init(self, params: optax.Params) -> Any:
        for path, p in paths.flatten(params)[0]:
            check_floating(self.name, paths.name(path), "parameter", p)
        found, real = self._moments(0.0, 0.0).init(params), widest(params)
        moments = found.state if isinstance(found, Described) else found
        codes = [x for x in jax.tree.leaves(moments[1:]) if jnp.issubdtype(x.dtype, jnp.integer)]
        if codes:
            raise ValueError(
                f"{self.name}: `storage` must be of floats ('float32', 'bfloat16'), got codes of "
                f"{codes[0].dtype}: squares of d g begin below their range"
            )
        return State(
            exp_avg=moments.exp_avg,
            exp_avg_sq=moments.exp_avg_sq,
            grad_sum=jax.tree.map(
                lambda p: jnp.zeros_like(p, dtypes.working(dtypes.of(p))), params
            ),
            params0=jax.tree.map(lambda p: jnp.array(p, copy=True), params),
            estim_lr=jnp.asarray(self.estim_lr0, real),
            numerator_weighted=jnp.zeros([], real),
            count=jnp.zeros([], jnp.int32),
        )

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        check_state(self.name, state, State)
        params = paths.needed(updates, params, self.name)
        rate, hyper = self._at(state, extra)
        grad_sum, inner, size = self._sums(updates, state, params, hyper)
        d, real = state.estim_lr, state.estim_lr.dtype
        numerator = state.numerator_weighted * (1 - hyper["c3"]) + hyper["of_inner"] * inner
        estimate = hyper["coef"] * numerator / jnp.where(size == 0, 1, size)
        new_d = jnp.where(size == 0, d, jnp.maximum(d, estimate))
        link = self._moments(d, new_d * hyper["eps"])
        moments = Moments(state.count, state.exp_avg, state.exp_avg_sq)
        betas = {k: v for k, v in extra.items() if k in ("b1", "b2")}
        steps, moments = link.update(updates, moments, params, **betas)
        decay = self._decay._replace(strength=hyper["weight_decay"])
        pulling = pull(decay, self.mask)
        steps, _ = pulling.update(steps, pulling.init(params), params)
        steps = jax.tree.map(lambda u: scaled(u, -rate if self.flip_sign else rate), steps)
        return steps, State(
            exp_avg=moments.exp_avg,
            exp_avg_sq=moments.exp_avg_sq,
            grad_sum=grad_sum,
            params0=state.params0,
            estim_lr=new_d.astype(real),
            numerator_weighted=numerator.astype(real),
            count=moments.count,
        )

    @property
    def _decay(self) -> Decay:
        return as_decay(self.weight_decay)

    def _moments(self, d: Any, eps: Any) -> ScaleBy:
        """The elementwise part, for an estimate that is known."""
        b1, b2 = self.betas
        hyper = {"b1": b1, "b2": b2, "eps": eps, "d": d}
        kinds: Any = {"exp_avg": "signed", "exp_avg_sq": "squared"}
        return ScaleBy(Rule(self.name, Moments, kinds, hyper, scalars, formula), self.choice)

    def _at(self, state: Any, extra: dict[str, Any]) -> tuple[jax.Array, dict[str, Any]]:
        """The rate of this step, estimate included, and its other scalars."""
        count, d, real = state.count, state.estim_lr, state.estim_lr.dtype
        b1, b2 = self.betas
        given = {"b1": b1, "b2": b2, "b3": self.beta3, "eps": self.eps}
        given |= {"learning_rate": self.learning_rate, "weight_decay": self._decay.strength}
        given |= {"coef": self.estim_lr_coef}
        at = {k: hyperparameters.value_at(k, v, count, extra) for k, v in given.items()}
        t = jnp.asarray(optax.safe_increment(count), real)
        (_, c1), (b2, c2) = (weights(_exact(at[k], real), t) for k in ("b1", "b2"))
        if at["b3"] is not None:
            c3 = weights(_exact(at["b3"], real), t)[1]
        else:
            c3 = c2 / (1 + jnp.sqrt(b2))  # 1 - sqrt(b2), with all its digits
        factor = jnp.asarray(_exact(at["learning_rate"], real), real)
        rate = d * factor * jnp.sqrt(correction(c2, t)) / correction(c1, t)
        grown = d / jnp.asarray(self.estim_lr0, real)
        return rate, {
            "c3": jnp.asarray(c3, real),
            "of_inner": grown * rate,
            "of_grad": grown * (d if self.safeguard_warmup else rate),
            "coef": jnp.asarray(_exact(at["coef"], real), real),
            "eps": jnp.asarray(_exact(at["eps"], real), real),
            "weight_decay": at["weight_decay"],
        }

    def _sums(
        self, updates: Any, state: Any, params: Any, hyper: dict[str, Any]
    ) -> tuple[Any, jax.Array, jax.Array]:
        """The new sum of gradients, `<g, p0 - p>` and the 1-norm of that sum, over all shards."""
        real, along = state.estim_lr.dtype, mapped_axes.axes(self.axis_name)
        table = rows(
            self.name, updates, params=params, params0=state.params0, grad_sum=state.grad_sum
        )
        sums, parts = [], [jnp.zeros(2, real)]
        factors = {k: hyper[k] for k in ("c3", "of_grad")}
        for name, g, p, p0, s in zip(
            table.names, table.gradients, *table.columns.values(), strict=True
        ):
            s, inner = _summed((g, p, p0, s), factors)
            pair = [jnp.sum(shards.masked(name, x)) for x in (inner, magnitude(s))]
            parts.append(jnp.stack(pair).astype(real) / mapped_axes.copies(s, along))
            sums.append(s)
        total = sum(parts[1:], parts[0])
        total = mapped_axes.total(total, along) if along.names else total
        return table.treedef.unflatten(sums), total[0], total[1]


def _zeros(p: Any) -> jax.Array:
    return jnp.zeros_like(p, dtype=dtypes.working(dtypes.of(p)))


def _exact(x: Any, real: jnp.dtype) -> Any:
    return hyperparameters.exact(x, real)


@leafwise
def _summed(arrays: tuple, scalars: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
    """A leaf's new sum of gradients, and the terms of `<g, p0 - p>`: `(g, p, p0, sum)`."""
    g, p, p0, s = arrays
    dtype = dtypes.working(*map(dtypes.of, arrays))
    g, p, p0, s = (jnp.asarray(x).astype(dtype) for x in arrays)
    c3, of_grad = (scalars[k].astype(dtypes.real(dtype)) for k in ("c3", "of_grad"))
    inner = (jnp.conj(g) * (p0 - p)).real if jnp.iscomplexobj(g) else g * (p0 - p)
    return s - times(c3, s) + times(of_grad, g), inner


class Moments(NamedTuple):
    """The part of a state that one rule on one array updates."""

    count: Any
    exp_avg: Any
    exp_avg_sq: Any


def formula(g, exp_avg, exp_avg_sq, *, b1, c1, b2, c2, d, eps):
    g = times(d, g)
    exp_avg = lerp(exp_avg, g, b1, c1)
    exp_avg_sq = lerp(exp_avg_sq, abs_sq(g), b2, c2)
    return ratio(exp_avg, root(exp_avg_sq), eps), {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}


def scalars(t, b1, b2, eps, d):
    (b1, c1), (b2, c2) = weights(b1, t), weights(b2, t)
    return {"b1": b1, "c1": c1, "b2": b2, "c2": c2, "d": d, "eps": eps}
