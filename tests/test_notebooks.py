# SPDX-License-Identifier: Apache-2.0
"""Every notebook is kept as it ran, and runs from top to bottom on a CPU."""

import ast
import asyncio
import os
import pathlib
import warnings

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell):
    """The kinds of what a cell has put out, each once."""
    return {(output.output_type, output.get("name")) for output in cell.outputs}


def test_there_are_notebooks():
    assert NOTEBOOKS


@each
def test_a_notebook_is_kept_as_it_ran(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        ast.parse(cell.source, f"{path.stem}, cell {cell.execution_count}")
        assert not shown(cell) & {("error", None), ("stream", "stderr")}
    assert any(shown(cell) for cell in cells)


@pytest.mark.slow
@each
def test_a_notebook_runs_and_shows_what_it_showed(path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", os.environ.get("JAX_PLATFORMS", "cpu"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    # An entry of the compile cache that another process is still writing is compiled again.
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:Error reading persistent compilation cache entry")
    notebook = nbformat.read(path, as_version=4)
    cells = code_cells(notebook)
    if any("import torch" in cell.source.splitlines() for cell in cells):
        pytest.importorskip("torch", reason="the notebook runs PyTorch")
    before = [shown(cell) for cell in cells]
    for cell in cells:
        cell.outputs, cell.execution_count = [], None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the kernel's client, not ours
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": FOLDER}}).execute()
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [shown(cell) for cell in cells] == before
    asyncio.set_event_loop(None)
