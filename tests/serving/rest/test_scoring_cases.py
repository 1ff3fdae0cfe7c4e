"""`mlflow models serve` beside our server: `docs/reference/scoring-protocol.md` lists every difference."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from mlflow import MlflowClient

from tests.support.constants import ROOT
from tests.support.scoring_cases import KINDS, Case, common_cases
from tests.support.servers import BIN, free_port, wait_until_up

DOCUMENT = ROOT / "docs" / "reference" / "scoring-protocol.md"
Start = Callable[..., "subprocess.Popen[bytes]"]
Differences = dict[str, tuple[str, str]]  # by the name of the request: MLflow's result and ours


def documented(kind: str) -> Differences:
    """Return the differences that the document lists for a kind of model."""
    found = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 5 and cells[1] in {"every", kind}:
            found[cells[0]] = (cells[2], cells[3])
            assert len(cells[4]) > 20, f"{cells[0]}: no reason"
    return found


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def servers(kind: str, start: Start, empty_database: Path, tmp_path: Path) -> Iterator[list[httpx.Client]]:
    """MLflow's server and ours with a model of one kind."""
    folder = tmp_path / "model"
    KINDS[kind].save(folder)
    uri = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'mlflow.db')}"
    client = MlflowClient(uri)
    client.create_registered_model("case")
    client.create_model_version("case", str(folder))
    ports = free_port(), free_port()
    theirs = (BIN / "mlflow", "models", "serve", "-m", folder, "--env-manager", "local", "--port", ports[0])
    ours = (BIN / "registry-tools", "serve", "case/1", "--allow-code", "--tracking-uri", uri)
    processes = [start(*theirs), start(*ours, "--port", ports[1])]
    clients = []
    for port, process in zip(ports, processes, strict=True):
        wait_until_up(f"http://127.0.0.1:{port}/ping", process)
        # MLflow's server closes the connection after a 500.
        limits = httpx.Limits(max_keepalive_connections=0)
        clients.append(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, limits=limits))
    yield clients
    for each in clients:
        each.close()


def response(client: httpx.Client, case: Case) -> httpx.Response:
    headers = {} if case.kind is None else {"content-type": case.kind}
    return client.request(case.method, case.path, content=case.body, headers=headers)


def result(response: httpx.Response) -> str:
    """Return the status of a response, and what else tells a client how to go on."""
    if response.status_code == 400:
        return f"400 {response.json()['error_code']}"
    if response.is_redirect:
        return f"{response.status_code} {urlsplit(response.headers['location']).path}"
    return str(response.status_code)


@pytest.mark.slow
def test_each_difference_from_mlflows_server_is_documented(servers: list[httpx.Client], kind: str) -> None:
    differences: Differences = {}
    results = []
    for case in [*common_cases(KINDS[kind].rows), *KINDS[kind].cases]:
        theirs, ours = (response(client, case) for client in servers)
        wanted, found = result(theirs), result(ours)
        results += [wanted] if case.path == "/invocations" else []
        if wanted == found == "200" and case.path == "/invocations":
            # As text, because NaN is not equal to itself.
            found += ", another body" * (str(theirs.json()) != str(ours.json()))
        if wanted != found:
            differences[case.name] = (wanted, found)
        assert "Traceback" not in ours.text, case.name
    assert differences == documented(kind)
    assert "200" in results
