# SPDX-License-Identifier: Apache-2.0
"""Plan the memory of a run: the bytes on each device for every storage and landing.

SOURCE is a model's name, a JSON file of shapes ({"dense": {"kernel": [768, 3072], "bias":
{"shape": [3072], "dtype": "float32"}}}), a safetensors file (only its header is read), or the
index of several. Leaves without a dtype are bfloat16. Nothing is allocated.

The bytes are those of the parameters, their gradients and the optimizer's state, not of
activations. On a mesh the axis `data` copies every array, and with --zero splits some; every other
axis splits every array. An axis splits the largest dimension that it divides, and copies the array
if it divides none. B/param is the total on one device over the parameters of the whole model.

    python -m adamx plan llama3-8b --mesh data=8 --zero 1
"""

from adamx.cli.plan.command import add_arguments, run

__all__ = ["add_arguments", "run"]
