# SPDX-License-Identifier: Apache-2.0
"""Flags that do nothing in this run, said in one line each."""

from adamx.cli.train.settings import Settings


def without_effect(args: Settings, devices: int) -> list[str]:
    """A line for each flag that changes nothing.

    Example:
      >>> print(*without_effect(Settings(landing="kahan"), devices=2))
      --landing kahan does nothing for float32 parameters: add --dtype bfloat16 to use it
    """
    notes = []
    if args.landing != "nearest" and args.dtype == "float32":
        remedy = "add --dtype bfloat16 to use it"
        notes.append(f"--landing {args.landing} does nothing for float32 parameters: {remedy}")
    if args.zero and devices == 1:
        notes.append("--zero does nothing on one device: add --devices 2 or more to use it")
    return notes
