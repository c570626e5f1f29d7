# SPDX-License-Identifier: Apache-2.0
"""One optimizer step, compiled for a target: what the compiler made of it, in figures."""

import math
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import SingleDeviceSharding

from adamx.cli import names
from adamx.cli.bench.programs import step_of
from adamx.cli.bench.target import machine_code
from adamx.cli.bench.target.hlo import Kernel, kernels
from adamx.cli.bench.timing import timed
from adamx.cli.shapes import Shapes
from adamx.core.kernel_use import compiling_for

LEARNING_RATE = 1e-3


class Step(NamedTuple):
    """A step to compile. Without a storage it is Optax's."""

    recipe: str
    dtype: str
    storage: str | None
    landing: str
    tree: Shapes
    repeats: int = 1
    """Samples of the time to compile."""


class Program(NamedTuple):
    """A compiled step. Bytes, instructions, cycles and picoseconds are those of one parameter."""

    kernels: int
    large: int
    """The kernels that work on whole leaves."""
    copies: int
    moved: float
    fewest: float
    """The bytes if gradients are read once, and parameters and state read and written once."""
    temporary: float
    seconds: list[float]
    """Samples of the time to trace, lower and compile."""
    memory: float | None = None
    """Picoseconds that the memory of a GPU needs."""
    instructions: float | None = None
    pipe: str | None = None
    compute: float | None = None
    """Picoseconds that the busiest pipe of a GPU needs."""
    cycles: float | None = None
    """The estimate of the compiler for TPUs."""


def compile_step(step: Step, device: Any) -> Program:
    """Compiles the step for the device: once to look at it, and again for more samples of time."""
    avals = {name: jax.ShapeDtypeStruct(shape, step.dtype) for name, shape in step.tree.items()}
    params = _on(device, avals)
    state = _on(device, jax.eval_shape(_optimizer(step).init, avals))
    is_gpu = device.platform != "tpu"
    platform = "gpu" if is_gpu else "tpu"
    with tempfile.TemporaryDirectory() as folder:
        options = {"xla_dump_to": folder, "xla_dump_emitter_re": "ptx"} if is_gpu else {}
        first, compiled = _compile(step, platform, params, state, options)
        program = _figures(compiled, params, state)
        if is_gpu:
            program = _with_bound(program, compiled.as_text(), Path(folder), params, state)
    more = [_compile(step, platform, params, state, {})[0] for _ in range(step.repeats - 1)]
    return program._replace(seconds=[first, *more])


def _compile(
    step: Step, platform: str, params: Any, state: Any, options: dict[str, str]
) -> tuple[float, Any]:
    """Seconds to trace, lower and compile on empty caches, and the compiled step."""
    jax.clear_caches()
    jitted = step_of(_optimizer(step))

    def compiled() -> Any:
        with compiling_for(platform):
            return jitted.lower(params, state, params).compile(compiler_options=options)

    return timed(compiled)


def _optimizer(step: Step) -> optax.GradientTransformationExtraArgs:
    if step.storage is None:
        return names.theirs(names.reference(step.recipe), learning_rate=LEARNING_RATE)
    return names.ours(
        step.recipe, learning_rate=LEARNING_RATE, storage=step.storage, landing=step.landing
    )


def _figures(compiled: Any, params: Any, state: Any) -> Program:
    leaves = jax.tree.leaves(params)
    n = sum(leaf.size for leaf in leaves)
    ran = kernels(compiled.as_text())
    cycles = [kernel.cycles for kernel in ran if kernel.cycles is not None]
    return Program(
        kernels=sum(not kernel.is_copy for kernel in ran),
        large=len(_large(ran, params)),
        copies=sum(kernel.is_copy for kernel in ran),
        moved=sum(kernel.moved for kernel in ran) / n,
        fewest=_nbytes((params, params, params, state, state)) / n,
        temporary=compiled.memory_analysis().temp_size_in_bytes / n,
        seconds=[],
        cycles=sum(cycles) / n if cycles else None,
    )


def _with_bound(program: Program, text: str, folder: Path, params: Any, state: Any) -> Program:
    """Adds the bound of the kernel that moves most."""
    program = program._replace(memory=machine_code.memory_picoseconds(program.moved))
    largest = max(_large(kernels(text), params), key=lambda kernel: kernel.moved)
    code = machine_code.find_kernel(folder, largest.name) if machine_code.tools_are_here() else None
    if code is None:
        return program
    n = sum(leaf.size for leaf in jax.tree.leaves(params))
    bound = machine_code.bound(code, _nbytes((params, state)) / n)
    return program._replace(
        instructions=bound.instructions, pipe=bound.pipe, compute=bound.picoseconds
    )


def _large(ran: list[Kernel], params: Any) -> list[Kernel]:
    smallest = min(leaf.size for leaf in jax.tree.leaves(params))
    return [kernel for kernel in ran if not kernel.is_copy and kernel.largest >= smallest]


def _on(device: Any, tree: Any) -> Any:
    sharding = SingleDeviceSharding(device)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _nbytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
