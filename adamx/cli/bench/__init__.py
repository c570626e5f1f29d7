# SPDX-License-Identifier: Apache-2.0
"""Measure our recipes beside Optax's and torch's.

All contestants run in this one process, in turn, so that other load on the machine slows all of
them. A figure is the median of its samples. A ratio is ours divided by Optax's in each round, the
median over the rounds, with quartiles where there is noise. Equations are those of `update`. Trace,
lower, compile and temporary memory are those of a jitted step that updates and applies, on fresh
functions and empty caches. The jitted step owns its parameters and state (donated). The eager
update runs without jit, from the second call on.

With --target nothing is run: steps are compiled for an accelerator that this machine does not have,
and what the compiler made of them is counted.

    python -m adamx bench --quick --recipes adamw --storages int8
"""

from adamx.cli.bench.command import add_arguments, run

__all__ = ["add_arguments", "run"]
