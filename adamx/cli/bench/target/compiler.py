# SPDX-License-Identifier: Apache-2.0
"""A compiler in a process of its own.

Loading these compilers disturbs the process that does it: they log, and JAX takes the devices for
usable. What a compiler needs in its environment has to be there before JAX starts, too.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import adamx
from adamx.cli.bench.target.program import Program, Step
from adamx.cli.bench.target.targets import INSTALL, Target
from adamx.cli.flags import UsageError

NOT_INHERITED = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_NUM_CPU_DEVICES")
COMMAND = (sys.executable, "-m", "adamx.cli.bench.target.worker")


class Compiler:
    """Compiles steps for one target; a context manager, and a function from step to program."""

    def __init__(self, target: Target):
        target.check_wheels()
        self._target, self._said = target, tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [*COMMAND, target.name],
            env=_environment(target),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        self._answer()  # the compiler is there

    def __call__(self, step: Step) -> Program:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # the answer says why
            self._process.stdin.write(json.dumps(step._asdict()) + "\n")
            self._process.stdin.flush()
        answer = self._answer()
        if "refused" in answer:
            raise UsageError(answer["refused"])
        return Program(**answer)

    def __enter__(self) -> "Compiler":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit code {self._process.returncode}"
        self.close()
        raise UsageError(
            f"--target {self._target.name}: the compiler failed ({reason}); "
            f"its wheels may be incomplete or of another version than jaxlib; {INSTALL}"
        )


def _environment(target: Target) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED}
    home = str(Path(adamx.__file__).parents[1])
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    return {**inherited, **target.environment, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
