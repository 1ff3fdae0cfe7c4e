"""The notebook: every cell runs and shows the stored output."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.constants import ROOT
from tests.support.documents import assert_same
from tests.support.stores import Trained

NOTEBOOK = ROOT / "docs" / "notebooks" / "quickstart.ipynb"


def shown_by(source: str, scope: dict[str, Any]) -> str:
    """Run a cell, and return its last expression as Jupyter shows it in a text cell."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), scope)
    return "" if last is None else repr(eval(ast.unparse(last), scope))


@pytest.mark.slow
def test_every_cell_of_the_notebook_shows_its_stored_output(
    trained_once: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(trained_once.folder / "mlflow.db", tmp_path)
    monkeypatch.chdir(tmp_path)  # the notebook reads the store of the folder in which it runs
    scope: dict[str, Any] = {}
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 4
    for cell in cells:
        source = "".join(cell["source"])
        stored = ["".join(output["data"]["text/plain"]) for output in cell["outputs"]]
        assert_same(shown_by(source, scope), "".join(stored), source)
