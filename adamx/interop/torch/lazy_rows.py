# SPDX-License-Identifier: Apache-2.0
"""`torch.optim.SparseAdam`: rows of an embedding that no token names are left alone.

torch's gradient there lists rows; a row that is not listed keeps its moments and its weights, while
the count of steps goes on for all. A gradient of JAX is dense, and a row of it that is zero
throughout stands for one that is not listed. A row that torch lists with zeros moves there (its
mean does not vanish), and not here.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamx.core import paths
from adamx.core.compiled import transformation
from adamx.core.hyperparameters import Hyper
from adamx.core.state_paths import Owned, owned
from adamx.core.values import value
from adamx.interop.torch.arguments import ascending, ignored, number, two
from adamx.landing import LandingLike
from adamx.optimizers.adam import adam
from adamx.storage import StorageLike


def sparse_adam(
    lr: Hyper = 1e-3,
    betas: tuple[Hyper, Hyper] = (0.9, 0.999),
    eps: Hyper = 1e-8,
    maximize: bool = False,
    *,
    storage: StorageLike | None = None,
    landing: LandingLike = "nearest",
    **rest: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""`torch.optim.SparseAdam`: Adam on the rows whose gradient is not zero throughout.

    .. math:: m_i, v_i, p_i \leftarrow \text{a step of Adam at time } t
        \text{ where } g_i \ne 0, \text{ else as they were}

    Epsilon is added to the uncorrected root, as in torch. A row is an index of the first axis; in
    vectors and scalars every element is a row. Where an axis other than the first is sharded by
    `shard_map` or `pmap`, a device sees a part of a row only, and decides by that part.

    Args:
      lr, betas, eps, maximize, storage, landing: as in `adam`.
      **rest: as in `adam`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> opt = sparse_adam(lr=0.5)
      >>> params = jnp.ones((2, 2))
      >>> grads = jnp.array([[3.0, 0.0], [0.0, 0.0]])
      >>> updates, state = opt.update(grads, opt.init(params), params)
      >>> print(optax.apply_updates(params, updates))
      [[0.5 1. ]
       [1.  1. ]]
    """
    ignored("sparse_adam", rest, ("lr", "betas", "eps", "maximize"))
    (b1, b2), eps = two(betas), number(eps)
    dense = adam(number(lr), b1, b2, eps, eps_mode="hat", storage=storage, landing=landing)
    return ascending(transformation(LazyRows(dense)), maximize)


@value
class LazyRows:
    """A transformation that leaves alone, in state and parameter, the rows without a gradient."""

    inner: Any

    def init(self, params: optax.Params) -> Any:
        return self.inner.init(params)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        steps, after = self.inner.update(updates, state, params, **extra)
        alive = {path: _alive(g) for path, g in paths.flatten(updates)[0]}
        steps = jax.tree.map(
            lambda g, u: jnp.where(_alive(g), u, jnp.zeros_like(u)), updates, steps
        )
        rows = zip(owned(state, updates), owned(after, updates), strict=True)
        kept = [
            jnp.where(alive[new.owner], new.leaf, old.leaf) if _has_rows(new) else new.leaf
            for old, new in rows
        ]
        return steps, jax.tree.structure(after).unflatten(kept)


def _has_rows(x: Owned) -> bool:
    """Whether a leaf of the state is a parameter's, and not the count beside one bare scalar."""
    return x.is_alike and x.leaf.dtype != jnp.int32


def _alive(g: Any) -> jax.Array:
    """Which rows have a gradient, in a shape that broadcasts against them."""
    g = jnp.asarray(g)
    return jnp.any(g != 0, axis=tuple(range(1, g.ndim)), keepdims=True)
