# SPDX-License-Identifier: Apache-2.0
"""The built site: no broken link, nothing from another server, and a search that finds.

`ADAMX_SITE` names a site that is built already; else `mkdocs build --strict` makes one.
"""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from docs.hooks import api
from tests.docs.reader import ROOT

pytest.importorskip("mkdocs", reason='needs pip install -e ".[docs]"')
lunr = pytest.importorskip("lunr.builder", reason='needs pip install -e ".[docs]"')


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if given := os.environ.get("ADAMX_SITE"):
        return Path(given)
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {p: p.read_text(encoding="utf-8") for p in site.rglob("*.html")}


def test_links_lead_somewhere(site, pages):
    ids = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in pages.items()}
    seen = 0
    for page, text in pages.items():
        if page.name == "404.html":
            continue
        for link in re.findall(r'<(?:a|img|link|script)\b[^>]*?(?:href|src)="([^"]+)"', text):
            path, _, anchor = html.unescape(link).partition("#")
            if "://" in link or link.startswith(("data:", "mailto:", "/")):
                continue
            target = (page.parent / unquote(path)).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{page.relative_to(site)}: {link}"
            known = ids.get(target, set()) | {"only-light", "only-dark", "__toc", "__tabbed", ""}
            assert unquote(anchor) in known, f"{page.relative_to(site)}: {link}"
            seen += 1
    assert seen > 1000


def test_no_page_asks_another_server(pages):
    loads = r'<(?:script|img|iframe|source|link)\b[^>]*?(?:src|href)="(?:https?:)?//[^"]+"'
    for page, text in pages.items():
        assert re.findall(loads, text) == [], page
        assert "@import" not in text, page


def test_every_public_name_has_a_place(site):
    for path, page in api.pages().items():
        text = (site / path).with_suffix(".html").read_text(encoding="utf-8")
        for name in page.names:
            assert text.count(f'id="{name}"') == 1, name
            assert re.search(rf">\s*{re.escape(name)}\s*<", text), name


def test_arguments_that_recipes_share_are_on_their_pages(site):
    text = (site / "api/optimizers/adam.html").read_text(encoding="utf-8")
    for argument in ("learning_rate", "storage", "landing", "mask", "eps_mode"):
        assert f"<code>{argument}</code></b>" in text, argument


def test_formulas_are_drawn_without_a_script(pages):
    for page, text in pages.items():
        assert 'class="arithmatex"' not in text, page
    assert sum("<math" in text for text in pages.values()) > 10


WANTED = {
    "bf16": "ideas/bfloat16_parameters.html",
    "8-bit": "ideas/small_states.html",
    "zero": "ideas/many_devices.html",
    "torch": "ideas/moving.html",
    "fp16": "howto/float16.html",
    "nan": "ideas/watching.html",
    "orbax": "howto/checkpoints.html",
    "adamw": "api/optimizers/adam.html",
}


@pytest.fixture(scope="module")
def search(site):
    """Ranks pages as the search box of the site does: lunr's scores, and the theme's own boost."""
    index = json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))
    separator = re.compile(index["config"]["separator"])
    builder = lunr.Builder()
    builder.ref("location")
    builder.b(0)
    for name, field in index["config"]["fields"].items():
        builder.field(name, boost=field["boost"])

    def words(value):
        text = " ".join(value) if isinstance(value, list) else re.sub(r"<[^>]*>", " ", value)
        return [word for word in separator.split(html.unescape(text).lower()) if word]

    for doc in index["docs"]:
        fields = {name: words(doc.get(name, "")) for name in index["config"]["fields"]}
        builder.add(fields | {"location": doc["location"]}, {"boost": doc.get("boost", 1)})
    built = builder.build()

    def first(term):
        found = built.search(f"{term}*")
        scored = [(x["score"] * (2 if "#" in x["ref"] else 5), x["ref"]) for x in found]
        return max(scored)[1].partition("#")[0]

    return first


@pytest.mark.parametrize("term, page", WANTED.items())
def test_the_search_finds_the_right_page_first(search, term, page):
    assert search(term) == page
