# SPDX-License-Identifier: Apache-2.0
"""A table of what an optimizer does to each leaf: `adamx.describe`.

Nothing is computed and nothing allocated. What cannot be told of a transformation of others is left
out; its name is that of the function that made it.

    table.py      the table: one row a leaf, from the links that see it and the shapes of the state
    names.py      what optimizers and links are called
    rates.py      the rate that links say they have
    decays.py     the decay
    settings.py   the storage
    folded.py     leaves alike in one row
"""

from adamx.describe.table import Description, describe

__all__ = ["Description", "describe"]
