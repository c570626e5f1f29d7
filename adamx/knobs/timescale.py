# SPDX-License-Identifier: Apache-2.0
"""Weight decay from the time over which weights are averages of their updates, and back."""

from adamx.knobs import checks


def decay_from_timescale(learning_rate: float, epochs: float, steps_per_epoch: float) -> float:
    r"""The `weight_decay` with which AdamW's weights remember their last so many epochs.

    .. math:: \lambda = 1 / (\eta \, \tau), \quad \tau = \text{epochs} \cdot \text{steps per epoch}

    Under decoupled decay weights are a moving average of updates, with :math:`\tau` its time scale
    in steps. The paper finds the best time scale about constant in epochs while models and data
    grow, so that decay falls as data grow, and rises with width where muP lowers the rate. It is
    measured on ResNets, ViTs and language models; for a single epoch take `epochs` well below 1.

    Args:
      learning_rate: the peak of the learning rate.
      epochs: the time scale in epochs.
      steps_per_epoch: the steps in which all data are seen once.

    Returns:
      A number for `weight_decay`, decoupled and multiplied by the learning rate as in all recipes.

    Example:
      >>> print(f"{decay_from_timescale(1e-3, epochs=20, steps_per_epoch=500):.3g}")
      0.1

    References:
      Wang & Aitchison, `How to set AdamW's weight decay as you scale model and dataset size
      <https://arxiv.org/abs/2405.13698>`_, 2024.
    """
    checks.positive(learning_rate=learning_rate, epochs=epochs, steps_per_epoch=steps_per_epoch)
    return 1 / (float(learning_rate) * float(epochs) * float(steps_per_epoch))


def timescale(learning_rate: float, weight_decay: float, steps_per_epoch: float) -> float:
    """The time scale in epochs of a decay that is in use: the way back.

    Args:
      learning_rate: the peak of the learning rate.
      weight_decay: decoupled and multiplied by the learning rate.
      steps_per_epoch: the steps in which all data are seen once.

    Example:
      >>> print(f"{timescale(1e-3, weight_decay=0.1, steps_per_epoch=500):.3g}")
      20
    """
    checks.positive(
        learning_rate=learning_rate, weight_decay=weight_decay, steps_per_epoch=steps_per_epoch
    )
    return 1 / (float(learning_rate) * float(weight_decay) * float(steps_per_epoch))
