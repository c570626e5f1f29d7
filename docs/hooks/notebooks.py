# SPDX-License-Identifier: Apache-2.0
"""The notebooks as pages: their text, code and stored outputs. Nothing is run."""

import base64
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "notebooks"
STUDY = FOLDER / "small_states" / "README.md"

LATER = "---\nsearch:\n  boost: 0.5\n---\n\n"  # a search finds pages first


def on_config(config: Any) -> Any:
    """Puts the notebooks into the navigation, in their order."""
    for entry in config.nav:
        if "Notebooks" in entry:
            pages = [f"notebooks/{path.stem}.md" for path in _paths()]
            entry["Notebooks"] = [*pages, "notebooks/study.md"]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds a page for each notebook, its pictures, and the study's own page."""
    from mkdocs.structure.files import File

    for path in _paths():
        text, pictures = converted(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=LATER + text))
        for name, data in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=data))
    study = STUDY.read_text(encoding="utf-8")
    files.append(File.generated(config, "notebooks/study.md", content=study))
    return files


def converted(path: Path) -> tuple[str, dict[str, bytes]]:
    """The Markdown of a notebook, and its pictures by file name."""
    parts, pictures = [], {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source.replace("small_states/README.md", "study.md"))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                name = f"{path.stem}_{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![A figure that this cell drew]({name})")
            elif "text/markdown" in data:
                parts.append("".join(data["text/markdown"]))
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures


def _paths() -> list[Path]:
    return sorted(FOLDER.glob("*.ipynb"))
