# SPDX-License-Identifier: Apache-2.0
"""muP: each leaf's learning rate for a wider model, from the shapes of a narrow one.

A rate that was tuned on the narrow model is then right for the wide one. Initial values and the
model itself (attention scaled by 1/d, small or zero output weights) are left to the model.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import optax

from adamx.core import hyperparameters, paths, shards
from adamx.core.compiled import compiled
from adamx.core.values import value
from adamx.landing import Nearest
from adamx.transforms.learning_rate import scaled

Inputs = Mapping[str, tuple[int, ...]]
Logits = Literal["plain", "divided"]


def mup_multipliers(
    params: optax.Params,
    base: optax.Params,
    *,
    inputs: Inputs | None = None,
    logits: Logits = "plain",
) -> Any:
    r"""What to multiply Adam's learning rate by, leaf by leaf, in a model wider than `base`.

    With :math:`r` the ratio of a leaf's number of inputs to that in the base model:

    | leaf                           | grows with the width | multiplier                         |
    |--------------------------------|----------------------|------------------------------------|
    | embedding, vector, first layer | at most outputs      | 1                                  |
    | hidden layer                   | inputs and outputs   | 1 / r                              |
    | output layer                   | inputs               | 1 / r, or 1 for `logits="divided"` |

    The paper moves rates from 40 million to 6.7 billion parameters. Rates move over width only:
    the base model has the vocabulary, the depth and the data of the wide one. Epsilon has to stay
    small beside gradients, which shrink with the width (or `eps_mode="atan2"`).

    Args:
      params: the parameters of the wide model, or their shapes.
      base: the parameters of the narrow model, or their shapes:
        `jax.eval_shape(narrow.init, key, x)`.
      inputs: the axes that are a leaf's inputs, by path pattern: `{"*/query/kernel": (0,)}` for
        a kernel of shape (width, heads, size), `{"*/weight": (1,)}` for Equinox. Leaves that match
        none have inputs in all axes but the last, as in Flax.
      logits: `"plain"` for an output layer as it is; `"divided"` where the model divides its logits
        by r.

    Returns:
      A tree of floats like `params`. As labels they make groups with their own rate and decay:
      `optax.partition({m: adamx.adamw(m * rate, weight_decay=decay / m) for m in (1.0, 0.25)},
      multipliers)`.

    Example:
      >>> import jax
      >>> def shapes(width):
      ...     sizes = {"embed": (100, width), "dense": (width, 4 * width), "head": (width, 100)}
      ...     return {k: jax.ShapeDtypeStruct(s, "float32") for k, s in sizes.items()}
      >>> mup_multipliers(shapes(512), shapes(128))
      {'dense': 0.25, 'embed': 1.0, 'head': 0.25}

    References:
      Yang et al., `Tensor Programs V <https://arxiv.org/abs/2203.03466>`_, 2022, tables 3 (plain)
      and 8 (divided).
    """
    link = _link(base, inputs, logits)
    link.init(params)
    return paths.mapped(lambda name, x: link.multiplier(name, jnp.shape(x)), params)


def scale_by_mup(
    base: optax.Params, *, inputs: Inputs | None = None, logits: Logits = "plain"
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by `mup_multipliers`, for a chain: after the rule, before the decay.

    Behind a whole recipe it would scale weight decay too, which muP leaves as it is, and undo the
    recipe's landing.

    Args:
      base: the parameters of the narrow model, or their shapes.
      inputs, logits: see `mup_multipliers`.

    Example:
      >>> import adamx, jax
      >>> base = {"dense": jax.ShapeDtypeStruct((2, 2), "float32")}
      >>> opt = adamx.landing.ending(
      ...     [
      ...         adamx.scale_by_adam(),
      ...         scale_by_mup(base),
      ...         adamx.add_decayed_weights(0.1),
      ...         adamx.scale_by_learning_rate(1e-2),
      ...     ],
      ...     adamx.landing.kahan(),
      ... )
      >>> params = {"dense": jnp.zeros((8, 8), jnp.bfloat16)}
      >>> updates, state = opt.update({"dense": jnp.ones((8, 8))}, opt.init(params), params)
      >>> print(f"{updates['dense'][0, 0]:.4f}")
      -0.0025
    """
    return compiled(Nearest(_link(base, inputs, logits)), ())


def _link(base: Any, inputs: Inputs | None, logits: Logits) -> "ScaleByMup":
    hyperparameters.check_choice("logits", logits, ("plain", "divided"))
    shapes = tuple((paths.name(path), tuple(jnp.shape(x))) for path, x in paths.flatten(base)[0])
    rows = tuple((pattern, tuple(axes)) for pattern, axes in (inputs or {}).items())
    paths.check_used("`inputs`", [pattern for pattern, _ in rows], base)
    return ScaleByMup(shapes, rows, logits == "divided")


@value
class ScaleByMup:
    """The link: shapes of the base model by name, input axes by pattern."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    divides_logits: bool

    def init(self, params: optax.Params) -> Any:
        names = paths.names(params)
        missing = [name for name, _ in self.shapes if name not in names]
        if missing and not paths.is_hidden(params):
            raise ValueError(f"{missing[0]}: the base model has this leaf, the parameters do not")
        for path, p in paths.flatten(params)[0]:
            name = paths.name(path)
            self.multiplier(name, shards.whole(name, jnp.shape(p)))
        return optax.EmptyState()

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        def one(name: str, u: Any) -> Any:
            return scaled(u, self.multiplier(name, shards.whole(name, jnp.shape(u))))

        return paths.mapped(one, updates), state

    def multiplier(self, name: str, shape: tuple[int, ...]) -> float:
        """What the learning rate of one leaf of this whole shape is multiplied by."""
        base = dict(self.shapes).get(name)
        if base is None:
            raise ValueError(f"{name}: the parameters have this leaf, the base model does not")
        if len(base) != len(shape):
            raise ValueError(
                f"{name}: must have as many dimensions as in the base model, got {shape} and {base}"
            )
        inputs = self._inputs(name, len(shape))
        ratio = math.prod(max(shape[i], 1) / max(base[i], 1) for i in inputs)
        outputs = [i for i in range(len(shape)) if i not in inputs]
        is_hidden = any(shape[i] != base[i] for i in outputs)
        return 1.0 if self.divides_logits and not is_hidden else 1 / ratio

    def _inputs(self, name: str, ndim: int) -> tuple[int, ...]:
        axes = next((axes for p, axes in self.inputs if paths.matches(p, name)), None)
        if axes is None:
            return tuple(range(ndim - 1)) if ndim > 1 else ()
        if wrong := [i for i in axes if not -ndim <= i < ndim]:
            raise ValueError(f"{name}: `inputs` must be axes of {ndim} dimensions, got {wrong[0]}")
        return tuple(i % ndim for i in axes)
