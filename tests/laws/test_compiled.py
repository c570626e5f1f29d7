# SPDX-License-Identifier: Apache-2.0
"""Contract 14: what XLA makes of a step for an H100 and for a TPU v5e, without either.

The compilers come as wheels (`pip install -e ".[targets]"`) and run on any machine.
"""

import functools
import itertools

import pytest

from adamx.cli.bench.target import machine_code
from adamx.cli.bench.target.compiler import Compiler
from adamx.cli.bench.target.program import Program, Step
from adamx.cli.bench.target.targets import TARGETS
from adamx.cli.shapes import TREES
from tests.cases import LANDINGS, STORAGES

BYTES = 1.02  # times the fewest; a kernel also reads scalars and a number for each row
TEMPORARY = 0.01  # bytes per parameter: those scalars and numbers

# The most instructions per parameter on an H100: dtype of the parameter, storage, landing.
FLOAT32 = {"float32": 40, "bfloat16": 70, "int8": 100, "int4": 100}
BFLOAT16 = {
    "float32": {"nearest": 45, "stochastic": 60, "exact": 60, "kahan": 75, "compensated8": 70},
    "bfloat16": {"nearest": 70, "stochastic": 70, "exact": 70, "kahan": 80, "compensated8": 80},
    "int8": {"nearest": 100, "stochastic": 100, "exact": 100, "kahan": 120, "compensated8": 120},
    "int4": {"nearest": 100, "stochastic": 100, "exact": 100, "kahan": 120, "compensated8": 120},
}
INSTRUCTIONS = {
    **{("float32", storage, "nearest"): most for storage, most in FLOAT32.items()},
    **{
        ("bfloat16", storage, landing): BFLOAT16[storage][landing]
        for storage, landing in itertools.product(STORAGES, LANDINGS)
    },
}
EVERY = pytest.mark.parametrize("dtype, storage, landing", INSTRUCTIONS)

# XLA for TPUs splits the other steps into several kernels.
ONE_KERNEL_ON_TPU = [
    ("float32", "float32", "nearest"),
    ("float32", "bfloat16", "nearest"),
    ("bfloat16", "float32", "nearest"),
    ("bfloat16", "float32", "stochastic"),
    ("bfloat16", "bfloat16", "stochastic"),
]
# Not with a remainder: where results have 8, 16 and 32 bits, XLA makes three to five kernels.
FAST_ON_TPU = [
    *itertools.product(["float32"], ["float32", "bfloat16", "int8", "int4"], ["nearest"]),
    *itertools.product(
        ["bfloat16"], ["float32", "bfloat16", "int8", "int4"], ["nearest", "stochastic"]
    ),
]
OTHER_RULES = ("lion", "adan", "adabelief", "amsgrad", "adopt", "yogi", "adamax")


@pytest.fixture(scope="module")
def compiled():
    """Compiles a step for a target, once; skips the test where the compiler is not installed."""
    compilers: dict[str, Compiler] = {}

    @functools.cache
    def compile_for(target: str, recipe: str, *settings: str | None, tree: str = "one") -> Program:
        if TARGETS[target].wheel() is None:
            pytest.skip(f'no compiler for {target}: pip install -e ".[targets]"')
        if target not in compilers:
            compilers[target] = Compiler(TARGETS[target])
        return compilers[target](Step(recipe, *settings, tree=TREES[tree]()))

    yield compile_for
    for compiler in compilers.values():
        compiler.close()


def check_traffic(program: Program) -> None:
    assert program.moved <= BYTES * program.fewest
    assert program.temporary <= TEMPORARY


@EVERY
def test_a_leaf_is_one_kernel_on_an_h100_that_moves_the_fewest_bytes(
    compiled, dtype, storage, landing
):
    program = compiled("h100", "adamw", dtype, storage, landing)
    assert program.large == 1
    check_traffic(program)


@EVERY
def test_instructions_on_an_h100_are_few(compiled, dtype, storage, landing):
    program = compiled("h100", "adamw", dtype, storage, landing)
    if not machine_code.tools_are_here():
        pytest.skip('no ptxas or nvdisasm: pip install -e ".[targets]"')
    assert program.instructions is not None
    assert program.instructions <= INSTRUCTIONS[dtype, storage, landing]


@pytest.mark.parametrize("recipe", OTHER_RULES)
def test_every_rule_is_one_kernel_on_an_h100_that_moves_the_fewest_bytes(compiled, recipe):
    program = compiled("h100", recipe, "float32", "int8", "nearest")
    assert program.large == 1
    check_traffic(program)


@pytest.mark.parametrize("dtype, storage, landing", ONE_KERNEL_ON_TPU)
def test_a_leaf_is_one_kernel_on_a_tpu_that_moves_the_fewest_bytes(
    compiled, dtype, storage, landing
):
    program = compiled("tpu-v5e", "adamw", dtype, storage, landing)
    assert program.large == 1
    check_traffic(program)


@pytest.mark.parametrize("dtype, storage, landing", FAST_ON_TPU)
def test_a_tpu_needs_no_more_cycles_than_for_optax_in_float32(compiled, dtype, storage, landing):
    optax = compiled("tpu-v5e", "adamw", "float32", None, "nearest")
    program = compiled("tpu-v5e", "adamw", dtype, storage, landing)
    assert program.cycles is not None
    assert program.cycles <= 1.01 * optax.cycles  # an estimate; scalars cost some cycles, too


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype, storage, landing", [("float32", "int8", "nearest"), ("bfloat16", "int8", "stochastic")]
)
def test_gpt2_moves_the_fewest_bytes_on_an_h100(compiled, dtype, storage, landing):
    check_traffic(compiled("h100", "adamw", dtype, storage, landing, tree="gpt2"))
