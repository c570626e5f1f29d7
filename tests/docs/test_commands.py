# SPDX-License-Identifier: Apache-2.0
"""Every command of the README and the documentation is one that the command line takes."""

import importlib.util
import re
import shlex
import tomllib

import pytest

from adamx.cli import COMMANDS, build_parser
from tests.docs.reader import DOCS, ROOT

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
TEXTS = {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in PAGES}
BLOCK = re.compile(r"```(?:sh|bash)\n(.*?)```", re.DOTALL)


def lines():
    """The commands in blocks and in running text, each with its page."""
    for page, text in TEXTS.items():
        for block in BLOCK.findall(text):
            for line in block.replace("\\\n", " ").splitlines():
                yield from ((page, part.strip()) for part in line.split("&&"))
        for word in re.findall(r"`(python -m [^`]+)`", BLOCK.sub("", text).replace("\n", " ")):
            yield page, word


COMMAND_LINES = sorted({(page, line) for page, line in lines() if "python -m " in line})


@pytest.mark.parametrize("page, line", COMMAND_LINES)
def test_a_command_is_taken(page, line):
    module, *words = shlex.split(line.partition("python -m ")[2], comments=True)
    if module != "adamx":
        assert importlib.util.find_spec(module), module
        return
    words = [word for word in words if word != "$RESUME"]
    if words in ([], ["…"]) or words in [[name] for name in COMMANDS]:
        return  # named, not typed: arguments are left out
    assert build_parser().parse_args(words).command in COMMANDS


def test_there_are_commands_of_every_kind():
    named = {line.partition("python -m adamx ")[2].partition(" ")[0] for _, line in COMMAND_LINES}
    assert set(COMMANDS) <= named


def test_extras_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = "\n".join(TEXTS.values())
    named = set(re.findall(r'(?:adamx|"\.|-e \.)\[([a-z]+)\]', text))
    assert named <= set(project["optional-dependencies"]) | {"cuda13", "tpu"}
    start = TEXTS["docs/start.md"]
    assert [x for x in project["optional-dependencies"] if f"`adamx[{x}]`" not in start] == []
