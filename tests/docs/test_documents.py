"""What the documents say is what happens: every command that is shown with its output is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prometheus_client.parser import text_string_to_metric_families

from registry_tools.cli.main import cli as registry_cli
from registry_tools.mlflow_store import stages
from tests.support.constants import LONG, ROOT
from tests.support.documents import CONTINUED, commands, fenced, plain
from tests.support.servers import BIN
from tests.support.serving import Serve
from tests.support.stores import Trained

README = (ROOT / "README.md").read_text()
TRAINING = (ROOT / "docs" / "training.md").read_text()
DOCUMENTS = sorted(path for path in ROOT.rglob("*.md") if not path.relative_to(ROOT).parts[0].startswith("."))


def blocks(language: str, text: str = README + TRAINING) -> list[str]:
    return [block for kind, block in fenced(text) if kind == language]


def conversations(text: str = README + TRAINING) -> list[tuple[str, str]]:
    """Return each command of the console blocks with the output shown below it."""
    return [shown for block in blocks("console", text) for shown in commands(block)]


def fresh_checkout(folder: Path) -> Path:
    """Copy the project as a clone would have it; its environment is the one that tests run in."""
    for part in ("MLproject", "Makefile", "conda.yaml", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / part, folder / part)
        os.utime(folder / part, (0, 0))  # `make` must not install into the tests' environment
    for package in ("pipeline", "registry_tools"):
        shutil.copytree(ROOT / package, folder / package)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def test_the_server_responds_as_its_documents_show(
    serve: Serve, trained_once: Trained, tmp_path: Path
) -> None:
    shutil.copy(trained_once.folder / "mlflow.db", tmp_path / "shown.db")
    uri = f"sqlite:///{tmp_path}/shown.db"
    stages.move_alias(MlflowClient(uri), "iris", "production", 1)
    client = serve("iris@production", "--tracking-uri", uri)
    pages = ("how-to/serve-a-stage.md", "reference/http-api.md")
    shown = [shown for page in pages for shown in conversations((ROOT / "docs" / page).read_text())]
    assert len(shown) > 5
    for command, output in shown:
        command = command.replace("localhost:5001", f"localhost:{client.base_url.port}")
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert plain(done.stdout.replace("\r", "")) == plain(output), command + done.stderr
    documented = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    families = text_string_to_metric_families(client.get("/metrics").text)
    names = {family.name for family in families if family.name.startswith("serving_")}
    assert len(names) > 5
    assert {name for name in names if f"`{name}" not in documented} == set()


@pytest.mark.slow(minutes=1)
def test_the_documents_show_the_output_of_their_commands(tmp_path: Path) -> None:
    assert_shown(fresh_checkout(tmp_path), conversations())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("document", "stage"),
    [
        ("scoring", "staging"),
        ("how-to/monitor-and-retrain", "production"),
        ("how-to/verify-a-verdict", "staging"),
    ],
)
def test_the_commands_on_a_trained_model_print_the_documented_output(
    document: str, stage: str, trained_once: Trained, tmp_path: Path
) -> None:
    project = fresh_checkout(tmp_path)
    shutil.copy(trained_once.folder / "mlflow.db", project / "mlflow.db")
    stages.move_alias(MlflowClient(f"sqlite:///{project}/mlflow.db"), "iris", stage, 1)
    shown = conversations((ROOT / "docs" / f"{document}.md").read_text())
    assert len(shown) > 2
    assert_shown(project, shown)


@LONG
@pytest.mark.slow
def test_tables_are_read_as_their_page_shows(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "read-a-table.md").read_text()
    project = fresh_checkout(tmp_path)
    (script,) = blocks("python", page)
    (project / "flowers.py").write_text(script)
    assert_shown(project, conversations(page))


def assert_shown(project: Path, shown_commands: list[tuple[str, str]]) -> None:
    """Run commands in a checkout, and compare what they print with what is shown."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "MAKE"))}
    # As who has not activated the environment, which `make` does for its own commands.
    folders = [f for f in os.environ["PATH"].split(os.pathsep) if Path(f) != BIN]
    environment["PATH"] = os.pathsep.join(folders)
    for command, shown in shown_commands:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=project,
            env=environment | {"LOGNAME": "ada"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert plain(done.stdout) == plain(shown), f"$ {command}"


def test_the_python_of_the_readme_prints_the_output_that_it_shows(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(trained.folder / "mlflow.db", tmp_path)  # other tests read the shared store
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    MlflowClient().set_registered_model_alias("iris", "production", "1")
    (block,) = blocks("python")
    scope: dict[str, object] = {}
    for line in filter(None, block.splitlines()):
        code, _, comment = line.partition("#")
        if code.startswith(("from", "model =")):
            exec(code, scope)
        else:
            answer = repr(eval(code, scope)).replace(", dtype='<U10')", ")")
            assert answer == comment.strip()


def test_every_subcommand_is_in_the_readme() -> None:
    for name in registry_cli.commands:
        assert f"registry-tools {name}" in README


def test_every_make_target_that_a_document_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for document in DOCUMENTS:
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", document.read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (document.name, target)


def test_every_console_block_of_the_documents_is_run_by_a_test() -> None:
    adopted = "how-to/your-own-table"
    served, scored = ("how-to/serve-a-stage", "reference/http-api"), ("scoring", "how-to/monitor-and-retrain")
    followed = {"tutorial", *(f"how-to/{guide}" for guide in CONTINUED)}
    own = ("explain-predictions", "from-a-joblib-file", "honest-splits", "predict-a-number", "rare-classes")
    pages = {f"how-to/{page}" for page in (*own, "protect-a-stage", "read-a-table", "verify-a-verdict")}
    run = {"../README", "training", adopted, *pages, *served, *scored, *followed}
    shown = {
        os.path.relpath(document.with_suffix(""), ROOT / "docs")
        for document in DOCUMENTS
        if blocks("console", document.read_text())
    }
    assert shown == run


def test_every_link_between_the_documents_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), (document.name, target)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("module", ["pipeline", "registry_tools"])
def test_both_programs_run_as_modules(module: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "python", "-m", module, "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "Usage:" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "simulation",
    [
        *("gate_power.py", "slice_power.py"),
        *(pytest.param(name, marks=LONG) for name in ("interval_coverage.py", "metric_gate_power.py")),
    ],
)
def test_the_tables_of_gates_and_intervals_match_the_simulation(simulation: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / simulation], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| ")
    assert done.stdout in (ROOT / "docs" / "explanation" / "promotion-statistics.md").read_text()
