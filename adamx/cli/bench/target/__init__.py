# SPDX-License-Identifier: Apache-2.0
"""Counts what a step will do on an accelerator that this machine does not have.

XLA's compilers for NVIDIA GPUs and for TPUs come as Python wheels and run without a chip. A child
process (`worker.py`) compiles the steps; the parent (`compiler.py`) sends them and prints tables.
"""
