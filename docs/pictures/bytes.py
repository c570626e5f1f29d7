# SPDX-License-Identifier: Apache-2.0
"""Bytes per parameter of AdamW as bars. `docs/beside_others.md` has the sources."""

from pathlib import Path
from typing import Any

from docs.pictures.drawing import HERE, Theme, rows, write

PARTS = ("weights", "gradients", "moments", "remainder")


def picture(folder: Path = HERE) -> None:
    """Writes the picture."""
    write("bytes", _draw, folder, (4.8, 5.0))


def _draw(figure: Any, theme: Theme) -> None:
    axes, setups = figure.subplots(), rows(HERE / "bytes.csv")
    colours = (theme.blue, theme.sky, theme.red, theme.gold)
    for y, setup in enumerate(setups):
        left, ours = 0.0, setup["setup"].startswith("adamx")
        for part, colour in zip(PARTS, colours, strict=True):
            size = float(setup[part])
            axes.barh(y, size, left=left, height=0.42, color=colour, label="" if y else part)
            left += size
        weight = "bold" if ours else "normal"
        axes.text(0, y - 0.3, setup["setup"], va="bottom", fontsize=9, fontweight=weight)
        axes.text(left + 0.15, y, f"{left:.3g}", va="center", fontweight=weight)
    axes.set(xlim=(0, 17.2), ylim=(len(setups) - 0.5, -0.9), yticks=[])
    axes.set_xlabel("bytes per parameter")
    axes.spines["left"].set_visible(False)
    figure.legend(loc="outside upper left", ncols=4, columnspacing=0.9, handlelength=1.0)


if __name__ == "__main__":
    picture()
