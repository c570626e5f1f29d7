# SPDX-License-Identifier: Apache-2.0
"""`bench --target`: what it reads from compiled programs, what it prints, what it refuses."""

import dataclasses
import importlib.metadata
import sys
from pathlib import Path

import pytest

from adamx.cli.bench.target import machine_code
from adamx.cli.bench.target.compiler import Compiler
from adamx.cli.bench.target.hlo import kernels
from adamx.cli.bench.target.machine_code import Code, bound
from adamx.cli.bench.target.program import Program
from adamx.cli.bench.target.table import tables
from adamx.cli.bench.target.targets import TARGETS
from adamx.cli.flags import UsageError
from tests.cli.commands import here, number, refused, table

# A step of a TPU, shortened: `p` is copied to the memory of the core, and a part of `g` too.
HLO = """HloModule jit_step

%fused_computation (a: f32[8,128]) -> f32[8,128] {
  ROOT %neg = f32[8,128]{1,0} negate(%a)
}

ENTRY %main (p: f32[8,128], g: bf16[8,128], n: s32[]) -> f32[8,128] {
  %p = f32[8,128]{1,0} parameter(0)
  %g = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(1)
  %n = s32[]{:T(128)} parameter(2)
  %copy-start = (f32[8,128]{1,0:S(1)}, f32[8,128]{1,0}, u32[]{:S(2)}) copy-start(%p)
  %slice-start = ((bf16[8,128]), bf16[2,128]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%g), slice={}
  %copy-done = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %slice-done = bf16[2,128]{1,0:S(1)} slice-done(%slice-start)
  %add = s32[]{:T(128)} add(%n, %n)
  %fusion = (f32[8,128]{1,0}, /*index=1*/s32[]) fusion(%copy-done, %g, %n), kind=kLoop, CYCLES
  ROOT %get = f32[8,128]{1,0:T(8,128)} get-tuple-element(%fusion), index=0
}
""".replace("CYCLES", 'backend_config={"estimated_cycles":"42"}')
ON_GPU = Program(1, 3, 0, 16.0, 16.0, 0.0, [0.5, 1.0, 0.5], 5.0, 200.0, "conversions", 10.0)
ON_TPU = Program(1000, 1003, 9, 16.0, 8.0, 0.0, [1234.5], cycles=0.05)


def test_only_traffic_to_the_main_memory_counts():
    copy, part, add, fusion = kernels(HLO)
    assert (copy.is_copy, copy.read, copy.written) == (True, 4096, 0)
    assert (part.is_copy, part.read, part.written) == (True, 512, 0)
    assert (add.largest, add.moved, add.cycles) == (1, 12, None)
    assert (fusion.largest, fusion.read, fusion.written) == (1024, 2048 + 4, 4096 + 4)
    assert fusion.cycles == 42


def test_the_busiest_pipe_bounds_a_kernel():
    # Four parameters a thread: 24 bytes stored, of which each parameter takes 6.
    by_issue = bound(Code({"FFMA": 300, "IADD3": 100, "STG": 4}, 24), 6.0)
    assert by_issue.instructions == 101
    assert by_issue.pipe == "issue"
    by_special = bound(Code({"FFMA": 40, "MUFU": 20}, 24), 6.0)
    assert by_special.pipe == "special"
    assert by_special.picoseconds == pytest.approx(5 / 16 / (132 * 1.755e9) * 1e12)


def test_names_of_kernels_are_those_of_their_machine_code():
    said = """
	.section	.text.loop_fusion,"ax",@progbits
        /*0000*/                   FADD R1, R2, R3 ;
	.section	.text.loop_fusion_1,"ax",@progbits
        /*0000*/                   @P0 EXIT ;
        /*0010*/                   FADD R1, R2, R3 ;
        /*0020*/              @!P1 STG.E.U8 desc[UR4][R2.64], R1 ;
        /*0030*/                   STG.E.128 desc[UR4][R4.64], R8 ;
"""
    assert machine_code._count(said, "loop_fusion_1") == Code({"FADD": 1, "STG": 2}, 17)


@pytest.mark.parametrize("program", [ON_GPU, ON_TPU])
def test_tables_fit_in_80_columns(program: Program):
    programs = {"Optax": program, "bfloat16 compensated8": program._replace(seconds=[1.0])}
    shown = tables(programs, program, markdown=False)
    assert max(map(len, shown.splitlines())) <= 80
    assert table(shown, "x Optax float32")["Optax"][-1] == "1.00"
    assert tables(programs, program, markdown=True).count("\n") == 3


def test_ratios_are_to_optax_of_the_same_dtype_and_speeds_to_float32():
    ours = ON_GPU._replace(compute=4.0, seconds=[1.0])
    shown = tables({"Optax": ON_GPU, "int8": ours}, ON_GPU._replace(compute=20.0), markdown=False)
    program, chip = shown.split("\n\n")
    assert table(program, "/ Optax")["int8"][-2:] == ["1.00", "2.00"]
    assert table(chip, "bandwidth")["int8"][-2:] == ["100%", "4.00"]
    assert table(chip, "bandwidth")["Optax"][-2:] == ["50%", "2.00"]


def test_without_machine_code_its_columns_are_empty():
    bare = ON_GPU._replace(instructions=None, pipe=None, compute=None)
    assert tables({"Optax": bare}, bare, markdown=False).splitlines()[-1] == "Optax"


@pytest.mark.parametrize("target", TARGETS)
def test_a_missing_wheel_is_a_sentence_with_the_command_that_installs_it(
    target: str, monkeypatch: pytest.MonkeyPatch
):
    def no_version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", no_version)
    said = refused(f"bench --target {target}")
    assert f"{TARGETS[target].wheels[0]} is not installed" in said
    assert 'pip install "adamx[targets]"' in said


@pytest.mark.parametrize("flag", ["--json x.json", "--devices 2", "--guards"])
def test_a_target_excludes_what_needs_a_device(flag: str):
    assert "--target excludes" in refused(f"bench --target h100 {flag}")


def test_a_target_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        here("bench --target abacus")


def test_an_old_assembler_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tool = tmp_path / "ptxas"
    tool.write_text("#!/bin/sh\necho 'Unsupported .version 9.0' >&2\nexit 255\n")
    tool.chmod(0o755)
    monkeypatch.setattr(machine_code, "_tool", lambda name: str(tool))
    with pytest.raises(UsageError, match=r"ptxas is too old or damaged \(Unsupported"):
        machine_code._disassemble(".version 9.0\n.target sm_90a\n")


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    """A target with a compiler that is installed."""
    if TARGETS[request.param].wheel() is None:
        pytest.skip(f'no compiler for {request.param}: pip install "adamx[targets]"')
    return request.param


def test_each_dtype_has_a_table(target: str):
    line = f"bench --target {target} --trees small --storages int8 --landings exact"
    code, out, err = here(line)
    assert (code, err.count("\n")) == (0, 2)
    assert max(map(len, out.splitlines())) <= 80
    title = "adamw on small: 1,360 parameters in 10 leaves, "
    for dtype, row, fewest in (("float32", "int8", 28.01), ("bfloat16", "int8 exact", 14.01)):
        part = out.partition(f"{title}{dtype}\n\n")[2].partition("\n\n")[0]
        figures = table(part, "fewest")
        assert row in figures
        assert number(figures["Optax"][2]) == fewest


def test_a_compiler_that_fails_is_a_sentence(target: str, monkeypatch: pytest.MonkeyPatch):
    stopped = (sys.executable, "-c", "import sys; sys.exit('no such topology')")
    monkeypatch.setattr("adamx.cli.bench.target.compiler.COMMAND", stopped)
    with pytest.raises(UsageError, match=r"the compiler failed \(no such topology\)"):
        Compiler(dataclasses.replace(TARGETS[target]))
