# SPDX-License-Identifier: Apache-2.0
"""Measures what a step of every entrant costs: seconds beside `optax.adamw`, and bytes of state.

    python -m notebooks.modern_family.costs

The tree is that of the text's transformer, wider, so that memory and arithmetic count and not the
calls: 6.6 million parameters. A sample is `STEPS` steps, in which SOAP renews its bases twice; all
take their samples in turn, and each is divided by Optax's of the same round.
"""

import argparse
import csv
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import adamx
from adamx.cli.bench.timing import in_turn, quartiles, ratios
from notebooks.modern_family.entrants import ENTRANTS, WORKLOADS, Entrant
from notebooks.modern_family.training import RESULTS

WIDTH, LAYERS, STEPS, ROUNDS = 512, 2, 20, 7


class Cost(NamedTuple):
    """One entrant's.

    Attributes:
      entrant: its name.
      bytes: of its state, for each parameter.
      low, time, high: quartiles and median of its time for a step, in steps of `optax.adamw`.
    """

    entrant: str
    bytes: float
    low: float
    time: float
    high: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures all entrants, and writes the CSV anew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "costs.csv")
    args = parser.parse_args(arguments)
    found = costs(tree(), STEPS, ROUNDS)
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Cost._fields)
        writer.writerows((cost.entrant, *(f"{x:.4g}" for x in cost[1:])) for cost in found)


def read(path: pathlib.Path = RESULTS / "costs.csv") -> dict[str, Cost]:
    """The CSV, by entrant."""
    with path.open(newline="") as file:
        lines = [Cost(name, *map(float, rest)) for name, *rest in list(csv.reader(file))[1:]]
    return {cost.entrant: cost for cost in lines}


def costs(params: Any, steps: int, rounds: int) -> list[Cost]:
    """Measures all entrants on a tree."""
    opts = {name: _opt(entrant) for name, entrant in ENTRANTS.items()}
    reference = optax.adamw(1e-3, weight_decay=0.1)
    samples = in_turn(
        {name: _steps(opt, params, steps) for name, opt in {"": reference, **opts}.items()}, rounds
    )
    return [
        Cost(name, _bytes(opt, params), *quartiles(ratios(samples[name], samples[""])))
        for name, opt in opts.items()
    ]


def tree(width: int = WIDTH, layers: int = LAYERS) -> Any:
    """Parameters with the names of the text's."""
    shapes = {"qkv": (1, 3), "mix": (1, 1), "up": (1, 4), "down": (4, 1)}
    block = {name: (a * width, b * width) for name, (a, b) in shapes.items()}
    block |= {"attention scale": (width,), "mlp scale": (width,)}
    outside = {"embedding": (256, width), "head": (width, 256), "scale": (width,)}
    every = {**outside, "blocks": [block] * layers}
    return jax.tree.map(
        lambda shape: 0.02 * jax.random.normal(jax.random.key(0), shape),
        every,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def _opt(entrant: Entrant) -> optax.GradientTransformation:
    return entrant.build(WORKLOADS["text"], 1e-3, 0.1)


def _steps(opt: Any, params: Any, steps: int) -> Callable[[], object]:
    """A call that takes some steps, each where the last one ended."""
    step = jax.jit(functools.partial(_step, opt), donate_argnums=(0, 1))
    grads = jax.tree.map(lambda p: jnp.cos(1e4 * p), params)
    now = jax.tree.map(jnp.copy, params), jax.jit(opt.init)(params)

    def call() -> object:
        nonlocal now
        for _ in range(steps):
            now = step(*now, grads)
        return jax.block_until_ready(now)

    return call


def _step(opt: Any, params: Any, state: Any, grads: Any) -> Any:
    return adamx.step(opt, params, state, grads)


def _bytes(opt: Any, params: Any) -> float:
    state = jax.eval_shape(opt.init, params)
    leaves = [x for x in jax.tree.leaves(state) if x.ndim]
    return sum(x.size * x.dtype.itemsize for x in leaves) / sum(
        p.size for p in jax.tree.leaves(params)
    )


if __name__ == "__main__":
    main()
