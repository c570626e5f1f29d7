# SPDX-License-Identifier: Apache-2.0
"""How a float32 step lands in a parameter. Each landing is one file."""

from adamx.landing.nearest import nearest

__all__ = ["nearest"]
