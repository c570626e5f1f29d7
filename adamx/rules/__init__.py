# SPDX-License-Identifier: Apache-2.0
"""One paper per file, each a formula on one array in float32 (or wider, where the input is)."""

from adamx.core.rule import Kind, Rule
from adamx.rules.adam import adam
from adamx.rules.adamax import adamax
from adamx.rules.adan import adan
from adamx.rules.adopt import adopt
from adamx.rules.amsgrad import amsgrad
from adamx.rules.belief import belief
from adamx.rules.lion import lion
from adamx.rules.radam import radam
from adamx.rules.yogi import yogi

__all__ = [
    "Kind",
    "Rule",
    "adam",
    "adamax",
    "adan",
    "adopt",
    "amsgrad",
    "belief",
    "lion",
    "radam",
    "yogi",
]
