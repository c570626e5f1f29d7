# SPDX-License-Identifier: Apache-2.0
"""One step as a chain of parts: what each makes of a gradient, and where the state comes in."""

from pathlib import Path

from docs.pictures.drawing import HERE, THEMES, Theme

PARTS = (
    ("gradient", "in any dtype, of the parameter's shape", "sky"),
    ("clip", "one norm of all gradients; shards agree on it", "blue"),
    ("decode", "two bytes become the float32 mean and square", "red"),
    ("formula", "one paper, on one array, in float32", "blue"),
    ("encode", "float32 becomes two bytes, rounded stochastically", "red"),
    ("decay", "pulls the parameter towards zero", "blue"),
    ("rate", "times the learning rate, downhill", "blue"),
    ("landing", "writes a float32 step into bfloat16", "gold"),
    ("parameter", "and a remainder of 0, 1 or 2 bytes", "sky"),
)
WIDTH, ROW, BOX, LEFT = 640, 66, 118, 92


def picture(folder: Path = HERE) -> None:
    """Writes the picture in both themes."""
    for mode, theme in THEMES.items():
        (folder / f"step-{mode}.svg").write_text(_drawn(theme), encoding="utf-8")


def _drawn(theme: Theme) -> str:
    height = ROW * len(PARTS) + 6
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="17" fill="{theme.ink}">',
        "<title>One step: gradient, clip, decode, formula, encode, decay, rate, landing</title>",
        f'<defs><marker id="tip" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 10 5 0 10z" fill="{theme.ink}"/>'
        "</marker></defs>",
    ]
    for i, (name, about, colour) in enumerate(PARTS):
        y = 4 + i * ROW
        lines += [
            f'<rect x="{LEFT}" y="{y}" width="{BOX}" height="40" rx="8" '
            f'fill="{getattr(theme, colour)}" fill-opacity="0.22" '
            f'stroke="{getattr(theme, colour)}" stroke-width="1.6"/>',
            f'<text x="{LEFT + BOX / 2}" y="{y + 26}" text-anchor="middle" '
            f'font-weight="600">{name}</text>',
            f'<text x="{LEFT + BOX + 18}" y="{y + 26}" font-size="16">{about}</text>',
        ]
        if i:
            lines.append(_arrow(theme, LEFT + BOX / 2, y - 24, LEFT + BOX / 2, y - 2))
    lines += [*_state(theme), "</svg>", ""]
    return "\n".join(lines)


def _state(theme: Theme) -> list[str]:
    """The state beside the chain: decode reads it, encode writes it."""
    top, bottom = 4 + 2 * ROW + 20, 4 + 4 * ROW + 20
    middle = (top + bottom) / 2
    return [
        f'<rect x="4" y="{middle - 30}" width="66" height="60" rx="8" fill="{theme.red}" '
        f'fill-opacity="0.12" stroke="{theme.red}" stroke-width="1.6" stroke-dasharray="5 3"/>',
        f'<text x="37" y="{middle - 6}" text-anchor="middle" font-weight="600">state</text>',
        f'<text x="37" y="{middle + 16}" text-anchor="middle" font-size="15">mu, nu</text>',
        f'<path d="M37 {middle - 32} V{top} H{LEFT - 3}" fill="none" stroke="{theme.ink}" '
        'stroke-width="1.6" marker-end="url(#tip)"/>',
        f'<path d="M{LEFT - 2} {bottom} H37 V{middle + 33}" fill="none" stroke="{theme.ink}" '
        'stroke-width="1.6" marker-end="url(#tip)"/>',
    ]


def _arrow(theme: Theme, x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{theme.ink}" '
        'stroke-width="1.6" marker-end="url(#tip)"/>'
    )


if __name__ == "__main__":
    picture()
