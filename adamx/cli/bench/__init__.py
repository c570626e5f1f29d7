# SPDX-License-Identifier: Apache-2.0
"""Measure our recipes beside Optax's and torch's.

Every contestant runs in this one process, in turn, so that whatever else keeps the machine busy
slows all of them. A figure is the median of its samples; a ratio is the median over the rounds of
ours divided by Optax's, with its quartiles where there is noise. Equations are those of `update`;
trace, lower, compile and the temporary memory are those of a jitted step that updates and applies,
on fresh functions and empty caches; the jitted step owns its parameters and state (donated); the
eager update runs without jit, from the second call on.
"""

from adamx.cli.bench.command import add_arguments, run

__all__ = ["add_arguments", "run"]
