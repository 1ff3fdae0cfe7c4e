"""The files in `deploy/`, compared with the project, because no container engine is available here."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import mlflow.cli
import pytest
import yaml
from packaging.utils import canonicalize_name

from registry_tools.cli.serve import serve
from registry_tools.serving.rest.app import _routes
from tests.support.constants import ROOT
from tests.support.lock_files import pins

DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
DEPLOYMENT, SERVICE = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def lines_of(stage: str) -> list[str]:
    """Return the instructions of one image, starting with the instructions of its base."""
    pattern = re.compile(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", re.MULTILINE | re.DOTALL)
    stages: dict[str, str] = dict(pattern.findall(CONTAINERFILE))
    return (stages["base"] + stages[stage]).splitlines()


def words(stage: str, instruction: str) -> list[list[str]]:
    """Return the arguments of all instructions of one kind in an image."""
    found = [line.split(" ", 1)[1] for line in lines_of(stage) if line.startswith(instruction)]
    return [yaml.safe_load(text) if text.startswith("[") else shlex.split(text) for text in found]


def arguments(command: click.Command, args: list[str]) -> dict[str, Any]:
    """Parse the arguments of a command with the command's own parser, without running it."""
    return command.make_context("command", list(args)).params


@pytest.mark.parametrize("stage", ["server", "serving"])
def test_an_image_installs_as_make_does_and_runs_as_an_unprivileged_user(stage: str) -> None:
    for *sources, _ in words(stage, "COPY"):
        assert all((ROOT / source).exists() for source in sources), sources
    makefile = (ROOT / "Makefile").read_text()
    (pip,) = re.findall(r"^PIP\s+:= \$\(BIN\)/(.*)$", makefile, re.MULTILINE)
    for command in words(stage, "RUN"):
        if command[0] == "useradd":
            continue
        line = " ".join(word for word in command if word != "--no-cache-dir")
        assert line.startswith(pip)
        made = line.removeprefix(pip).replace("server.lock", "requirements.lock")
        assert f"$(PIP){made}" in makefile.replace(" -e .", " ."), line
    (user,) = words(stage, "USER")
    assert user == words(stage, "RUN")[0][2:3]
    assert POD["securityContext"]["runAsUser"] == int(user[0])


@pytest.mark.slow
def test_the_files_copied_into_the_image_suffice_to_install_the_project(tmp_path: Path) -> None:
    for *sources, target in words("serving", "COPY"):
        for source in sources:
            to = tmp_path / "app" / target / ("" if target != "./" else source)
            to.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, to)
    command = words("serving", "RUN")[-1][1:]
    installed = tmp_path / "installed"
    subprocess.run([sys.executable, *command, "--target", installed], cwd=tmp_path / "app", check=True)
    shown = subprocess.run(
        [sys.executable, "-m", "registry_tools", "serve", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--cache" in shown.stdout


def test_each_serving_file_runs_a_valid_command() -> None:
    ((entry, *fixed),) = words("serving", "ENTRYPOINT")
    assert (entry, fixed) == ("registry-tools", ["serve"])
    (port,) = words("serving", "EXPOSE")
    for args in (words("serving", "CMD")[0], COMPOSE["serving"]["command"], CONTAINER["args"]):
        given = arguments(serve, args)
        assert (given["host"], given["ref"]) == ("0.0.0.0", "iris@production")
        assert [str(given["port"])] == port
        assert given["cache"] == "/cache"


def test_the_command_of_the_tracking_server_is_valid() -> None:
    ((entry, *fixed),) = words("server", "ENTRYPOINT")
    assert (entry, fixed[0]) == ("mlflow", "server")
    given = arguments(mlflow.cli.server, [*fixed[1:], *COMPOSE["mlflow"]["command"]])
    assert (given["host"], given["port"], given["app_name"]) == ("0.0.0.0", 5000, "basic-auth")
    (exposed,) = words("server", "EXPOSE")
    assert exposed == ["5000"]
    tracking = COMPOSE["serving"]["environment"]["MLFLOW_TRACKING_URI"]
    assert tracking.removeprefix("http://") in given["allowed_hosts"].split(",")
    # The URI names the database service, and the user that the service creates.
    database = COMPOSE["database"]["environment"]
    uri = "postgresql+psycopg2://{POSTGRES_USER}@database/{POSTGRES_DB}".format(**database)
    assert given["backend_store_uri"] == uri
    settings = auth_settings(DEPLOY / "auth.ini")
    assert (settings.database_uri, settings.default_permission) == (uri, "READ")
    assert (COMPOSE["mlflow"]["environment"]["PGPASSWORD"]) == database["POSTGRES_PASSWORD"]


def auth_settings(path: Path) -> Any:
    """Read the settings with MLflow's own reader, and check that it knows every key."""
    parser = configparser.ConfigParser()
    parser.read(path)
    # The module is loaded from its file, because importing its package starts the whole app.
    config = Path(mlflow.__file__).parent / "server" / "auth" / "config.py"
    spec = importlib.util.spec_from_file_location("auth_config", config)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(path))
        settings = module.read_auth_config()
    assert set(parser["mlflow"]) <= set(settings._fields)
    return settings


def test_each_variable_is_read_by_mlflow_or_libpq() -> None:
    known = {"PGPASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD"}
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD",
                 "MLFLOW_AUTH_CONFIG_PATH", "MLFLOW_FLASK_SERVER_SECRET_KEY",
                 "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"):  # fmt: skip
        assert getattr(mlflow.environment_variables, name).name == name
        known.add(name)
    for service in ("mlflow", "serving"):
        assert set(COMPOSE[service]["environment"]) <= known
    assert {variable["name"] for variable in CONTAINER["env"]} <= known
    named = re.findall(r"\$\{(\w+):\?\}", (DEPLOY / "compose.yaml").read_text())
    (exported,) = re.findall(r"#     export (.*)", (DEPLOY / "compose.yaml").read_text())
    assert set(named) == set(re.findall(r"(\w+)=", exported))


def test_each_probe_uses_a_route_that_needs_no_key() -> None:
    routes = _routes()
    asked = [CONTAINER[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert [probe["path"] for probe in asked] == ["/health", "/health", "/ready"]
    assert all(routes[probe["path"]].probe for probe in asked)
    (port,) = CONTAINER["ports"]
    assert {probe["port"] for probe in asked} == {port["name"]}
    assert port["containerPort"] == arguments(serve, CONTAINER["args"])["port"]
    assert SERVICE["spec"]["ports"][0]["targetPort"] == port["name"]
    assert SERVICE["spec"]["selector"] == DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    for service, path in (("serving", "/ready"), ("mlflow", "/health")):
        check = COMPOSE[service]["healthcheck"]["test"][-1]
        port_of = COMPOSE[service]["ports"][0].rpartition(":")[2]
        assert f"'http://localhost:{port_of}{path}'" in check
        compile(check, service, "exec")


def test_written_folders_are_mounted_and_the_rest_is_read_only() -> None:
    mounted = {mount["mountPath"]: mount["name"] for mount in CONTAINER["volumeMounts"]}
    assert set(mounted) == {"/cache", "/tmp"}
    assert {volume["name"] for volume in POD["volumes"]} == set(mounted.values())
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]
    # A request may take as long as the server allows before the container is stopped.
    given = arguments(serve, CONTAINER["args"])
    assert POD["terminationGracePeriodSeconds"] > given["timeout"]
    assert COMPOSE["serving"]["stop_grace_period"] == "40s"
    assert "/artifacts" in COMPOSE["mlflow"]["volumes"][0]


def test_the_server_has_the_mlflow_of_the_lock() -> None:
    ours, theirs = (
        {str(pin) for pin in pins(lock) if pin.name.startswith("mlflow")}
        for lock in ("requirements.lock", "deploy/server.lock")
    )
    assert ours == theirs
    text = (DEPLOY / "server.lock").read_text()
    assert "://" not in text
    assert "--hash=sha256:" in text


def test_each_file_states_that_it_is_not_tested() -> None:
    for name in ("Containerfile", "compose.yaml", "kubernetes.yaml"):
        text = " ".join((DEPLOY / name).read_text().replace("#", " ").split())
        assert re.search(r"Never (built|run|applied) so far: there was no (engine|cluster)", text)


@pytest.mark.slow
def test_the_image_of_the_server_has_the_packages_of_the_gated_store() -> None:
    code = (
        "import sys, registry_tools.gated_store.store;"
        "print(*(m.__file__ for name, m in sys.modules.items() if name.startswith('registry_tools')))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    imported = set()
    for node in (
        node for path in done.stdout.split() for node in ast.walk(ast.parse(Path(path).read_text()))
    ):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    third_party = imported - sys.stdlib_module_names - {"registry_tools"}
    of_module = importlib.metadata.packages_distributions()
    installed = {canonicalize_name(pin.name) for pin in pins("deploy/server.lock")}
    assert {"mlflow", "securesystemslib", "yaml"} <= third_party
    for module in third_party - {"typing_extensions"}:  # for the type checker only
        assert {canonicalize_name(name) for name in of_module[module]} & installed, module
