# SPDX-License-Identifier: Apache-2.0
"""The machine code of a kernel for the H100, and the time below which it cannot run.

XLA writes PTX; `ptxas` and `nvdisasm` turn it into the instructions of the chip. Each kind of
instruction has a pipe, and each pipe starts so many per cycle. The busiest one, or the memory,
sets the bound. Code that waits for its own results stays somewhat below it.
"""

import collections
import re
import shutil
import subprocess
import tempfile
from importlib import util
from pathlib import Path
from typing import NamedTuple

from adamx.cli.bench.target.targets import INSTALL
from adamx.cli.flags import UsageError

# Instructions that one multiprocessor of compute capability 9.0 starts per cycle: throughput table
# of the CUDA C++ Programming Guide. A name counts for the first pipe that it matches.
PIPES = {
    "special": (16, r"MUFU"),
    "conversions": (16, r"(I2F|F2I|F2F)$"),
    "integers": (
        64,
        r"(IADD|IMAD|LOP|SHF|ISETP|PRMT|LEA|IMNMX|IABS|SEL|VIADD|VIMNMX|I2I|SGXT|POPC|FLO"
        r"|I2FP|F2IP)",
    ),
    "float32": (128, r"F"),
    "accesses": (32, r"(LDG|STG|LDC)"),
}
ISSUE = 128  # of any kind
CYCLES = 132 * 1.755e9  # per second, over all multiprocessors, at the boost clock under load
BANDWIDTH = 3.0e12  # bytes per second that a copy reaches, of 3.35e12
NOT_COUNTED = ("NOP", "BRA", "EXIT")


class Code(NamedTuple):
    """One kernel: how often each instruction occurs, and the bytes that a thread stores."""

    counts: dict[str, int]
    stored: int


class Bound(NamedTuple):
    """What limits a kernel: instructions per parameter, its busiest pipe, picoseconds of that."""

    instructions: float
    pipe: str
    picoseconds: float


def memory_picoseconds(moved: float) -> float:
    """The time to move so many bytes."""
    return moved / BANDWIDTH * 1e12


def tools_are_here() -> bool:
    """Whether `ptxas` and `nvdisasm` are installed."""
    return None not in (_tool("ptxas"), _tool("nvdisasm"))


def find_kernel(folder: Path, name: str) -> Code | None:
    """The machine code of the kernel of that HLO name, from the PTX files in a folder."""
    entry = re.compile(rf"\.entry\s+{re.sub(r'[^a-zA-Z0-9_]', '_', name)}\(")
    for file in folder.glob("*.ptx"):
        if entry.search(text := file.read_text(encoding="utf-8")):
            return _count(_disassemble(text), re.sub(r"[^a-zA-Z0-9_]", "_", name))
    return None


def bound(code: Code, written: float) -> Bound:
    """The bound of a kernel that writes `written` bytes for each parameter."""
    per_thread = code.stored / written
    total = sum(code.counts.values()) / per_thread
    per_pipe: dict[str | None, float] = collections.defaultdict(float)
    for instruction, count in code.counts.items():
        pipe = next((p for p, (_, names) in PIPES.items() if re.match(names, instruction)), None)
        per_pipe[pipe] += count / per_thread
    cycles = {pipe: per_pipe[pipe] / rate for pipe, (rate, _) in PIPES.items()}
    cycles["issue"] = total / ISSUE
    worst = max(cycles, key=lambda pipe: cycles[pipe])
    return Bound(total, worst, cycles[worst] / CYCLES * 1e12)


def _disassemble(ptx: str) -> str:
    assembler, disassembler = _tool("ptxas"), _tool("nvdisasm")
    assert assembler is not None
    assert disassembler is not None
    chip = re.search(r"\.target\s+(\w+)", ptx)
    assert chip
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx, encoding="utf-8")
        _output_of(assembler, f"-arch={chip[1]}", source, "-o", cubin)
        return _output_of(disassembler, "-c", cubin)


def _output_of(tool: str, *arguments: str | Path) -> str:
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.partition("\n")[0]
        raise UsageError(f"{tool} is too old or damaged ({reason}); {INSTALL}")
    return done.stdout


def _count(text: str, name: str) -> Code:
    counts, stored, inside = collections.Counter(), 0, False
    for line in text.splitlines():
        if section := re.match(r"\s*\.section\s+(\S+?),", line):
            inside = section[1] == f".text.{name}"
        found = re.match(r"\s*/\*\w+\*/\s*(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)", line)
        if not inside or found is None or found[1].startswith(NOT_COUNTED):
            continue
        instruction, *suffixes = found[1].split(".")
        counts[instruction] += 1
        stored += _width(suffixes) if instruction == "STG" else 0
    return Code(dict(counts), stored)


def _width(suffixes: list[str]) -> int:
    """The bytes of one store."""
    widths = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
    return next((widths[suffix] for suffix in suffixes if suffix in widths), 4)


def _tool(name: str) -> str | None:
    """The tool of the `nvidia` wheels, or else that of the system."""
    wheels = util.find_spec("nvidia")
    for folder in (wheels and wheels.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob(f"*/bin/{name}")):
            return str(path)
    return shutil.which(name)
