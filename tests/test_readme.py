# SPDX-License-Identifier: Apache-2.0
"""What the README says can be typed, and its links lead somewhere."""

import re

import jax
import optax
import pytest

from tests.docs.reader import ROOT, blocks, theirs

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def as_a_reader_has_it():
    with jax.numpy_dtype_promotion("standard"):  # Optax's schedules need it
        yield


def test_the_ten_lines_train():
    (block,) = blocks(README)  # the only one: the others are in `docs/`, and typed by tests/docs
    reader = theirs()
    reader["loss"] = reader["loss_fn"]
    exec(block, reader)
    params, state = reader["train_step"](reader["params"], reader["state"], reader["batch"])
    before, after = (reader["loss"](p, reader["batch"]) for p in (reader["params"], params))
    assert after < before
    assert all(count == 1 for _, count in optax.tree.get_all_with_path(state, "count"))


def test_its_figures_are_those_of_the_documentation():
    pages = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs").rglob("*.md"))
    tables = re.findall(r"^\| (?:AdamW|optimizer) \|.*?\n\n", TEXT, re.MULTILINE | re.DOTALL)
    figures = re.findall(r"\d+\.\d+(?: ± \d+\.\d+)?", "".join(tables))
    assert len(tables) == 2
    assert len(figures) > 25
    assert [figure for figure in figures if figure not in pages] == []


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", TEXT.replace("\n", " "))
    links += re.findall(r'(?:src|srcset)="([^"]+)"', TEXT)
    assert len(links) > 20
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = ROOT / path if path else README
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def anchors(text):
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
