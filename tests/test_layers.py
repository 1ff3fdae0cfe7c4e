"""Imports run downward only: read from the source, not from what happens to be imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

# From the top down. A module may import what stands in a lower row, or in its own where said.
LAYERS: list[set[str]] = [
    {"pipeline.__main__"},
    {"pipeline.cli"},
    {"pipeline.train"},
    {"pipeline.tracking"},
    {"pipeline.data", "pipeline.estimators", "pipeline.metrics", "pipeline.plots"},
    {"pipeline.params"},
    {"pipeline.errors"},
    {"registry_tools.__main__"},
    {"registry_tools.cli"},
    {"registry_tools.command_line", "registry_tools.export"},
    {"registry_tools.__init__"},
    {"registry_tools.loader"},
    {"registry_tools.registry"},
    {"registry_tools.evidence", "registry_tools.integrity", "registry_tools.refs"},
    {"registry_tools.rows", "registry_tools.signature", "registry_tools.tables"},
    {"registry_tools.errors"},
]
MAY_IMPORT_MLFLOW = {"pipeline.tracking", "registry_tools.registry", "registry_tools.loader"}
SOURCES = sorted([*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("registry_tools/**/*.py")])


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports_of(path: Path) -> set[str]:
    """Return every module imported anywhere in a file, `from package import module` included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def row_of(module: str) -> int:
    return next(row for row, names in enumerate(LAYERS) if module in names)


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_a_module_imports_only_what_stands_below_it(path: Path) -> None:
    module = module_of(path)
    if module == "pipeline.__init__":
        assert imports_of(path) == set()
        return
    known = set().union(*LAYERS)
    imported = {name for name in imports_of(path) if name in known}
    if "registry_tools" in imports_of(path):
        imported -= {"registry_tools.__init__"}
    above = {name for name in imported if row_of(name) <= row_of(module)}
    assert not above - {module}, f"{module} imports {sorted(above)} from its own row or above"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_only_the_named_modules_import_mlflow(path: Path) -> None:
    uses_mlflow = any(name.partition(".")[0] == "mlflow" for name in imports_of(path))
    assert not uses_mlflow or module_of(path) in MAY_IMPORT_MLFLOW


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_the_library_knows_nothing_of_the_application(path: Path) -> None:
    if module_of(path).startswith("registry_tools"):
        assert not {n for n in imports_of(path) if n.partition(".")[0] == "pipeline"}


def test_every_module_has_a_layer() -> None:
    modules = {module_of(path) for path in SOURCES} - {"pipeline.__init__"}
    assert modules == set().union(*LAYERS)


@pytest.mark.parametrize("package", ["registry_tools", "registry_tools.cli", "pipeline.cli"])
def test_importing_is_free(package: str, tmp_path: Path) -> None:
    code = (
        f"import sys, {package}\n"
        "heavy = {'mlflow', 'sklearn', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []
