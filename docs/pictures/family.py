# SPDX-License-Identifier: Apache-2.0
"""Each optimizer's loss beside AdamW's, with 95% intervals, from the comparison's CSV."""

from pathlib import Path
from typing import Any

from docs.pictures.drawing import HERE, Theme, write
from notebooks.modern_family import results, summary
from notebooks.modern_family.entrants import ENTRANTS
from notebooks.modern_family.training import RESULTS

PANELS = ("text", "digits")


def picture(folder: Path = HERE) -> None:
    """Writes the picture."""
    write("family", _draw, folder, (4.8, 5.2))


def _draw(figure: Any, theme: Theme) -> None:
    rows = results.read(RESULTS / "runs.csv")
    found = {on: {name: summary.judged(rows, on, name) for name in ENTRANTS} for on in PANELS}
    order = sorted(ENTRANTS, key=lambda name: -found["text"][name].loss)
    colours = {1: theme.blue, 0: theme.faint, -1: theme.red}
    panels = figure.subplots(1, 2, sharey=True)
    for axes, on in zip(panels, PANELS, strict=True):
        axes.axvline(0, color=theme.ink, lw=0.8)
        for place, name in enumerate(order):
            one = found[on][name]
            colour = colours[one.verdict]
            axes.errorbar(-one.gain, place, xerr=one.within, fmt="o", ms=4, color=colour)
        axes.set_title(on)
        axes.locator_params(axis="x", nbins=4)
    panels[0].set_yticks(range(len(order)), order)
    figure.supxlabel("validation loss beside AdamW's: lower is better", fontsize=9)


if __name__ == "__main__":
    picture()
