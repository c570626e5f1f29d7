# SPDX-License-Identifier: Apache-2.0
"""Decay rates of averages from their half-life in tokens, and back."""

import math

from adamx.core import hyperparameters
from adamx.knobs import checks


def beta2_from_half_life(tokens: float, batch: float) -> float:
    r"""The b2 with which a gradient's weight in the average halves after so many tokens.

    .. math:: b_2 = 2^{-B / T}

    With a fixed half-life, b2 follows the batch size: 0.95 at 500,000 tokens per step is 0.9999 at
    1,000. The paper finds that small batches then train as well as large ones, and that the best
    half-life hardly moves with the batch; it measures language models of up to 1.3 billion
    parameters. The same formula serves b1, where it found less to gain.

    Args:
      tokens: the half-life T in tokens, or in whatever else `batch` counts.
      batch: B, the tokens of one step: sequences times their length.

    Returns:
      A number for `b2` (or `b1`) of any recipe.

    Example:
      >>> print(f"{beta2_from_half_life(tokens=10e6, batch=524288):.4f}")
      0.9643
      >>> print(f"{beta2_from_half_life(tokens=10e6, batch=512):.6f}")
      0.999965

    References:
      Marek et al., `Small Batch Size Training for Language Models
      <https://arxiv.org/abs/2507.07101>`_, 2025.
    """
    checks.positive(tokens=tokens, batch=batch)
    b = 2.0 ** (-float(batch) / float(tokens))
    if b == 1:
        raise ValueError(f"`tokens` must be at most 1e16 batches: b2 is 1 in floats, got {tokens}")
    return b


def half_life(b: float, batch: float) -> float:
    r"""The tokens after which a gradient's weight halves in an average with decay rate `b`.

    .. math:: T = B \, \ln 2 / {-\ln b}

    Args:
      b: b1 or b2, above 0 and below 1.
      batch: B, the tokens of one step.

    Example:
      >>> print(f"{half_life(0.95, batch=524288):,.0f}")
      7,084,917
    """
    checks.positive(b=b, batch=batch)
    hyperparameters.check(b2=float(b))
    return float(batch) * math.log(2) / -math.log(float(b))
