# SPDX-License-Identifier: Apache-2.0
"""Formulas as MathML, made when the site is built: browsers draw them without a script."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, **kwargs: Any) -> str:
    """Replaces the LaTeX of a page."""
    content = BLOCK.sub(_block, content)
    return INLINE.sub(lambda found: _mathml(found, "inline"), content)


def _block(found: re.Match[str]) -> str:
    return f'<div class="formula">{_mathml(found, "block")}</div>'


def _mathml(found: re.Match[str], display: str) -> str:
    latex = html.unescape(found[1]).strip()
    if "\\\\" in latex and "\\begin" not in latex:  # as Sphinx takes the lines of `math`
        latex = rf"\begin{{align*}} {latex} \end{{align*}}"
    return convert(latex.replace("{aligned}", "{align*}"), display=display)
