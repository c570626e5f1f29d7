# SPDX-License-Identifier: Apache-2.0
"""Rows of cells as aligned text or as a Markdown table; the first column is a label."""

from collections.abc import Sequence


def as_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to one width, the header underlined."""
    padded = _pad([header, *rows])
    rule = ["-" * len(cell) for cell in padded[0]]
    return "\n".join("  ".join(row).rstrip() for row in [padded[0], rule, *padded[1:]])


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, with all columns but the first aligned to the right."""
    padded = _pad([header, *rows])
    rule = ["-" * len(padded[0][0]), *("-" * (len(cell) - 1) + ":" for cell in padded[0][1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [padded[0], rule, *padded[1:]])


def _pad(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
