"""Imports run downward only: read from the source, not from what happens to be imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

# Each package from the top down. A module may import what stands in a lower row of its own package.
LAYERS: dict[str, list[set[str]]] = {
    "pipeline": [
        {"__main__"},
        {"cli"},
        {"demo", "monitor", "sweep"},
        {"demo_page", "traffic"},
        {"monitoring.report"},
        {"monitoring.follow_up"},
        {"train", "trials"},
        {"monitoring.record"},
        {"card", "example", "pictures", "tracking"},
        {"store"},
        {"search"},
        {"estimators"},
        {"curves", "data", "engine", "plots", "monitoring.pictures"},
        {"monitoring.findings"},
        {"monitoring.files", "monitoring.labels"},
        {"monitoring.rows"},
        {"monitoring.window"},
        {"monitoring.drift", "monitoring.reference"},
        {"params"},
        {"parameters"},
        {"models"},
        {"errors", "__init__"},
    ],
    "registry_tools": [
        {"__main__"},
        {"cli"},
        {"cli_acts", "cli_record", "cli_score", "cli_serve", "cli_versions"},
        {"cli_output"},
        {"batch.scoring"},
        {"batch.groups"},
        {"batch.task"},
        {"batch.output", "batch.record", "batch.spark", "batch.worker"},
        {"batch.pool"},
        {"batch.answers", "batch.carried", "batch.messages"},
        {"batch.columns", "batch.files"},
        {"batch.known", "batch.numbers", "batch.reading", "batch.thrift"},
        {"batch.checked"},
        {"serving.serve"},
        {"serving.alone", "serving.supervisor", "serving.worker_process"},
        {"serving.shadow_process", "serving.worker"},
        {"serving.open_inference_grpc"},
        {"serving.app", "serving.follower"},
        {"serving.documentation", "serving.open_inference"},
        {"serving.inference", "serving.mlflow_protocol"},
        {"serving.simple_protocol", "serving.status_pages"},
        {"serving.plane", "serving.prediction_log", "serving.shadow"},
        {"serving.batcher"},
        {"serving.answered", "serving.loading"},
        {"serving.served"},
        {"serving.mlflow_reader", "serving.sources"},
        {"serving.explain", "serving.tensor_rows"},
        {"serving.tensors"},
        {"serving.http", "serving.inputs", "serving.lean"},
        {
            "serving.grpc_messages",
            "serving.documentation_page",
            "serving.keys",
            "serving.threads",
            "serving.metrics",
            "serving.settings",
            "serving.source",
        },
        {"command_line", "export", "promotion", "transfer"},
        {"reports.comparison", "reports.history"},
        {"upkeep"},
        {"judging", "side_by_side"},
        {"subjects"},
        {"__init__"},
        {"loader", "scoring", "turns"},
        {"artifacts", "formats", "history", "leftovers", "runs", "signing"},
        {"experiments", "life", "registry"},
        {"connection", "gates", "thresholds"},
        {"comparison", "intervals", "reports.render"},
        {"evidence", "frames", "integrity", "refs", "tables", "metrics"},
        {"rows", "signature"},
        {"drift_tags", "errors"},
    ],
}
# What the application may use of the library, by the row of its own that uses it.
LIBRARY_OF_PURE_CODE = {
    *("errors", "evidence", "integrity", "intervals", "refs", "rows", "signature", "tables"),
    "metrics",
}
MAY_IMPORT_MLFLOW = {
    "pipeline.store",
    "pipeline.tracking",
    "pipeline.trials",
    "pipeline.monitoring.record",
    "registry_tools.batch.record",
    "registry_tools.batch.spark",
    "registry_tools.formats",  # for the formats that MLflow reads itself
    "registry_tools.experiments",
    "registry_tools.history",
    "registry_tools.life",
    "registry_tools.artifacts",
    "registry_tools.connection",
    "registry_tools.registry",
    "registry_tools.runs",
    "registry_tools.serving.lean",
    "registry_tools.serving.mlflow_reader",
    "registry_tools.thresholds",
    "registry_tools.turns",
}
SOURCES = sorted(
    path
    for package in LAYERS
    for path in (ROOT / package).glob("**/*.py")
    if path.parent.name in LAYERS or path.name != "__init__.py"
)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports_of(path: Path) -> set[str]:
    """Return every module imported anywhere in a file, `from package import module` included.

    What is imported for the type checker alone is not imported.
    """
    found = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules_in(names: set[str], package: str) -> set[str]:
    """Return the modules of a package among imported names; the package itself is `__init__`."""
    known = set().union(*LAYERS[package])
    found = {name.removeprefix(f"{package}.") for name in names} & known
    bare = {name for name in names if name in {f"{package}.load_model", f"{package}.LoadedModel"}}
    return found | ({"__init__"} if bare else set())


def row_of(package: str, name: str) -> int:
    return next(row for row, names in enumerate(LAYERS[package]) if name in names)


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_a_module_imports_only_what_stands_below_it(path: Path) -> None:
    package, name = module_of(path).split(".", 1)
    lowest = row_of(package, name)
    if name == "__init__":
        lowest -= 1  # it hands on what stands beside it
    for imported in modules_in(imports_of(path), package) - {"__init__"}:
        assert row_of(package, imported) > lowest or name == "__init__", f"{name} → {imported}"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_pure_code_of_the_application_uses_only_pure_code_of_the_library(path: Path) -> None:
    package, name = module_of(path).split(".", 1)
    pure = {"curves", "data", "estimators", "plots", "params", "parameters", "models", "errors"}
    pure |= {f"monitoring.{part}" for part in ("drift", "files", "findings", "labels", "reference")}
    pure |= {f"monitoring.{part}" for part in ("pictures", "rows", "window")}
    if package == "pipeline" and name in pure:
        assert modules_in(imports_of(path), "registry_tools") <= LIBRARY_OF_PURE_CODE


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_only_the_named_modules_import_mlflow(path: Path) -> None:
    uses_mlflow = any(name.partition(".")[0] == "mlflow" for name in imports_of(path))
    assert not uses_mlflow or module_of(path) in MAY_IMPORT_MLFLOW


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_the_library_knows_nothing_of_the_application(path: Path) -> None:
    if module_of(path).startswith("registry_tools"):
        assert not {n for n in imports_of(path) if n.partition(".")[0] == "pipeline"}


def test_every_module_has_a_layer() -> None:
    for package, layers in LAYERS.items():
        modules = {
            module_of(path).split(".", 1)[1]
            for path in SOURCES
            if path.is_relative_to(ROOT / package)
        }
        assert modules == set().union(*layers)


@pytest.mark.parametrize("package", ["registry_tools", "registry_tools.cli", "pipeline.cli"])
def test_importing_is_free(package: str, tmp_path: Path) -> None:
    code = (
        f"import sys, {package}\n"
        "heavy = {'mlflow', 'sklearn', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []
