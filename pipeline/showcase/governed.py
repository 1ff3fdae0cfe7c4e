"""Run a gated registry on this machine: server, console, users, policy, key, and a version of Iris."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
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


def run(folder: Path, port: int, console_port: int, echo: Callable[[str], None]) -> None:
    """Run the registry and its console until interrupted; the folder of an earlier one is emptied first.

    Raises
    ------
    PipelineError
        If the folder has other files, a port is in use, or a server does not start or ends.
    """
    for each in (port, console_port):
        check_port(each)
    _prepare(folder)
    passwords = {user: secrets.token_urlsafe(9) for user in (ADMIN, REQUESTER, APPROVER)}
    with _server(folder.resolve(), port, passwords[ADMIN]) as (address, process):
        for user in (REQUESTER, APPROVER):
            _add_user(address, user, passwords)
            _write_variables(folder, address, user, passwords[user])
        _train(folder, address, passwords)
        with _console(folder.resolve(), address, console_port) as (console_address, console):
            for line in _instructions(folder, address, console_address, passwords):
                echo(line)
            while process.poll() is None and console.poll() is None:
                time.sleep(0.2)
        name, ended = ("MLflow server", process) if process.poll() is not None else ("console", console)
        raise PipelineError(f"the {name} ended with exit code {ended.returncode}")


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
        "rollback": [APPROVER],
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
        "auth_cache_ttl_seconds": 60,  # else each request of a page of the console waits for a password check
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


@contextlib.contextmanager
def _console(folder: Path, registry: str, port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run the console, whose log has a folder of its own."""
    own = folder / "console"
    own.mkdir()
    options = ("--tracking-uri", registry, "--policy", str(folder / POLICY))
    command = [sys.executable, "-m", "registry_tools", "console", *options]
    with run_server(command, own, project_environment(), "console", port) as (chosen, process):
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


def _write_variables(folder: Path, address: str, user: str, password: str) -> None:
    """Write the file that makes a shell act as a user."""
    variables = {
        **_variables(address, user, password),
        "REGISTRY_TOOLS_POLICY": str(folder.resolve() / POLICY),
    }
    path = folder / f"{user}.sh"
    path.touch(mode=0o600)
    path.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()))


def _instructions(folder: Path, address: str, console: str, passwords: Mapping[str, str]) -> list[str]:
    where = os.path.relpath(folder)
    return [
        f"{address}  MLflow with a gated registry; {where}/{POLICY} is its policy. Ctrl-C ends it.",
        f"{console}  its console",
        *(f"  {user} / {password}" for user, password in passwords.items()),
        "",
        f"{REQUESTER} registered iris/1, in staging. In another terminal, as {REQUESTER}:",
        f"  . {where}/{REQUESTER}.sh",
        "  registry-tools promote iris/1 --to production   # refused: there is no evidence",
        f"  registry-tools evaluate iris/1 --to production --key {where}/{KEY}",
        "  registry-tools request iris/1 --to production --reason 'the first version'",
        f"Approve as {APPROVER}, in the console or with",
        f"  (. {where}/{APPROVER}.sh; registry-tools approve iris/1 --to production)",
        f"then as {REQUESTER}, or with the alias button of MLflow's page {address}/#/models/iris:",
        "  registry-tools promote iris/1 --to production --reason 'the first version'",
        "docs/how-to/protect-a-stage.md goes through all of it.",
    ]
