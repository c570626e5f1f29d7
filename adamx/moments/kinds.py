# SPDX-License-Identifier: Apache-2.0
"""Which fields of a state are moments, and of which kind: by class, by maker, or by pattern.

Left out, and so kept as they are, are fields that codes of a few numbers an octave would spoil:

    weights                schedule-free's `z`, `params0`, Lookahead's slow parameters: a step of
                           theirs is smaller than the distance of two codes
    slow means             AdEMAMix's `m2`: its coded steps add up to noise as large as the mean
    sums                   Adagrad's and MADGRAD's: beyond the range of codes after long training
    what is subtracted     centred RMSProp's: `nu - mu^2` would lose all digits
    scaled by an estimate  Prodigy's and D-Adaptation's: at first below the range of codes
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import optax
import optax.contrib

from adamx.core import paths
from adamx.core.links import ANY, Link
from adamx.core.rule import Kind
from adamx.moments.find import RmsState
from adamx.storage import Kinds

_ADAM: Kinds = {"mu": "signed", "nu": "squared"}

# By the class of a state. Of Adafactor's square, the leaves that are not factored.
BY_CLASS: dict[type, Kinds] = {
    optax.ScaleByAdamState: _ADAM,
    optax.ScaleByAmsgradState: {**_ADAM, "nu_max": "maximum"},
    optax.ScaleByBeliefState: {"mu": "signed", "nu": "spread"},
    optax.ScaleByLionState: {"mu": "signed"},
    optax.ScaleByAdanState: {"m": "signed", "v": "signed", "n": "squared", "g": "signed"},
    optax.ScaleByRmsState: {"nu": "squared"},
    RmsState: {"nu": "squared"},
    optax.ScaleByAdaDeltaState: {"e_g": "squared", "e_x": "squared"},
    optax.ScaleByNovogradState: {"mu": "signed"},
    optax.ScaleByRpropState: {"step_sizes": "magnitude", "prev_updates": "signed"},
    optax.FactoredState: {"v": "squared"},
    optax.TraceState: {"trace": "signed"},
    optax.EmaState: {"ema": "signed"},
    optax.contrib.MuonState: {"mu": "signed"},
    optax.contrib.ScaleByAdemamixState: {"m1": "signed", "nu": "squared"},
    optax.contrib.ScaleBySimplifiedAdEMAMixState: {"m": "signed", "n": "spread"},
    optax.contrib.SophiaState: {"mu": "signed"},
}

# By the function that made the transformation, where its state has the class of another one.
BY_MAKER: dict[str, Kinds] = {
    "scale_by_adamax": {"mu": "signed", "nu": "magnitude"},
    "scale_by_adopt": {"mu": "normalised", "nu": "squared"},
}
_SHARED = (optax.ScaleByAdamState,)


def check(kinds: Mapping[str, Any]) -> None:
    """Raises where a pattern's kind is none."""
    for pattern, kind in kinds.items():
        if kind is not None and kind not in get_args(Kind):
            known = ", ".join(map(repr, get_args(Kind)))
            raise ValueError(f"`kinds`: {pattern!r} must be one of {known} or None, got {kind!r}")


def kinds_of(
    node: Any, place: tuple[Any, ...], links: Sequence[Link], told: Mapping[str, Kind | None]
) -> dict[str, Kind]:
    """The kinds of a node's fields, by name; empty if none is a moment.

    `place` is the path of the node as words. `told` has kinds by patterns of a field's path, which
    come before the table.
    """
    fields = getattr(node, "_fields", None) or (node if isinstance(node, dict) else ())
    by_pattern = {k: _told("/".join(map(str, (*place, k))), told) for k in fields}
    known = BY_CLASS.get(type(node), {})
    if isinstance(node, _SHARED) and any(by_pattern[k] == "" for k in known):
        known = _by_maker(node, place, links)
    found: dict[str, Any] = {
        k: known.get(k) if by_pattern[k] == "" else by_pattern[k] for k in fields
    }
    return {k: kind for k, kind in found.items() if kind}


def _told(name: str, told: Mapping[str, Kind | None]) -> Any:
    """The kind by the first pattern that matches; an empty string if none does."""
    return next((kind for pattern, kind in told.items() if paths.matches(pattern, name)), "")


def _by_maker(node: Any, place: tuple[Any, ...], links: Sequence[Link]) -> Kinds:
    makers = [x.made for x in links if len(x.place) == len(place) and _fits(x.place, place)]
    if not makers:
        raise ValueError(
            f"{'/'.join(map(str, place)) or 'the state'}: it cannot be told whether Adam or Adamax "
            f"made this {type(node).__name__}: say so by `kinds`, for Adam "
            "{'*/mu': 'signed', '*/nu': 'squared'}, for Adamax {…, '*/nu': 'magnitude'}"
        )
    return BY_MAKER.get(makers[0], BY_CLASS[type(node)])


def _fits(known: tuple[Any, ...], place: tuple[Any, ...]) -> bool:
    return all(a in (ANY, b) for a, b in zip(known, place, strict=True))
