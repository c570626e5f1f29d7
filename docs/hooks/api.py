# SPDX-License-Identifier: Apache-2.0
"""The pages of the API reference, made from the package: a page for each public module, and one for
each file of `adamx/optimizers`. A new optimizer or public name gets its place without an edit."""

import ast
import importlib
import inspect
from types import ModuleType
from typing import Any, NamedTuple

import adamx
from adamx.optimizers.recipe import TABLE

TITLES = {
    "adamx": "Steps, links and states",
    "adamx.storage": "Storages",
    "adamx.landing": "Landings",
    "adamx.decay": "Weight decay",
    "adamx.health": "Health",
    "adamx.parallel": "Many devices",
    "adamx.interop": "Other libraries",
    "adamx.interop.torch": "PyTorch",
    "adamx.interop.keras": "Keras",
    "adamx.interop.keras.legacy": "Keras, its older forms",
    "adamx.interop.optax": "Optax",
    "adamx.kernels": "Loops on CPUs",
    "adamx.knobs": "Knobs",
    "adamx.rules": "Rules",
}

ABOUT = "members: false, show_root_heading: false, show_root_toc_entry: false"


class Page(NamedTuple):
    """One page of the reference.

    Attributes:
      title: its heading.
      about: the module whose docstring opens it, if any.
      names: what it documents, by the names that one types, each with where it is defined.
    """

    title: str
    about: str
    names: dict[str, str]


def on_config(config: Any) -> Any:
    """Puts the reference into the navigation."""
    for entry in config.nav:
        if "Reference" in entry:
            made = pages()
            rules = {page.title: path for path, page in made.items() if "/optimizers/" in path}
            others = {page.title: path for path, page in made.items() if path not in rules.values()}
            entry["Reference"] = [
                "api/index.md",
                {"Optimizers": [{title: path} for title, path in rules.items()]},
                {"Modules": [{title: path} for title, path in others.items()]},
            ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages to those that stand in `docs/`."""
    from mkdocs.structure.files import File

    made = pages()
    files.append(File.generated(config, "api/index.md", content=_index(made)))
    for path, page in made.items():
        files.append(File.generated(config, path, content=_written(page)))
    return files


def pages() -> dict[str, Page]:
    """Every page of the reference but its index, by its path below `docs/`."""
    made = {}
    homes = sorted({entry.build.__module__ for entry in TABLE.values()})
    for name, module in public_modules().items():
        names = {f"{name}.{part}": "" for part in public_names(module)}
        names = {n: _home(n) for n in names if not isinstance(value_of(n), ModuleType)}
        if name == "adamx":
            names = {n: home for n, home in names.items() if home not in homes}
        if name == "adamx.rules":
            stems = {home.rpartition(".")[2]: home for home in homes}
            names |= {f"adamx.rules.{k}": v for k, v in stems.items() if hasattr(adamx.rules, k)}
        about = "" if name == "adamx" else module.__name__
        path = f"api/{name.replace('adamx.', '').replace('.', '_')}.md"
        made[path] = Page(TITLES.get(name, name.rpartition(".")[2].capitalize()), about, names)
    for home in homes:
        names = {f"adamx.{n}": home for n in dir(adamx) if _home(f"adamx.{n}") == home}
        title = home.rpartition(".")[2]
        made[f"api/optimizers/{title}.md"] = Page(title, "", names)
    return made


def public_modules() -> dict[str, ModuleType]:
    """`adamx` and the modules among its public names, and among theirs, by the names one types."""
    found, open_ = {}, [("adamx", adamx)]
    while open_:
        name, module = open_.pop(0)
        found[name] = module
        for part in public_names(module):
            value = getattr(module, part)
            if isinstance(value, ModuleType):
                open_.append((f"{name}.{part}", value))
    return found


def public_names(module: ModuleType) -> list[str]:
    """The names in `__all__`, or else what `from x import y as y` and `import *` export."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    names = []
    for node in ast.parse(inspect.getsource(module)).body:
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            if alias.name == "*":
                names += public_names(importlib.import_module(str(node.module)))
            elif alias.asname and (alias.asname == alias.name or module is adamx):
                names.append(alias.asname)
    return names


def value_of(name: str) -> Any:
    """What a dotted name stands for, a lazy one as well."""
    value: Any = adamx
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    return value


def _home(name: str) -> str:
    return getattr(value_of(name), "__module__", None) or ""


def _written(page: Page) -> str:
    """The Markdown of a page."""
    lines = [f"# {page.title}", ""]
    if page.about:
        lines += [f"::: {page.about}", f"    options: {{{ABOUT}}}", ""]
        lazy = getattr(importlib.import_module(page.about), "NAMES", ())
        lines += [f"Its names: {', '.join(f'`{name}`' for name in lazy)}.", ""] if lazy else []
    for name, home in page.names.items():
        defined = _defined(name, home)
        lines += [f"[](){{#{name}}}"] if defined != name else []  # its heading has the other name
        lines += [f"::: {defined}"]
        lines += [f"    options: {{heading: {name}, toc_label: {name}}}", ""]
    return "\n".join(lines)


def _defined(name: str, home: str) -> str:
    """The name under which the source has it, where that is another."""
    value = value_of(name)
    own = getattr(value, "__qualname__", None) or ""
    there = getattr(importlib.import_module(home), own, None) if home else None
    return f"{home}.{own}" if there is value else name


def _index(made: dict[str, Page]) -> str:
    """The page that lists every public name with the first sentence about it."""
    lines = ["# API reference", "", "Every public name, and what it is."]
    for path, page in sorted(made.items(), key=lambda item: "/optimizers/" not in item[0]):
        link = path.removeprefix("api/")
        lines += ["", f"## [{page.title}]({link})", ""]
        lines += [f"- [`{name}`]({link}#{name}){_summary(name)}" for name in page.names]
    return "\n".join(lines)


def _summary(name: str) -> str:
    first = (inspect.getdoc(value_of(name)) or "").partition("\n\n")[0].replace("\n", " ")
    value = value_of(name)
    return f": {first}" if inspect.isroutine(value) or inspect.isclass(value) else ""
