# SPDX-License-Identifier: Apache-2.0
"""Plan the memory of a run: the bytes on each device, every storage and landing side by side.

SOURCE is a model's name, a JSON file of shapes ({"dense": {"kernel": [768, 3072], "bias":
{"shape": [3072], "dtype": "float32"}}}), a safetensors file, of which only the header is read, or
the index of several. Leaves that name no dtype are bfloat16. Nothing is allocated.

Counted are parameters, their gradients, and what the optimizer keeps of each; not activations. On a
mesh the axis `data` copies, and with --zero also splits; every other axis splits every array, along
the largest dimension that it divides. What it divides nowhere is copied. B/param is the total on
one device over all parameters of the model.
"""

from adamx.cli.plan.command import add_arguments, run

__all__ = ["add_arguments", "run"]
