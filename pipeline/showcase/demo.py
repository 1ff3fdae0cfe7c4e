"""Show the whole loop on this machine: train, serve, monitor, detect drift, retrain, promote.

Each step runs a command of this project. The requests come from a simulation: a `LoadGenerator` sends
flowers, and a new lamp, which changes the measured petal width, causes the drift.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pipeline.errors import PipelineError
from pipeline.showcase.load_generator import FlowerSampler, LoadGenerator
from pipeline.showcase.running_demo import PAGE, Echo, RunningDemo, serve_page
from pipeline.showcase.servers import check_port, project_environment, run_server
from registry_tools.mlflow_store.client import connect

_WINDOW, _WINDOW_SECONDS = 500, 60  # rows of each window, and the longest wait for them
_WIDER = 0.8  # cm by which petals seem wider under the new lamp
_LOAD_SECONDS = 60  # that the server may take to load a new version
_LOG = "predictions"
_MARK = ".demo"


def run(folder: Path, port: int, echo: Echo) -> None:
    """Run the demo in a folder; the folder of an earlier demo is emptied first.

    Raises
    ------
    PipelineError
        If the folder has other files, the port is in use, or a step fails.
    """
    check_port(port)
    _prepare(folder)
    environment = project_environment(
        MLFLOW_TRACKING_URI=f"sqlite:///{folder.resolve()}/mlflow.db",
        MLFLOW_LOGGING_LEVEL="ERROR",
        PYTHONWARNINGS="ignore",
    )
    demo = RunningDemo(folder, environment, echo)
    demo.write_page()
    with serve_page(folder, port) as address:
        echo(f"watch     {address}")
        try:
            _run_steps(demo)
        finally:
            demo.ended = True
            demo.write_page()
    echo(f"page      {folder / PAGE}")
    echo(f"runs      make ui STORE=sqlite:///{folder}/mlflow.db")


def _prepare(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise PipelineError(f"{folder} is not a folder: choose another path with --folder")
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).is_file():
        raise PipelineError(f"{folder} has files of something else: choose another folder with --folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _MARK).write_text("made by `make demo`, which empties this folder\n")


def _run_steps(demo: RunningDemo) -> None:
    flowers = FlowerSampler(seed=7)
    flowers.table(flowers.draw() for _ in range(600)).to_csv(demo.folder / "flowers.csv", index=False)
    demo.run(
        "train", "pipeline", "train", "--data", "flowers.csv", "--target", "species", "--name", "iris",
        "--split", "hash", "--plots", "false",
    )  # fmt: skip
    demo.run("promote", "registry_tools", "promote", "iris@staging", "--to", "production")
    with _server(demo) as port, contextlib.closing(LoadGenerator(port, flowers)) as traffic:
        demo.traffic = traffic
        demo.report_step(f"serve, and send {_WINDOW} flowers")
        _send_window(demo, traffic)
        _monitor(demo, traffic, "monitor: nothing has changed", 0)

        traffic.wider = _WIDER
        demo.lamp = f"under a new lamp, petals seem {_WIDER} cm wider"
        demo.report_step(f"change the lamp: petals seem {_WIDER} cm wider", tone="bad")
        _send_window(demo, traffic)
        labelled = flowers.table((values, name) for _, values, name in list(traffic.sent))
        labelled.to_csv(demo.folder / "labelled.csv", index=False)
        _monitor(
            demo, traffic, "monitor: drift; train on the labelled rows, run the gates, promote", 4,
            "--retrain", "labelled.csv", "--promote", "true",
        )  # fmt: skip
        _wait_for_version(demo, traffic, 2)
        _send_window(demo, traffic)
        _monitor(demo, traffic, "monitor again: the new version fits the production data", 0)
    demo.run("the history", "registry_tools", "history", "iris")
    lost = traffic.failed
    demo.report_step(f"done: {traffic.responses} flowers predicted, {lost} lost", tone="" if lost else "good")
    if lost:
        raise PipelineError(f"{lost} requests failed")


def _send_window(demo: RunningDemo, traffic: LoadGenerator) -> None:
    """Send the flowers of one window, and record its start time."""
    traffic.sent.clear()
    traffic.since = time.time()
    for _ in range(_WINDOW_SECONDS):
        if traffic.wait_until(lambda: len(traffic.sent) >= _WINDOW, seconds=1):
            break
        demo.write_page()
    time.sleep(2)  # the server writes the log every second


def _monitor(demo: RunningDemo, traffic: LoadGenerator, title: str, exit_code: int, *options: str) -> None:
    """Run `monitor` on the last window, with the labels of its flowers, and copy its report."""
    sent = list(traffic.sent)
    labels = {"request_id": [request for request, _, _ in sent], "label": [name for _, _, name in sent]}
    pd.DataFrame(labels).to_csv(demo.folder / "labels.csv", index=False)
    output = demo.run(
        title, "pipeline", "monitor", "--current", _LOG, "--labels", "labels.csv", "--alpha", "0.001",
        "--since", f"{int(time.time() - traffic.since)}s", *options, exit_code=exit_code,
    )  # fmt: skip
    run_id = output.rstrip().splitlines()[-1].split()[1]
    client = connect(demo.environment["MLFLOW_TRACKING_URI"])
    report = f"report-{len(demo.reports) + 1}.html"
    Path(client.download_artifacts(run_id, "report.html", str(demo.folder))).rename(demo.folder / report)
    demo.reports.append(report)
    demo.write_page()


def _wait_for_version(demo: RunningDemo, traffic: LoadGenerator, version: int) -> None:
    """Wait until the server predicts with a version.

    Raises
    ------
    PipelineError
        If that takes longer than a minute.
    """
    if not traffic.wait_until(lambda: traffic.version == version, _LOAD_SECONDS):
        raise PipelineError(f"the server did not load version {version} within {_LOAD_SECONDS} s")
    demo.report_step(f"the server has loaded version {version}, and no request was lost", tone="good")


@contextlib.contextmanager
def _server(demo: RunningDemo) -> Iterator[int]:
    """Run the server, which follows the stage, until the body ends; yield its port."""
    command = [
        *(sys.executable, "-m", "registry_tools", "serve", "iris@production", "--poll", "1s"),
        *("--log-predictions", _LOG, "--log-every", "1s"),
    ]
    with run_server(command, demo.folder, demo.environment, "server") as (port, _):
        demo.server = f"http://127.0.0.1:{port}/predict"
        yield port
