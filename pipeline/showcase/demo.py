"""The whole loop on this machine: serve, watch, see drift, retrain, promote, and serve what is new.

Every step is a command of this project, run as a person would; only the flowers are made up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.errors import PipelineError
from pipeline.showcase.demo_page import PAGE, Page, served
from pipeline.showcase.example_store import check_port, free_port, wait_until_healthy
from pipeline.showcase.load_generator import FlowerSampler, LoadGenerator
from registry_tools.mlflow_store.client import connect

_WINDOW = 500  # rows of each window
_WIDER = 0.8  # cm that the new lamp adds to the width of a petal
_START_SECONDS = 60.0
_LOG = "predictions"
_MARK = ".demo"
Say = Callable[[str], None]


@dataclass(frozen=True)
class _Loop:
    """What all steps need."""

    folder: Path
    page: Page
    environment: dict[str, str]
    say: Say

    def run(self, title: str, *arguments: str, exit_code: int = 0) -> str:
        """Run a command of this project, tell of it, and return what it printed.

        Raises
        ------
        PipelineError
            If it does not end as it should.
        """
        typed = f"python -m {' '.join(arguments)}"
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        tone = {0: "good", 4: "bad"}.get(exit_code, "")
        said = done.stdout if done.returncode == exit_code else done.stdout + done.stderr
        self.tell(title, f"{typed}   → exit {done.returncode}", said, tone)
        if done.returncode != exit_code:
            raise PipelineError(f"{typed}: exit {done.returncode} where {exit_code} was due")
        return done.stdout

    def tell(self, title: str, command: str = "", said: str = "", tone: str = "") -> None:
        """Tell of a step, here and on the page."""
        self.page.add(title, command, said, tone)
        self.say(f"{self.page.steps[-1].at:4d} s  {title}")
        for line in [command, *said.splitlines()]:
            if line.strip():
                self.say(f"        {line}")


def run(folder: Path, port: int, say: Say) -> None:
    """Run the demonstration in a folder, which is emptied first if it is one of an earlier run.

    Raises
    ------
    PipelineError
        If the folder holds something else, or a step does not end as it should.
    """
    check_port(port)
    _prepare(folder)
    page = Page(folder)
    page.write()
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder.resolve()}/mlflow.db",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])
        ),
        "PYTHONWARNINGS": "ignore",
    }
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        environment.pop(name, None)
    loop = _Loop(folder, page, environment, say)
    with served(page, port) as address:
        say(f"watch     {address}")
        try:
            _run(loop)
        finally:
            page.ended = True
            page.write()
    say(f"page      {folder / PAGE}")
    say(f"runs      make ui STORE=sqlite:///{folder}/mlflow.db")


def _prepare(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise PipelineError(f"{folder}: it is no folder: name another with --folder")
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).is_file():
        raise PipelineError(f"{folder}: it holds something else: name another with --folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _MARK).write_text("made by `make demo`, which empties this folder\n")


def _run(loop: _Loop) -> None:
    flowers = FlowerSampler(seed=7)
    flowers.table(600).to_csv(loop.folder / "flowers.csv", index=False)
    loop.run(
        "train", "pipeline", "train", "--data", "flowers.csv", "--target", "species",
        "--split", "hash", "--plots", "false",
    )  # fmt: skip
    loop.run("promote", "registry_tools", "promote", "iris@staging", "--to", "production")
    port = free_port()
    with _server(loop, port), _traffic(loop, port, flowers) as traffic:
        loop.page.lamp = "the lamp is the one of the training"
        loop.tell(f"serve, and send flowers: {_WINDOW} of them")
        _window(loop, traffic)
        _monitor(loop, traffic, "look: nothing has changed", 0)

        traffic.wider = _WIDER
        loop.page.lamp = f"a new lamp makes petals {_WIDER} cm wider"
        loop.tell(f"the lamp is changed: petals look {_WIDER} cm wider", tone="bad")
        _window(loop, traffic)
        _labelled(traffic).to_csv(loop.folder / "labelled.csv", index=False)
        _monitor(
            loop, traffic, "look: drift; train on what was labelled since, judge, promote", 4,
            "--retrain", "labelled.csv", "--promote", "true",
        )  # fmt: skip
        _swapped(loop, traffic, 2)
        _window(loop, traffic)
        _monitor(loop, traffic, "look again: what is served fits what is sent", 0)
    loop.run("the record", "registry_tools", "history", "iris")
    lost = traffic.failed
    loop.tell(
        f"done: {traffic.answered} flowers answered, {lost} lost", tone="" if lost else "good"
    )
    if lost:
        raise PipelineError(f"{lost} requests were lost")


def _window(loop: _Loop, traffic: LoadGenerator) -> None:
    """Let the flowers of one window through, and remember when it began."""
    traffic.sent.clear()
    traffic.since = time.time()
    loop.page.traffic = traffic.counts()
    for _ in range(10):
        traffic.wait_for(_WINDOW // 10)
        loop.page.traffic = traffic.counts()
        loop.page.write()
    time.sleep(2)  # until they are in the log


def _monitor(
    loop: _Loop, traffic: LoadGenerator, title: str, exit_code: int, *options: str
) -> None:
    """Look at the flowers of the last window, with their labels."""
    rows = list(traffic.sent)
    table = pd.DataFrame([(request, name) for request, _, name in rows])
    table.columns = pd.Index(["request_id", "label"])
    table.to_csv(loop.folder / "labels.csv", index=False)
    since = int(time.time() - traffic.since)
    said = loop.run(
        title, "pipeline", "monitor", "--current", _LOG, "--labels", "labels.csv",
        "--since", f"{since}s", "--alpha", "0.001", *options, exit_code=exit_code,
    )  # fmt: skip
    run_id = said.rstrip().splitlines()[-1].split()[1]
    _keep_report(loop, run_id)


def _keep_report(loop: _Loop, run_id: str) -> None:
    """Put the report of a look beside the page."""
    client = connect(loop.environment["MLFLOW_TRACKING_URI"])
    found = client.download_artifacts(run_id, "report.html", str(loop.folder))
    name = f"report-{len(loop.page.reports) + 1}.html"
    Path(found).rename(loop.folder / name)
    loop.page.reports.append(name)
    loop.page.write()


def _labelled(traffic: LoadGenerator) -> pd.DataFrame:
    rows = list(traffic.sent)
    table = pd.DataFrame([values for _, values, _ in rows], columns=FlowerSampler(0).columns)
    return table.assign(species=[name for _, _, name in rows])


def _swapped(loop: _Loop, traffic: LoadGenerator, version: int) -> None:
    """Wait until the server answers with a version; nobody tells it to.

    Raises
    ------
    PipelineError
        If it does not.
    """
    until = time.monotonic() + _START_SECONDS
    while traffic.version != version:
        if time.monotonic() > until:
            raise PipelineError(f"the server did not follow to version {version}")
        time.sleep(0.1)
    loop.page.traffic = traffic.counts()
    loop.tell(f"the server follows by itself: version {version} answers, nothing lost", tone="good")


@contextlib.contextmanager
def _server(loop: _Loop, port: int) -> Iterator[None]:
    """Run the server that follows the stage, until the body is done."""
    loop.page.server = f"http://127.0.0.1:{port}/predict"
    command: Sequence[str] = (
        sys.executable, "-m", "registry_tools", "serve", "iris@production", "--port", str(port),
        "--poll", "1s", "--log-predictions", _LOG, "--log-every", "1s",
    )  # fmt: skip
    with (loop.folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=loop.folder, env=loop.environment, stdout=log, stderr=log
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_healthy(address, process, loop.folder / "server.log", "server")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def _traffic(loop: _Loop, port: int, flowers: FlowerSampler) -> Iterator[LoadGenerator]:
    traffic = LoadGenerator(port, flowers)
    try:
        yield traffic
    finally:
        traffic.close()
        loop.page.traffic = traffic.counts()
