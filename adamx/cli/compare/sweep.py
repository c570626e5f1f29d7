# SPDX-License-Identifier: Apache-2.0
"""One optimizer at all points of a grid and with all seeds, in one compiled program."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamx
from adamx.cli.averages import evaluated
from adamx.cli.compare.grid import Grid
from adamx.cli.compare.halving import Rung
from adamx.cli.flags import UsageError
from adamx.cli.names import RECIPES
from adamx.cli.tasks import Task

# Adam's predecessors, from Optax; the Adam family is ours.
OTHERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": lambda learning_rate: optax.sgd(learning_rate),
    "momentum": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9),
    "nesterov": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9, nesterov=True),
    "adagrad": lambda learning_rate: optax.adagrad(learning_rate),
    "rmsprop": lambda learning_rate: optax.rmsprop(learning_rate),
}
OPTIMIZERS = (*OTHERS, *RECIPES)
HELD_OUT = "held-out loss"


class Sweep(NamedTuple):
    """The results by point of the grid and seed.

    Attributes:
      scores: an array of points x seeds for each figure at the end of training; NaN where a run
        diverged or was dropped before. `HELD_OUT` is always among them.
      reached: the number of steps after which each point was dropped, or of all steps.
      losses: points x seeds, the held-out losses at `reached`; NaN where a run diverged.
    """

    grid: Grid
    scores: dict[str, np.ndarray]
    reached: np.ndarray
    losses: np.ndarray

    @property
    def best(self) -> int:
        """The point with the least mean held-out loss at the end; a NaN excludes it."""
        losses = self.scores[HELD_OUT].mean(1)
        return int(np.argmin(np.where(np.isnan(losses), np.inf, losses)))

    @property
    def has_best(self) -> bool:
        """Whether any point has a loss at the end; `best` says nothing else."""
        return not np.isnan(self.scores[HELD_OUT].mean(1)).all()

    @property
    def trains(self) -> np.ndarray:
        """For each point, whether every seed ends within twice the best loss."""
        losses = self.scores[HELD_OUT]
        with np.errstate(invalid="ignore"):
            best = losses[self.best].mean()
            return np.all(losses <= best + abs(best), axis=1)


def builder(name: str) -> Callable[..., Any]:
    """What makes the optimizer of that name, of a learning rate and further settings."""
    return OTHERS.get(name) or getattr(adamx, name)


def sweep(name: str, tasks: Sequence[Task], grid: Grid, rungs: Sequence[Rung]) -> Sweep:
    """Trains every task (one per seed) on its own batches, at every point."""
    steps = rungs[-1].until
    params = _stacked([task.params for task in tasks])
    batches = _stacked([_stacked([t.batch(i) for i in range(steps)]) for t in tasks])
    keys = jax.random.split(jax.random.key(0), len(tasks))
    keys = jax.vmap(lambda key: jax.random.split(key, steps))(keys)
    hyper = {k: jnp.asarray(x, jnp.float32) for k, x in grid.points.items()}
    program = jax.jit(_program(builder(name), tasks, rungs))
    reached, reports = program(hyper, params, batches, keys)
    return _collected(tasks, grid, rungs, reached, [jax.device_get(x) for x in reports])


def _program(build: Callable[..., Any], tasks: Sequence[Task], rungs: Sequence[Rung]) -> Any:
    """From settings, parameters, batches and keys to the parameters of those that are left, and for
    each rung the points that it had, which of their runs are alive, and their losses."""

    def trained(hyper: Any, carry: Any, batches: Any, keys: Any) -> Any:
        opt = build(**hyper)

        def step(carry: Any, now: Any) -> tuple[Any, None]:
            (params, state, alive), (batch, key) = carry, now
            drawn = {"key": key} if tasks[0].random else {}
            loss, grads = jax.value_and_grad(tasks[0].loss)(params, batch, **drawn)
            new = adamx.step(opt, params, state, grads)
            # A run that diverges stands still from there on, and hands no NaN to anyone.
            alive &= jnp.isfinite(loss) & _is_finite(new[0])
            kept = jax.tree.map(lambda x, old: jnp.where(alive, x, old), new, (params, state))
            return (*kept, alive), None

        return jax.lax.scan(step, carry, (batches, keys))[0]

    def begun(hyper: Any, params: Any) -> Any:
        return params, build(**hyper).init(params), jnp.asarray(True)

    over_both = jax.vmap(jax.vmap(trained, (None, 0, 0, 0)), (0, 0, None, None))
    looked_at = jax.vmap(jax.vmap(lambda params, state, alive: evaluated(state, params)))

    def program(hyper: Any, params: Any, batches: Any, keys: Any) -> Any:
        carry = jax.vmap(jax.vmap(begun, (None, 0)), (0, None))(hyper, params)
        points, start, reports = jnp.arange(rungs[0].points), 0, []
        for rung in rungs:
            span = slice(start, rung.until)
            if len(points) > rung.points:
                order = jnp.argsort(_ranked(*reports[-1][1:]))[: rung.points]
                hyper, carry, points = _taken((hyper, carry, points), order)
            now = _taken((batches, keys), (slice(None), span))
            carry, start = over_both(hyper, carry, *now), rung.until
            losses = None if rung is rungs[-1] else _glances(tasks, looked_at(*carry))
            reports.append((points, carry[2], losses))
        return looked_at(*carry), reports

    return program


def _glances(tasks: Sequence[Task], params: Any) -> jax.Array:
    """Held-out losses of points x seeds."""
    seeds = [_taken(params, (slice(None), j)) for j in range(len(tasks))]
    try:
        columns = [jax.vmap(task.glance)(x) for task, x in zip(tasks, seeds, strict=True)]
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise UsageError(
            "--halvings ranks by held-out losses inside the compiled program: write the task's "
            "`glance` in JAX's operations, or leave --halvings out"
        ) from error
    return jnp.stack(columns, 1)


def _ranked(alive: jax.Array, losses: jax.Array) -> jax.Array:
    """What points are sorted by: the mean loss over seeds; infinity where one is not finite."""
    good = alive & jnp.isfinite(losses)
    return jnp.where(good.all(1), jnp.where(good, losses, 0).mean(1), jnp.inf)


def _taken(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def _is_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()


def _collected(
    tasks: Sequence[Task], grid: Grid, rungs: Sequence[Rung], params: Any, reports: Any
) -> Sweep:
    shape = rungs[0].points, len(tasks)
    reached, losses = np.zeros(shape[0], int), np.full(shape, np.nan)
    for rung, (points, alive, found) in zip(rungs[:-1], reports[:-1], strict=True):
        reached[points] = rung.until
        losses[points] = np.where(alive, _finite(found), np.nan)
    points, alive, _ = reports[-1]
    reached[points] = rungs[-1].until
    scores: dict[str, np.ndarray] = {}
    for i, j in itertools.product(range(len(points)), range(len(tasks))):
        one = _taken(params, (i, j))
        found = {HELD_OUT: tasks[j].glance(one)} | tasks[j].scores(one)
        for figure, value in found.items():
            column = scores.setdefault(figure, np.full(shape, np.nan))
            column[points[i], j] = float(value) if alive[i, j] else np.nan
    scores = {k: _finite(x) for k, x in scores.items()}
    losses[points] = scores[HELD_OUT][points]
    return Sweep(grid, scores, reached, losses)


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *trees)


def _finite(x: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(x), x, np.nan)
