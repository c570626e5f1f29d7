# SPDX-License-Identifier: Apache-2.0
"""The time of a step for each storage and landing, and the part of it that memory alone takes.

The figures of `roofline.csv` are those of the tables in `docs/ideas/speed.md`, over Optax's.
"""

from pathlib import Path
from typing import Any

from docs.pictures.drawing import HERE, Theme, rows, write

PANELS = {
    "cpu": "CPU, two cores: measured",
    "h100": "H100: the least a compiled step takes",
    "v5e": "TPU v5e: the compiler's estimate",
}


def picture(folder: Path = HERE) -> None:
    """Writes the picture."""
    write("roofline", _draw, folder, (4.8, 7.0))


def _draw(figure: Any, theme: Theme) -> None:
    table = rows(HERE / "roofline.csv")
    heights = [sum(row["target"] == target for row in table) for target in PANELS]
    panels = figure.subplots(3, 1, sharex=True, height_ratios=heights)
    for axes, (target, title) in zip(panels, PANELS.items(), strict=True):
        for y, row in enumerate(row for row in table if row["target"] == target):
            colour = theme.faint if y == 0 else theme.blue
            axes.barh(y, float(row["time"]), height=0.62, color=colour)
            axes.text(float(row["time"]) + 0.02, y, f"{float(row['time']):.2f}", va="center")
            if row["memory"]:
                memory = float(row["memory"])
                axes.plot([memory, memory], [y - 0.38, y + 0.38], color=theme.red, lw=2.5)
        names = [row["row"] for row in table if row["target"] == target]
        names = [name.replace("bf16 parameters, ", "bf16, ") for name in names]
        axes.set_yticks(range(len(names)), names)
        axes.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 1.45))
        axes.set_title(title, loc="left", x=-0.3)
        axes.tick_params(axis="y", length=0)
    panels[-1].set_xlabel("time / Optax float32; red: memory alone")


if __name__ == "__main__":
    picture()
