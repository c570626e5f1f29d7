# SPDX-License-Identifier: Apache-2.0
"""The chain behind every recipe, the table of all recipes, and the arguments that they share.

    penalty -> rule -> decay -> trust ratio (LAMB) -> learning rate -> independent decay -> landing

A recipe's file decorates it with `@recipe(link)`, which enters it into `TABLE` and completes its
docstring.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import optax
from jax.typing import DTypeLike

from adamx.core import hyperparameters
from adamx.core.compiled import Change, Link, compiled, modified
from adamx.core.hyperparameters import Hyper
from adamx.core.links import Around, Inside
from adamx.core.rule import Rule
from adamx.core.values import value
from adamx.landing import Ended, LandingLike, Nearest, nearest
from adamx.landing import choose as choose_landing
from adamx.moments.scale_by import ScaleBy
from adamx.optimizers import one_pass
from adamx.storage import StorageLike, choose
from adamx.transforms.learning_rate import Descend
from adamx.transforms.weight_decay import Decay, Mask, as_decay, pull

Optimizer: TypeAlias = optax.GradientTransformationExtraArgs
F = TypeVar("F", bound=Callable[..., Optimizer])


class Entry(NamedTuple):
    """One recipe of the table.

    Attributes:
      build: the recipe.
      link: the `scale_by_*` that holds its rule.
      link_kwargs: the link's arguments whose defaults differ from the recipe's.
      elementwise: whether its moments have the parameters' shapes, in any storage.
    """

    build: Callable[..., Optimizer]
    link: Callable[..., Optimizer]
    link_kwargs: Mapping[str, Any]
    elementwise: bool = True


TABLE: dict[str, Entry] = {}


def recipe(
    link: Callable[..., Optimizer], *, elementwise: bool = True, **link_kwargs: Any
) -> Callable[[F], F]:
    """Enters a recipe into the table, and explains the arguments of both.

    Args:
      link: holds the recipe's rule, if called with `link_kwargs`.
      elementwise: whether its moments have the parameters' shapes, in any storage. What is not,
        as a factored square or an eigenbasis, has laws of its own: `tests/laws/test_methods.py`.
      **link_kwargs: the arguments of the link whose defaults differ from the recipe's.
    """

    def enter(build: F) -> F:
        TABLE[build.__name__] = Entry(build, link, link_kwargs, elementwise)
        _explain(link, _explain(build, SHARED))
        return build

    return enter


def _explain(build: Callable[..., Any], known: Mapping[str, str]) -> Mapping[str, str]:
    """Completes the `Args` of a docstring by what is known of other arguments; returns them all."""
    if not build.__doc__:  # python -OO
        return known
    sections = re.split(
        r"^(Args|Example|References):\n", inspect.cleandoc(build.__doc__), flags=re.M
    )
    parts = {"Args": "", **dict(zip(sections[1::2], sections[2::2], strict=True))}
    own = dict(re.findall(r"^  (\w+): (.*?)(?=^  \w|\Z)", parts["Args"], re.M | re.S))
    known = {**known, **{name: text.rstrip() for name, text in own.items()}}
    names = [name for name in inspect.signature(build).parameters if name in known]
    parts["Args"] = "".join(f"  {name}: {known[name]}\n" for name in names)
    body = "\n\n".join(f"{title}:\n{text.rstrip()}" for title, text in parts.items())
    build.__doc__ = f"{sections[0].rstrip()}\n\n{body}"
    return known


SHARED = {
    "learning_rate": """A number, an array, a traced value or a schedule of the step, which counts
    from 0. So may be every hyperparameter, and `update(..., b2=x)` overrides one for one call.
    A schedule is compiled with the step: it sees nothing but the count.""",
    "b1": "How slowly the mean of gradients forgets, in [0, 1).",
    "b2": "How slowly the mean of squares forgets, in [0, 1).",
    "eps": "Added to the root: the step vanishes where gradients are smaller than it.",
    "eps_root": "Added inside the root.",
    "mu_dtype": """The dtype in which means are stored. None takes the parameter's, at least
    float32.""",
    "weight_decay": """A number or a schedule (decoupled decay, times the learning rate), or one of
    `adamx.decay`.""",
    "mask": """The leaves that decay: a tree of booleans, a function from the parameters to one, or
    a path pattern: `"*/kernel"` for these leaves, `"!*/bias|*/scale"` for all but those.""",
    "nesterov": "Whether to look one step ahead along the momentum.",
    "eps_mode": """`"outside"`: epsilon is added to the corrected root. `"hat"`: to the uncorrected
    root, as in Keras, TensorFlow and torch's RAdam. `"atan2"` (Adam and AdamW): no epsilon, and
    steps of pi / 4 = 0.79 rates where the others' are of one.""",
    "nu_dtype": """The dtype in which squares or maxima are stored, as `mu_dtype`. In bfloat16 they
    are rounded stochastically.""",
    "storage": """How moments are stored, instead of the two dtypes: `"float32"`, `"bfloat16"`,
    `"int8"` (two bytes per parameter for both), `"int4"` (one byte), a `Storage`, a table of
    path patterns to one of these (`{"*/embedding": "float32", "*": "int8"}`), or a function of
    a leaf's path and shape. Members of a `vmap` round alike unless each has its own seed:
    `storage.int8(seed=i)`.""",
    "landing": """How steps are added to bfloat16 and float16 parameters: `"nearest"`,
    `"stochastic"`, `"kahan"`, `"exact"`, `"compensated8"`, or one of `adamx.landing`. With all but
    the first, updates are float32 and `update` needs the parameters.""",
    "momentum_decay": "Not None: b1 warms up at this rate, as in torch's NAdam (0.004 there).",
    "axis_name": "The mapped axis along which leaves are sharded, if they are.",
}


class Front(Link, Protocol):
    """A link with hyperparameters of its own."""

    @property
    def hyper(self) -> Mapping[str, Any]: ...


# Makes one link of that which makes directions and those of the decay behind it.
Joined = Callable[[Any, tuple[Link, ...]], Link]


def chained(
    name: str,
    rule: Rule,
    learning_rate: Hyper | None,
    storage: StorageLike | None,
    mu_dtype: DTypeLike | None,
    nu_dtype: DTypeLike | None,
    weight_decay: Hyper | Decay | None,
    mask: Mask | None,
    landing: LandingLike,
    *between: Link,
    front: Sequence[Front] = (),
    joined: Joined | None = None,
) -> Optimizer:
    """The optimizer of a rule: its chain, as an Optax transformation.

    `front` and `between` are links before the rule, and between the decay and the learning rate;
    `joined` makes one link of the rule and the decay behind it, if any.
    """
    link = ScaleBy(dataclasses.replace(rule, name=name), choose(storage, mu_dtype, nu_dtype))
    ends = (learning_rate, weight_decay, mask, landing)
    return around(link, name, rule.hyper, *ends, *between, front=front, joined=joined)


def around(
    link: Link,
    name: str,
    own: Mapping[str, Hyper],
    learning_rate: Hyper | None,
    weight_decay: Hyper | Decay | None,
    mask: Mask | None,
    landing: LandingLike,
    *between: Link,
    front: Sequence[Front] = (),
    joined: Joined | None = None,
) -> Optimizer:
    """The optimizer whose directions are those of `link`, elementwise or not.

    `own` has the link's hyperparameters; the rest is as in `chained`.
    """
    links, hyper = framed(
        link, learning_rate, weight_decay, mask, *between, front=front, joined=joined
    )
    own = {**own, **{k: v for before in front for k, v in before.hyper.items()}}
    whole = Chain(name, Ended(links, choose_landing(landing)))
    names = (*own, "learning_rate", "weight_decay", "step_scale")
    return compiled(whole, names, [*own.values(), *hyper, *getattr(link, "reads", ())])


def framed(
    link: Link,
    learning_rate: Hyper | None,
    weight_decay: Hyper | Decay | None,
    mask: Mask | None,
    *between: Link,
    front: Sequence[Link] = (),
    joined: Joined | None = None,
) -> tuple[tuple[Link, ...], list[Any]]:
    """A link that makes directions, with decay and learning rate, and their hyperparameters."""
    if mask is not None and weight_decay is None:
        raise ValueError("`mask` says which leaves decay: give `weight_decay` too")
    places: dict[str, list[Link]] = {"before": [], "between": [], "after": []}
    hyper: list[Any] = [learning_rate]
    if weight_decay is not None:
        decay = as_decay(weight_decay)
        hyperparameters.check(weight_decay=decay.strength)
        places[decay.place] = [pull(decay, mask, learning_rate)]
        hyper.append(decay.strength)
    behind = tuple(places["between"])
    links = (
        *places["before"],
        *front,
        *((link, *behind) if joined is None else (joined(link, behind),)),
        *between,
        Descend(learning_rate),
        *places["after"],
    )
    return links, hyper


def sole(link: Link, landing: LandingLike) -> Link:
    """A link that is an optimizer by itself, ended by a landing; to nearest its state is all."""
    chosen = choose_landing(landing)
    return Nearest(link) if chosen is nearest else Ended((link,), chosen)


def alone(
    rule: Rule,
    storage: StorageLike | None,
    mu_dtype: DTypeLike | None = None,
    nu_dtype: DTypeLike | None = None,
) -> Optimizer:
    """The direction of a rule, as a link for a chain of one's own: `scale_by_*`."""
    link = ScaleBy(rule, choose(storage, mu_dtype, nu_dtype))
    return compiled(Nearest(link), rule.hyper, [*rule.hyper.values(), *link.reads])


@value
class Chain:
    """The links of a recipe and their landing; a state that is not theirs is an error with the
    recipe's name."""

    name: str
    links: Any

    def init(self, params: optax.Params) -> Any:
        return self.links.init(params)

    def update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        self._check(state)
        return self.links.update(updates, state, params, **extra)

    def step(
        self, params: optax.Params, state: Any, grads: Any, scale: Any = None, **extra: Any
    ) -> tuple[optax.Params, Any] | None:
        """The whole step with each leaf in one pass over memory, gradients times a clip's `scale`;
        None where that cannot be."""
        self._check(state)
        return one_pass.step(self.links, params, state, grads, scale, extra)

    def modified(self, change: Change) -> "Chain | None":
        """As `compiled.modified`."""
        links = modified(self.links, change)
        return None if links is None else Chain(self.name, links)

    @property
    def changes(self) -> list[str]:
        """What is made of the directions, such as `cautious`, in order."""
        found = [change for link in self.links.links for change in getattr(link, "changes", ())]
        return [type(change).__name__.lower() for change in found]

    def inside(self) -> list[Inside]:
        """The links, for tools that look into optimizers."""
        landing = self.links.landing
        links = [*self.links.links, *([] if callable(landing) else [landing])]
        name = f"adamx.{self.name}"
        for change in self.changes:
            name = f"adamx.{change}({name})"
        around = Around(name, "recipe")
        return [Inside((i,), link, around) for i, link in enumerate(links)]

    def _check(self, state: Any) -> None:
        found = len(state) if isinstance(state, tuple | list) else None
        if found != self.links.parts:
            got = type(state).__name__ + ("" if found is None else f" of {found}")
            raise ValueError(
                f"{self.name}: the state should be a tuple of {self.links.parts} parts, as `init` "
                f"makes it; got {got}"
            )
