# SPDX-License-Identifier: Apache-2.0
"""How two optimizers differ, and by how much that moves a run.

Nothing is looked up: both are run on small problems in float64, and what they do is put into words.
Of a name such as "torch.AdamW" the hyperparameters are known too.
"""

from adamx.explain.compare import explain
from adamx.explain.explanation import Difference, Explanation, Move

__all__ = ["Difference", "Explanation", "Move", "explain"]
