"""Run a gated registry on this machine: a server with two users, a policy, a key, and a version of Iris."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.errors import PipelineError
from pipeline.showcase.servers import check_port, project_environment, run_module, run_server
from registry_tools.errors import last_line

ADMIN, REQUESTER, APPROVER = "admin", "ana", "ben"
KEY, POLICY = "ci.pem", "registry.yaml"
_MARK = ".made-by-make-governed"


def run(folder: Path, port: int, echo: Callable[[str], None]) -> None:
    """Run the registry until interrupted; the folder of an earlier one is emptied first.

    Raises
    ------
    PipelineError
        If the folder has other files, the port is in use, or the server does not start or ends.
    """
    check_port(port)
    _prepare(folder)
    passwords = {user: secrets.token_urlsafe(9) for user in (ADMIN, REQUESTER, APPROVER)}
    with _server(folder.resolve(), port, passwords[ADMIN]) as (address, process):
        for user in (REQUESTER, APPROVER):
            _add_user(address, user, passwords)
        _train(folder, address, passwords)
        for line in _instructions(folder, address, passwords):
            echo(line)
        while process.poll() is None:
            time.sleep(0.2)
        raise PipelineError(f"the MLflow server ended with exit code {process.returncode}")


def _prepare(folder: Path) -> None:
    """Empty the folder, and write a key pair and the policy into it."""
    if folder.exists() and not (
        folder.is_dir() and ((folder / _MARK).is_file() or not any(folder.iterdir()))
    ):
        raise PipelineError(f"{folder} has files of something else: choose another folder with --folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    (folder / _MARK).write_text("made by `make governed`, which empties this folder\n")
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / KEY).touch(mode=0o600)
    (folder / KEY).write_bytes(private)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    production = {
        "gates": {"min": {"accuracy": 0.9}},
        "evaluators": ["ci"],
        "approvals": {"count": 1, "by": [REQUESTER, APPROVER]},
        "rollback": [REQUESTER, APPROVER],
        "force": [APPROVER],
    }
    policy = {
        "registry": "governed",
        "evaluators": {"ci": public.decode()},
        "models": {"iris*": {"production": production}},
    }
    (folder / POLICY).write_text(yaml.safe_dump(policy, sort_keys=False))


@contextlib.contextmanager
def _server(folder: Path, port: int, password: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run MLflow's server with the gated store and its basic-auth app."""
    settings = {
        "default_permission": "MANAGE",
        "database_uri": f"sqlite:///{folder}/users.db",
        "admin_username": ADMIN,
    }
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (folder / "auth.ini").write_text("\n".join(["[mlflow]", *lines]) + "\n")
    store = f"sqlite:///{folder}/mlflow.db"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"),
        *("--backend-store-uri", store, "--registry-store-uri", f"gated+{store}"),
        *("--artifacts-destination", str(folder / "artifacts"), "--app-name", "basic-auth"),
    ]
    environment = project_environment(
        REGISTRY_TOOLS_POLICY=str(folder / POLICY),
        MLFLOW_AUTH_CONFIG_PATH=str(folder / "auth.ini"),
        MLFLOW_AUTH_ADMIN_PASSWORD=password,
        MLFLOW_FLASK_SERVER_SECRET_KEY=secrets.token_hex(16),
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
    )
    with run_server(command, folder, environment, "MLflow server", port) as (chosen, process):
        yield f"http://127.0.0.1:{chosen}", process


def _add_user(address: str, user: str, passwords: Mapping[str, str]) -> None:
    sign_in = b64encode(f"{ADMIN}:{passwords[ADMIN]}".encode()).decode()
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/users/create",
        json.dumps({"username": user, "password": passwords[user]}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {sign_in}"},
    )
    urllib.request.urlopen(request, timeout=60).close()


def _variables(address: str, user: str, password: str) -> dict[str, str]:
    return {
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_TRACKING_USERNAME": user,
        "MLFLOW_TRACKING_PASSWORD": password,
    }


def _train(folder: Path, address: str, passwords: Mapping[str, str]) -> None:
    environment = project_environment(**_variables(address, REQUESTER, passwords[REQUESTER]))
    environment.pop("REGISTRY_TOOLS_POLICY", None)
    environment.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # the server's first requests are slow
    done = run_module(["pipeline", "train", "--plots", "false"], folder, environment)
    if done.returncode != 0:
        raise PipelineError(f"the training failed: {last_line(done.stderr, 'no output')}")


def _instructions(folder: Path, address: str, passwords: Mapping[str, str]) -> list[str]:
    where = os.path.relpath(folder)
    sign_in = f"MLFLOW_TRACKING_USERNAME={APPROVER} MLFLOW_TRACKING_PASSWORD={passwords[APPROVER]}"
    exports = {
        **_variables(address, REQUESTER, passwords[REQUESTER]),
        "REGISTRY_TOOLS_POLICY": f"{where}/{POLICY}",
    }
    return [
        f"{address}  MLflow with a gated registry; {where}/{POLICY} is its policy. Ctrl-C ends it.",
        *(f"  {user} / {password}" for user, password in passwords.items()),
        "",
        f"{REQUESTER} registered iris/1, in staging. In another terminal, as {REQUESTER}:",
        *(f"  export {name}={value}" for name, value in exports.items()),
        "  registry-tools promote iris/1 --to production   # refused: there is no evidence",
        f"  registry-tools evaluate iris/1 --to production --key {where}/{KEY}",
        "  registry-tools request iris/1 --to production --reason 'the first version'",
        f"and as {APPROVER}, or on the pages of `registry-tools console`:",
        f"  {sign_in} registry-tools approve iris/1 --to production",
        f"then as {REQUESTER}, or with the alias button of MLflow's page {address}/#/models/iris:",
        "  registry-tools promote iris/1 --to production --reason 'the first version'",
    ]
