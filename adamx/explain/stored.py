# SPDX-License-Identifier: Apache-2.0
"""How a recipe of ours stores its moments and lands its steps, apart from what it computes."""

import dataclasses
from typing import Any, NamedTuple

from adamx.core.compiled import Compiled, Update, transformation
from adamx.landing import NAMED, Ended, choose
from adamx.moments.modified import Modified
from adamx.moments.scale_by import ScaleBy
from adamx.optimizers.recipe import Chain
from adamx.optimizers.stable_adamw import Stable
from adamx.storage import Choice
from adamx.storage import choose as choose_storage


class Stored(NamedTuple):
    """A recipe, apart from how its numbers are kept.

    Attributes:
      exact: the same with moments in float32 and plain additions.
      storage: how its moments are stored, in words.
      landing: how its steps are added to half-precision parameters.
    """

    exact: Any
    storage: str = "float32"
    landing: str = "nearest"


def stored(opt: Any) -> Stored:
    """What a recipe of ours does beside its arithmetic; other transformations tell nothing."""
    chain = recipe_of(opt)
    if chain is None:
        return Stored(opt)
    choices = [part.choice for part in parts(chain) if isinstance(part, ScaleBy)]
    links = tuple(_in_float32(part) for part in chain.links.links)
    plain = dataclasses.replace(chain, links=Ended(links, choose("nearest")))
    compiled = dataclasses.replace(opt.update.link, link=plain)
    landing = next((k for k, known in NAMED.items() if known == chain.links.landing), "its own")
    return Stored(transformation(compiled), _words(choices[0]) if choices else "float32", landing)


def recipe_of(opt: Any) -> Chain | None:
    """The chain of a recipe of ours; None for other transformations."""
    link = opt.update.link if isinstance(opt.update, Update) else None
    chain = link.link if isinstance(link, Compiled) else None
    return chain if isinstance(chain, Chain) and isinstance(chain.links, Ended) else None


def parts(chain: Chain) -> list[Any]:
    """The links of a recipe, those within a link that joins or changes others included."""
    return [inner for link in chain.links.links for inner in _within(link)]


def _within(link: Any) -> list[Any]:
    if isinstance(link, Modified):
        return _within(link.link)
    return [link.rule, *link.decays] if isinstance(link, Stable) else [link]


def _in_float32(link: Any) -> Any:
    """A link whose moments, if any, are stored in float32."""
    if isinstance(link, Modified):
        return dataclasses.replace(link, link=_in_float32(link.link))
    if isinstance(link, Stable):
        return dataclasses.replace(link, rule=_in_float32(link.rule))
    if isinstance(link, ScaleBy):
        return dataclasses.replace(link, choice=choose_storage(None))
    return link


def _words(choice: Choice) -> str:
    if choice.function is not None:
        return "what a function says"
    names = [(pattern, storage.name) for pattern, storage in choice.rows]
    return names[0][1] if len(names) == 1 else ", ".join(f"{p}: {name}" for p, name in names)
