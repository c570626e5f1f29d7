# SPDX-License-Identifier: Apache-2.0
"""The report of a conversion, in either direction."""

from collections.abc import Iterable, Mapping, Sequence

from adamx.interop.report import Report, Row
from adamx.interop.torch.matching import Match
from adamx.interop.torch.optimizer import FROZEN


def report_of(
    matches: Sequence[Match],
    labels: Mapping[str, str],
    lost: Mapping[str, dict[str, float]],
    left: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> Report:
    """A row for each of our leaves. Leaves that are not trained may have no label."""

    def group(m: Match) -> str:
        label = labels.get(m.path, FROZEN)
        return "" if label == FROZEN else label

    rows = [Row(m.path, " + ".join(m.sources), m.kind, group(m), lost[m.path]) for m in matches]
    return Report(rows, list(left), list(notes))
