# SPDX-License-Identifier: Apache-2.0
"""Docstrings and formulas as the documentation shows them."""

import pytest

pytest.importorskip("griffe", reason='needs pip install -e ".[docs]"')
pytest.importorskip("latex2mathml", reason='needs pip install -e ".[docs]"')

from docs.hooks import formulas
from docs.hooks.docstrings import markdown


def test_links_and_formulas_become_markdown():
    text = "See `Adam <https://arxiv.org/abs/1412.6980>`_, with :math:`c`.\n\nExample:\n  >>> 1\n"
    want = "See [Adam](https://arxiv.org/abs/1412.6980), with \\(c\\).\n\nExamples:\n  >>> 1\n"
    assert markdown(text) == want


def test_a_formula_of_two_lines_is_one():
    text = "A rule.\n\n.. math:: p \\leftarrow p -\n    \\alpha m\n\nArgs:\n  x: y\n"
    assert "\n$$ p \\leftarrow p - \\alpha m $$\n" in markdown(text)
    assert markdown(text).endswith("Args:\n  x: y\n")


def test_a_formula_inside_a_section_stays_there():
    text = "Args:\n  x: y\n\n    .. math:: a\n        b\n  z: w\n"
    assert "\n    $$ a b $$\n" in markdown(text)


def test_formulas_become_mathml():
    page = '<p><span class="arithmatex">\\(x &lt; 1\\)</span></p>'
    assert "<math" in formulas.on_page_content(page)
    assert "arithmatex" not in formulas.on_page_content(page)
    aligned = r'<div class="arithmatex">\[\begin{aligned} a &amp;= b \end{aligned}\]</div>'
    assert "<mtable" in formulas.on_page_content(aligned)
    lines = r'<div class="arithmatex">\[a &amp;= b \\ c &amp;= d\]</div>'
    assert formulas.on_page_content(lines).count("<mtr>") == 2
    assert "<mi>&" not in formulas.on_page_content(lines)
