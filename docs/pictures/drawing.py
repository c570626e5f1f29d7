# SPDX-License-Identifier: Apache-2.0
"""What the pictures share: both themes, colours that colour-blind readers tell apart, the files.

`python -m docs.pictures.bytes` and its neighbours draw them again, from the CSVs beside them and
from those of the study. They need matplotlib (the extra `plot`).
"""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
STUDY = HERE.parents[1] / "notebooks" / "small_states" / "results"


class Theme(NamedTuple):
    """Colours that fit a light or a dark page. The background is the page's own."""

    ink: str
    faint: str
    blue: str
    sky: str
    red: str
    gold: str


THEMES = {
    "light": Theme("#333333", "#c8c8c8", "#0072b2", "#7cc3ea", "#d55e00", "#e6a817"),
    "dark": Theme("#dddddd", "#5a5f6b", "#3d9bd4", "#8fd0f2", "#f07d2e", "#f0be4a"),
}


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(name: str, draw: Callable[[Any, Theme], None], folder: Path, size: tuple[float, float]):
    """Draws a picture in both themes, and writes `name-light.svg` and `name-dark.svg`.

    Args:
      name: the first part of the files' names.
      draw: fills an empty matplotlib figure.
      folder: where the files go.
      size: width and height in inches. Letters of a picture of 4.8 inches can be read on a phone.
    """
    import matplotlib
    from matplotlib.figure import Figure

    for mode, theme in THEMES.items():
        style = {
            "svg.fonttype": "none",  # letters stay letters: small files, and screens can read them
            "svg.hashsalt": name,
            "font.size": 9.5,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            **dict.fromkeys(INKED, theme.ink),
            "axes.edgecolor": theme.faint,
            "xtick.color": theme.faint,
            "ytick.color": theme.faint,
            "xtick.labelcolor": theme.ink,
            "ytick.labelcolor": theme.ink,
        }
        with matplotlib.rc_context(style):
            figure = Figure(size, layout="constrained")
            draw(figure, theme)
            path = folder / f"{name}-{mode}.svg"
            figure.savefig(path, transparent=True, metadata={"Date": None})
        path.write_text(_tidy(path.read_text(encoding="utf-8")), encoding="utf-8")


INKED = ("text.color", "axes.labelcolor", "axes.titlecolor")


def _tidy(svg: str) -> str:
    """In the reader's own sans-serif font, with each curve on one line."""
    svg = svg.replace("'DejaVu Sans', 'Bitstream Vera Sans', 'Computer Modern Sans Serif', ", "")
    svg = re.sub(r' d="[^"]*"', lambda found: " " + " ".join(found[0].split()), svg)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
