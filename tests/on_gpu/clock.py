# SPDX-License-Identifier: Apache-2.0
"""The flags that every part takes, and how much of its time is left."""

import argparse
import time
from typing import NamedTuple


class Clock(NamedTuple):
    """When a part has to end, and whether sizes are tiny."""

    end: float
    quick: bool

    @classmethod
    def of_flags(cls) -> "Clock":
        """From `--seconds` and `--quick`."""
        begun = time.monotonic()
        parser = argparse.ArgumentParser()
        parser.add_argument("--seconds", type=float, default=120)
        parser.add_argument("--quick", action="store_true")
        args = parser.parse_args()
        return cls(begun + args.seconds, args.quick)

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()
