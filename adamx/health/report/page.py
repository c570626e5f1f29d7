# SPDX-License-Identifier: Apache-2.0
"""A history of figures as one self-contained HTML file."""

import html
import io
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from adamx.health.read import figures_of
from adamx.health.report.doctor import RESCUE, WELL, doctor, too_short
from adamx.health.report.plot import EVENTS, History, plot, series

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.note { color: #666; } svg { width: 100%; min-width: 46rem; height: auto; }
.finding { border-left: 4px solid #d55e00; background: #fdf3ee; padding: .5rem .8rem;
           margin: .5rem 0; }
.broken { border-color: #b00020; background: #ffe3e3; font-size: 1.1rem; } .bad { color: #b00020; }
.well { border-color: #009e73; background: #eef8f5; }
code { background: #eee; padding: 0 .25em; border-radius: 3px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
td, th { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #e5e5e5; }
td:first-child, th:first-child { text-align: left; } .wide { overflow-x: auto; }
"""

COLUMNS = ("grad_rms", "update_rms", "param_rms", "update_ratio", "cosine", "noise_scale")
WIDTH = 8  # inches of the plots; on a phone they scroll, and their text keeps its size
SHARES = ("under_epsilon", "idle", "lost", "at_floor", "at_ceiling")


def page(history: History, title: str = "A run of Adam") -> str:
    """The report as HTML: findings, losses and event counts, plots, the last figures.

    Args:
      history: rows of figures with their step, as `health.history` reads them.
      title: the title of the page.

    Example:
      >>> rows = [{"step": i, "loss": 1 / i, "lost/*/bias": 0.42} for i in range(1, 50)]
      >>> "42% of updates are lost to rounding" in page(rows)
      True
    """
    if not history:
        raise ValueError("`history` is empty: there is nothing to report")
    history = [figures_of(row) for row in history]
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="note">{html.escape(_span(history))}</p>',
        *_findings(history),
        _table(["", "value"], _reached(history)),
        f'<h2>Over time</h2><div class="wide">{_svg(plot(history, width=WIDTH))}</div>',
        *_last(history),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _span(history: History) -> str:
    first, last = history[0], history[-1]
    said = f"steps {first['step']:,} to {last['step']:,}, {len(history):,} rows"
    if "time" in first and "time" in last:
        said += f", {_duration(last['time'] - first['time'])}"
    return said


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _findings(history: History) -> list[str]:
    found = doctor(history)
    if not found:
        short = too_short(history)
        kind = "note" if short else "well"
        return [f'<p class="finding {kind}">{html.escape(short or WELL)}</p>']
    rows = []
    for finding in found:
        kind = " broken" if finding.advice == RESCUE else ""
        where = f"<code>{html.escape(finding.where)}</code>: " if finding.where else ""
        what, advice = (
            re.sub("`(.*?)`", r"<code>\1</code>", html.escape(text))
            for text in (finding.what, finding.advice)
        )
        rows.append(f'<p class="finding{kind}">{where}<b>{what}</b>: {advice}</p>')
    return rows


def _reached(history: History) -> list[list[str]]:
    rows = []
    for name in ("loss", "validation loss"):
        values = series(history, name)[1]
        if values.size:
            rows.append([f"last {name}", _short(values[-1])])
        if np.isfinite(values).any():
            rows.append([f"best {name}", _short(values[np.isfinite(values)].min())])
    for name in EVENTS:
        counts = series(history, name)[1]
        if counts.size:
            rows.append([name, f"{counts[-1]:,.0f}"])
    return rows


def _last(history: History) -> list[str]:
    """The last known figures of the tree, of groups and of leaves."""
    last: dict[str, dict[str, Any]] = {}
    for row in history:
        for name, value in row.items():
            figure, _, where = name.partition("/")
            if figure in COLUMNS + SHARES and isinstance(value, int | float):
                last.setdefault(where, {})[figure] = value
    if not last:
        return []
    known = [c for c in COLUMNS + SHARES if any(c in figures for figures in last.values())]
    rows = [
        [where or "all", *(_cell(name, figures.get(name)) for name in known)]
        for where, figures in sorted(last.items())
    ]
    header = ["", *(name.replace("_", " ") for name in known)]
    return [f'<h2>At the end</h2><div class="wide">{_table(header, rows)}</div>']


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    # Shares and quotients are NaN where they are unknown, norms only where the run is not finite; a
    # negative noise scale is an estimate from too little.
    if math.isnan(value) and not name.endswith("_rms"):
        return "–"
    if name == "noise_scale" and value < 0:
        return "–"
    return f"{value:.1%}" if name in SHARES and math.isfinite(value) else _short(value)


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{value}"
    return f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.1e}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(cell(c, tag) for c in cells) + "</tr>"

    def cell(text: str, tag: str) -> str:
        bad = ' class="bad"' if text == "NaN" else ""
        return f"<{tag}{bad}>{html.escape(text)}</{tag}>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table>{line(header, 'th') if any(header[2:]) else ''}{body}</table>"


def _svg(figure: Any) -> str:
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "adamx", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
