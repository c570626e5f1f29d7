# SPDX-License-Identifier: Apache-2.0
"""Whether an optimizer here computes what a configuration of Keras describes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from adamx.core import paths
from adamx.core.compiled import Compiled, Update
from adamx.core.rule import Rule
from adamx.core.values import parts
from adamx.interop.keras.arguments import Around
from adamx.interop.keras.configured import RECIPES, class_of, of_config
from adamx.interop.keras.decay_first import DecayFirst
from adamx.interop.keras.slots import Kept
from adamx.interop.keras.wrapped import Wrapped
from adamx.interop.names import Problems
from adamx.landing import Ended
from adamx.moments.scale_by import ScaleBy
from adamx.optimizers.amsgrad import rule as amsgrad_rule
from adamx.optimizers.recipe import Chain
from adamx.transforms.masked import Masked
from adamx.transforms.trust_ratio import TrustRatio
from adamx.transforms.weight_decay import Pull

# The learning rate is the caller's, and so is a factor of the loss.
_COMPARED = (
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "ema_momentum",
    "ema_overwrite_frequency",
    "gradient_accumulation_steps",
)


class Said(NamedTuple):
    """What a recipe says of itself.

    Attributes:
      around: what Keras does around it.
      rule: its rule.
      decay: the link that decays, with its mask; None for none.
      trusts: whether its steps have a trust ratio.
    """

    around: Around
    rule: Rule
    decay: Any
    trusts: bool

    @property
    def strength(self) -> Any:
        """The strength of the decay."""
        pull = self.decay.link if isinstance(self.decay, Masked) else self.decay
        return 0.0 if pull is None else pull.decay.strength

    def decays(self, params: Any) -> list[bool]:
        """For each leaf whether it decays."""
        masked = isinstance(self.decay, Masked)
        return self.decay.leaves(params) if masked else []


def said(opt: Any) -> Said | None:
    """What an optimizer says of itself; None if it is no recipe of ours alone."""
    around, update = Around(), opt.update
    if isinstance(update, Wrapped):
        around, update = update.around, update.recipe.update
    link = update.link if isinstance(update, Update) else None
    chain = link.link if isinstance(link, Compiled) else None
    if not (isinstance(chain, Chain) and isinstance(chain.links, Ended)):
        return None
    links = chain.links.links
    rule = next((x.rule for x in links if isinstance(x, ScaleBy)), None)
    firsts = [x for x in links if isinstance(x, DecayFirst)]
    pulls = [x for x in links if isinstance(x, Pull | Masked)] + [x.decay for x in firsts]
    trusts = any(isinstance(x, TrustRatio) for x in (*links, *(x.link for x in firsts)))
    decay = pulls[0] if pulls else None
    return None if rule is None else Said(around, rule, decay, trusts)


def check_agreement(
    config: Mapping[str, Any] | None, opt: Any, kept: Kept, problems: Problems
) -> None:
    """Adds a problem for each difference that can be seen. The learning rate may differ.

    Clips and decay are compared if `opt` is a recipe of ours alone. A `.weights.h5` has no
    `config`.
    """
    rules = dict.fromkeys(kept.rules.values())
    for rule in rules:
        if "nu_max" in rule.moments:
            raw = amsgrad_rule(max_of="raw", eps_mode="hat")
            forms = [f for f in _forms(raw, rule) if "eps_mode" not in f or config is not None]
            problems.add(*forms)
    if config is None:
        return
    name = class_of(config)
    if name not in RECIPES:
        for rule in rules:
            if rule.name.rpartition(".")[2] != name.lower():
                problems.add(f"the optimizer in Keras is {name}, `opt` is {rule.name}")
        return
    theirs, ours = said(of_config(config, learning_rate=1.0)), said(opt)
    if theirs is None:
        return
    for rule in rules:
        problems.add(*_of_rules(name, theirs.rule, rule))
    if ours is not None:
        problems.add(*_of_recipes(name, theirs, ours))


def check_mask(
    decays: Sequence[bool] | None, opt: Any, order: Sequence[str], params: Any, problems: Problems
) -> None:
    """Adds a problem where Keras decays other leaves than `opt`, as far as both are known: `decays`
    says of each of the leaves in `order` whether Keras does."""
    ours = said(opt)
    if decays is None or ours is None or not _differs(ours.strength, 0.0):
        return
    names = paths.names(params)
    here = dict(zip(names, ours.decays(params) or [True] * len(names), strict=True))
    for leaf, there in zip(order, decays, strict=True):
        if here[leaf] != there:
            which = ("decays here and not in Keras", "decays in Keras and not here")[there]
            problems.add(f"{leaf} {which} (`exclude_from_weight_decay`): give `opt` that `mask`")


def _of_rules(name: str, theirs: Rule, ours: Rule) -> Iterator[str]:
    if _functions(theirs) != _functions(ours):
        yield f"the optimizer in Keras is {name} ({theirs.name} here), `opt` is {ours.name}"
        return
    if "nu_max" not in ours.moments:  # which is looked at in any case
        yield from _forms(theirs, ours)
    for key, value in theirs.hyper.items():
        if _differs(value, ours.hyper.get(key)):
            yield f"{key} is {value} in Keras, {ours.hyper.get(key)} in `opt`"


def _functions(rule: Rule) -> tuple[Any, Any]:
    return parts(rule.at)[0], parts(rule.formula)[0]


def _forms(theirs: Rule, ours: Rule) -> list[str]:
    """The choices of a formula that differ."""
    there, here = parts(theirs.at)[1], parts(ours.at)[1]
    return [
        f"`{key}` is {value!r} in Keras, {here.get(key)!r} in `opt`"
        for key, value in there.items()
        if value != here.get(key)
    ]


def _of_recipes(name: str, theirs: Said, ours: Said) -> Iterator[str]:
    if theirs.trusts != ours.trusts:
        yield f"steps have a trust ratio in {name if theirs.trusts else '`opt`'} alone"
    if _differs(theirs.strength, ours.strength):
        yield f"weight_decay is {theirs.strength} in Keras, {ours.strength} in `opt`"
    averages = theirs.around.use_ema or ours.around.use_ema
    for key in _COMPARED:
        there, here = getattr(theirs.around, key), getattr(ours.around, key)
        if (averages or not key.startswith("ema")) and _differs(there, here):
            yield f"{key} is {there} in Keras, {here} in `opt`"


def _differs(a: Any, b: Any) -> bool:
    """Whether two values are known to differ, by more than float32 rounds: schedules are not."""
    if callable(a) or callable(b):
        return False
    if a is None or b is None:
        return (a or None) is not (b or None)
    try:
        a, b = float(np.asarray(a)), float(np.asarray(b))
    except (TypeError, ValueError):  # traced
        return False
    return not math.isclose(a, b, rel_tol=1e-6)
