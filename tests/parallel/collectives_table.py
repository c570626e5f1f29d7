# SPDX-License-Identifier: Apache-2.0
"""What the devices of a mesh send each other in a step, and what a step takes of their memory.

`python -m tests.parallel.collectives_table` compiles a step of a transformer of GPT-2 small's size
for 8 H100s and for 4 TPU v5e, which need not be there (`targets.py` says what to install), and
prints a Markdown table for each; it takes up to half an hour on two cores.
"""

import argparse
import functools
import itertools
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import adamx
from adamx import parallel
from adamx.cli.tasks import transformer
from adamx.core.tables import as_markdown
from tests.parallel import targets

HEADER = ["", "collectives", "MB sent", "MB of arguments", "MB of temporaries"]
KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
WINDOWS = 4  # of a batch, on each device
AS_WRITTEN = {"tpu": {"xla_tpu_enable_async_collective_fusion": False}}
"""Else a TPU's collective is written once for each piece of arithmetic that hides a part of it."""


class Collective(NamedTuple):
    """One collective of a program: its kind, and the bytes of the whole arrays."""

    kind: str
    nbytes: int

    def sent(self, devices: int) -> float:
        """The bytes that each device sends to its neighbour in a ring."""
        turns = {"all-reduce": 2, "collective-permute": devices / (devices - 1)}.get(self.kind, 1)
        return turns * self.nbytes * (devices - 1) / devices


def collectives(text: str, devices: int) -> Iterator[Collective]:
    """The collectives in the text of a compiled program.

    A TPU's reduce-scatter can be a computation of that name, with an all-reduce inside. The result
    of a collective that is only started holds what it was given, too.
    """
    inside = ""
    for line in text.splitlines():
        if line.endswith("{") and " = " not in line:
            inside = line
        found = re.search(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(", line)
        if not found:
            continue
        shapes, kind, is_started = found.groups()
        nbytes = _bytes(shapes)
        if kind == "all-reduce" and "all-reduce-scatter" in inside:
            yield Collective("reduce-scatter", nbytes)
        elif is_started and kind in ("all-gather", "reduce-scatter"):
            yield Collective(kind, nbytes * devices // (devices + 1))
        else:
            yield Collective(kind, nbytes * (devices if kind == "reduce-scatter" else 1))


def _bytes(shapes: str) -> int:
    """The bytes of all arrays of a shape or a tuple of shapes."""
    total = 0
    for dtype, sizes in re.findall(r"\b([a-z]+\d*)\w*\[([\d,]*)\]", shapes):
        bits = int(re.sub(r"\D", "", dtype) or 8)  # `pred` has no number
        total += math.prod(int(size) for size in sizes.split(",") if size) * bits // 8
    return total


def row(program: Any, devices: int) -> list[str]:
    """What a program sends and holds on each device."""
    found = list(collectives(program.as_text(), devices))
    counts, memory = Counter(c.kind for c in found), program.memory_analysis()
    told = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    sizes = (
        sum(c.sent(devices) for c in found),
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
    )
    return [told, *(f"{size / 1e6:,.1f}" for size in sizes)]


def table(mesh: Any, size: transformer.Size) -> tuple[list[str], list[list[str]]]:
    """The header and a row for each way, storage, and with and without ZeRO-1."""
    params = _params(size)
    batch = jax.ShapeDtypeStruct((WINDOWS * mesh.size, size.context + 1), jnp.uint8)

    def loss(params: Any, windows: Any) -> jax.Array:
        return transformer.loss(params, windows, size.heads)

    rows = []
    for storage, how, zero in itertools.product(
        ("float32", "int8"), ("jit", "shard_map"), (False, True)
    ):
        opt = adamx.adamw(1e-3, storage=storage)
        train = parallel.data_parallel(loss, opt, params, mesh, how=how, zero=zero)
        lowered = train.lower(jax.eval_shape(train.init, params), batch)
        platform = mesh.devices.flat[0].platform
        program = lowered.compile(compiler_options=AS_WRITTEN.get(platform))
        name = f"`{how}`" + (", `int8`" if storage == "int8" else "") + (", ZeRO-1" if zero else "")
        rows.append([name, *row(program, mesh.size)])
        print(*rows[-1], sep="; ", file=sys.stderr, flush=True)
    return HEADER, rows


@functools.cache
def _params(size: transformer.Size) -> Any:
    return jax.eval_shape(lambda: transformer.init(0, size))


def main() -> None:
    """Prints a table for each target that is installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12, help="of the transformer (default: 12)")
    size = transformer.Size(768, 12, parser.parse_args().layers, 128, 8192)
    jax.config.update("jax_platforms", "cpu")
    count = sum(leaf.size for leaf in jax.tree.leaves(_params(size)))
    for target in targets.TARGETS:
        mesh = targets.found(target)
        if mesh is None:
            print(f"{target}: no compiler is installed, see tests/parallel/targets.py")
        else:
            print(f"**{count:,} parameters on {target}**\n\n{as_markdown(*table(mesh, size))}\n")


if __name__ == "__main__":
    main()
