"""Run a server for the example store or the demo, and wait until it responds."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import PipelineError
from registry_tools.errors import last_line

_START_SECONDS, _END_SECONDS = 120, 10
_PORT_ATTEMPTS = 5


class OutdatedSchema(PipelineError):
    """The database was created by an older MLflow and needs an upgrade."""


class PortTaken(PipelineError):
    """Another process uses the port of a server."""


def project_environment(**variables: str) -> dict[str, str]:
    """Return the environment of this process for commands of this project, without a run of `mlflow run`."""
    of_run = {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"}
    kept = {name: value for name, value in os.environ.items() if name not in of_run}
    path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, path))} | variables


def run_module(
    arguments: Sequence[str], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `python -m` with arguments in a folder, and return its exit code and its output."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@contextlib.contextmanager
def run_server(
    command: Sequence[str], folder: Path, environment: dict[str, str], name: str, port: int | None = None
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run a server until the body ends; yield its port and process.

    Parameters
    ----------
    command
        The command, which accepts `--port`.
    folder
        The working folder, which also gets `server.log`.
    environment
        The environment of the process.
    name
        The name of the server in messages.
    port
        The port; None chooses a free one, and tries another if a different process takes it first.

    Raises
    ------
    PipelineError
        If the server does not start.
    """
    log = folder / "server.log"
    for attempts_left in reversed(range(_PORT_ATTEMPTS)):
        chosen = port or free_port()
        with log.open("w") as out:
            process = subprocess.Popen(
                [*command, "--port", str(chosen)], cwd=folder, env=environment, stdout=out, stderr=out
            )
        try:
            wait_until_healthy(f"http://127.0.0.1:{chosen}", process, log, name)
            yield chosen, process
            return
        except PortTaken:
            if port or not attempts_left:
                raise
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:  # it ignores the signal, or waits for a request without end
                process.kill()
                process.wait()


def wait_until_healthy(address: str, process: subprocess.Popen[bytes], log: str | Path, what: str) -> None:
    """Wait until a started server answers `/health`.

    Raises
    ------
    OutdatedSchema, PortTaken, PipelineError
        If the server ends, or does not answer within two minutes.
    """
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            output = Path(log).read_text()
            if "out-of-date database schema" in output:
                raise OutdatedSchema("the store was created by an older MLflow")
            error = PortTaken if "address already in use" in output.lower() else PipelineError
            raise error(f"the {what} ended: {last_line(output, 'no output')}")
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                if process.poll() is None:
                    return
        except OSError:
            time.sleep(0.2)
    raise PipelineError(f"the {what} did not respond within {_START_SECONDS} s")


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(port: int) -> None:
    """Refuse a port that another process uses: the browser would show the pages of that process.

    Raises
    ------
    PipelineError
        If the port cannot be used.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise PipelineError(
                f"port {port} cannot be used ({error.strerror}): choose another by PORT=… or --port"
            ) from None
