# SPDX-License-Identifier: Apache-2.0
"""SOAP: Vyas et al., 2024, arXiv 2409.11321. Adam in the eigenbasis of Shampoo's preconditioner."""

import dataclasses

import optax
from jax.typing import DTypeLike

from adamx.core.compiled import compiled
from adamx.core.hyperparameters import Hyper
from adamx.landing import LandingLike, Nearest
from adamx.optimizers.adam import rule
from adamx.optimizers.recipe import Optimizer, around, recipe
from adamx.optimizers.soap_link import Soap
from adamx.storage import StorageLike, choose
from adamx.transforms.weight_decay import Decay, Mask

__all__ = ["scale_by_soap", "soap"]


def scale_by_soap(
    b1: Hyper = 0.95,
    b2: Hyper = 0.95,
    eps: Hyper = 1e-8,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10_000,
    shampoo_beta: Hyper | None = None,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
) -> Optimizer:
    """The direction of `adamx.soap`, uphill and without a learning rate."""
    link = _link(
        "scale_by_soap", b1, b2, eps, precondition_frequency, max_precond_dim, shampoo_beta,
        mu_dtype, nu_dtype, storage,
    )  # fmt: skip
    return compiled(Nearest(link), link.rule.hyper, [*link.rule.hyper.values(), shampoo_beta])


@recipe(scale_by_soap, elementwise=False)
def soap(
    learning_rate: optax.ScalarOrSchedule,
    b1: Hyper = 0.95,
    b2: Hyper = 0.95,
    eps: Hyper = 1e-8,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10_000,
    shampoo_beta: Hyper | None = None,
    weight_decay: Hyper | Decay | None = 1e-2,
    mask: Mask | None = None,
    *,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
) -> Optimizer:
    r"""SOAP: Adam in the slowly turning eigenbasis of Shampoo's preconditioner.

    .. math:: G' &= Q_L^\top G \, Q_R, \quad
        p \leftarrow p - \alpha \left( Q_L \, \mathrm{Adam}(G') \, Q_R^\top + \lambda p \right) \\
        L &\leftarrow \beta L + (1 - \beta) \, G G^\top, \quad
        R \leftarrow \beta R + (1 - \beta) \, G^\top G

    with the eigenvectors Q of L and R, of the steps before. The first step finds them and moves
    nothing but by its decay, which the authors' code leaves out too; later ones are improved by a
    power iteration and QR. Each dimension of a leaf has such a basis, but vectors, and dimensions
    that are longer than `max_precond_dim`, are left to Adam. A kernel of m x n takes 8 (m² + n²)
    bytes beside Adam's moments. A basis of more columns than gradients so far have directions is
    completed at will, and so rounding decides its first steps.

    Evidence: with tuned rates the fewest steps to a loss, with Muon, in two benchmarks of language
    models (arXiv 2509.02046, 2509.01440): 1.4 times fewer than AdamW at 0.1B parameters, 1.1 times
    at 1.2B. Its memory, and its time at high frequencies, speak against it.

    Args:
      b1: How slowly the mean of gradients forgets, in [0, 1).
      eps: Added to the root before its bias correction.
      precondition_frequency: The number of steps between two improvements of the bases.
      max_precond_dim: The longest dimension with a basis; 1 for none.
      shampoo_beta: How slowly L and R forget, in [0, 1); None for `b2`.
      storage: How the moments are stored, in the eigenbasis. L, R and Q are float32.

    Example:
      >>> import adamx, jax.numpy as jnp
      >>> opt = adamx.soap(1e-3, max_precond_dim=8192)
      >>> params = {"embedding": jnp.ones((50257, 16)), "bias": jnp.ones(16)}
      >>> state = opt.init(params)
      >>> [getattr(q, "shape", None) for q in state[0].bases["embedding"]]
      [None, (16, 16)]

    References:
      Vyas et al., `SOAP: Improving and Stabilizing Shampoo using Adam
      <https://arxiv.org/abs/2409.11321>`_, 2024.
    """
    link = _link(
        "soap", b1, b2, eps, precondition_frequency, max_precond_dim, shampoo_beta,
        mu_dtype, nu_dtype, storage,
    )  # fmt: skip
    hyper = link.rule.hyper
    return around(link, "soap", hyper, learning_rate, weight_decay, mask, landing)


def _link(
    name: str,
    b1: Hyper,
    b2: Hyper,
    eps: Hyper,
    precondition_frequency: int,
    max_precond_dim: int,
    shampoo_beta: Hyper | None,
    mu_dtype: DTypeLike | None,
    nu_dtype: DTypeLike | None,
    storage: StorageLike | None,
) -> Soap:
    """Adam's rule, whose mean may exceed its root when the basis turns: a "spread" square."""
    adam = rule(b1, b2, eps, eps_mode="hat")
    adam = dataclasses.replace(adam, name=name, moments={"mu": "signed", "nu": "spread"})
    choice = choose(storage, mu_dtype, nu_dtype)
    return Soap(name, adam, choice, shampoo_beta, precondition_frequency, max_precond_dim)
