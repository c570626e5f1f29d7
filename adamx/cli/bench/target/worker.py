# SPDX-License-Identifier: Apache-2.0
"""The child process: reads steps as lines of JSON, compiles each, writes programs as lines of JSON.

The compilers write to stdout and stderr as they please, some before `main` could stop them. So
everything but the answers goes to stderr, and the parent keeps that to itself.
"""

import json
import os
import sys

from adamx.cli.bench.target.program import Step, compile_step
from adamx.cli.bench.target.targets import TARGETS
from adamx.cli.flags import UsageError

WARM_UP = Step("adamw", "float32", None, "nearest", {"leaf": (16, 128)})


def main() -> None:
    """Serves until stdin ends; the first answer says that the compiler is there."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    device = TARGETS[sys.argv[1]].devices()[0]
    compile_step(WARM_UP, device)  # what is loaded at first use is in no sample
    print(json.dumps({"device": device.device_kind}), file=answers)
    for line in sys.stdin:
        try:
            answer = compile_step(Step(**json.loads(line)), device)._asdict()
        except UsageError as error:
            answer = {"refused": str(error)}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
