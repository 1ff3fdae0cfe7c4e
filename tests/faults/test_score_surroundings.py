"""Scoring whose surroundings fail: a full disk on Spark, a restarted tracking server, a second job."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.support.commands import environment
from tests.support.constants import IRIS_COLUMNS, LONG
from tests.support.registries import EQUAL, GOOD, Place
from tests.support.servers import BIN, end_group, eventually, free_port, wait_until_up
from tests.support.spark import CLUSTER, require_spark, spark_environment
from tests.support.tables import MANY, rows, write, write_many

pytestmark = pytest.mark.slow

Start = Callable[..., "subprocess.Popen[bytes]"]


def random_table(path: Path, rows: int) -> Path:
    """Write rows that Parquet cannot compress."""
    values = np.random.default_rng(4).uniform(0.1, 7, (rows, 4))
    pd.DataFrame(values, columns=IRIS_COLUMNS).to_parquet(path, row_group_size=100_000)
    return path


@LONG
@pytest.mark.timeout(600)
def test_a_full_disk_of_an_executor_is_one_line_and_leaves_nothing(local: Place, tmp_path: Path) -> None:
    require_spark()
    folder = tmp_path / "there"
    folder.mkdir()
    given, name = random_table(tmp_path / "in.parquet", 600_000), local.model(GOOD)
    # The largest file that executors may write stands for their disk: Spark's own files are smaller.
    command = 'ulimit -f 4096; exec "$@"'
    done = subprocess.run(
        [
            *("bash", "-c", command, "bash", BIN / "registry-tools", "score", f"{name}/1"),
            *("--input", given, "--output", folder / "out", "--engine", "spark", "--master", CLUSTER),
        ],
        env=environment(local.uri) | spark_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 1
    message = f"registry-tools: error: Spark at {CLUSTER} failed: File too large"
    assert done.stderr.splitlines()[-1] == message
    assert os.listdir(folder) == []
    (experiment,) = local.client.search_experiments(filter_string=f"name = '{name}-scoring'")
    (recorded,) = local.client.search_runs([experiment.experiment_id])
    assert recorded.info.status == "FAILED"
    assert "File too large" in recorded.data.tags["error"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_many(tmp_path_factory.mktemp("many") / "many.parquet")


def stopped_scoring(start: Start, uri: str, ref: str, many: Path, output: str) -> subprocess.Popen[bytes]:
    """Start a scoring, and stop its process when it has begun to write; `SIGCONT` lets it go on."""
    command = ("score", ref, "--input", many, "--output", output, "--workers", "1")
    process = start(BIN / "registry-tools", *command, env=environment(uri))
    folder, name = Path(output).parent, Path(output).name

    def writes() -> bool:
        assert process.poll() is None, "it ended before it was met"
        return any(folder.glob(f".{name}.*-{process.pid}-*.part"))

    eventually(writes, 100)
    process.send_signal(signal.SIGSTOP)
    return process


def versions_in(output: Path) -> set[int]:
    """Return the versions that predicted the rows of an output, which has all rows."""
    table = pq.read_table(output, columns=["model_version"])
    assert len(table) == MANY
    return set(table["model_version"].unique().to_pylist())


@LONG
@pytest.mark.parametrize("output", ["out.parquet", "out/"])
def test_two_scorings_to_one_output_leave_the_whole_result_of_one(
    output: str, local: Place, many: Path, tmp_path: Path, start: Start
) -> None:
    name, folder = local.model(GOOD, EQUAL), tmp_path / "there"
    folder.mkdir()
    target = folder / output
    first = stopped_scoring(start, local.uri, f"{name}/1", many, f"{folder}/{output}")
    options = ("--input", many, "--output", f"{folder}/{output}", "--workers", "1")
    second = start(BIN / "registry-tools", "score", f"{name}/2", *options, env=environment(local.uri))
    assert second.wait(timeout=100) == 0
    assert versions_in(target) == {2}
    first.send_signal(signal.SIGCONT)
    if output.endswith("/"):
        assert first.wait(timeout=100) == 1
        log = (tmp_path / "process-0.log").read_text()
        reason = f"{target} exists and is not an empty folder: remove it, or choose another path"
        assert log == f"registry-tools: error: {reason}\n"
        assert versions_in(target) == {2}
    else:
        assert first.wait(timeout=100) == 0
        assert versions_in(target) == {1}
    assert os.listdir(folder) == [target.name]


@LONG
@pytest.mark.parametrize("returns", ["before the end", "after the end"])
def test_a_tracking_server_that_is_restarted_costs_no_row(
    returns: str, local: Place, many: Path, tmp_path: Path, start: Start
) -> None:
    port, name = free_port(), local.model(GOOD)
    uri = f"http://127.0.0.1:{port}"

    def start_server() -> subprocess.Popen[bytes]:
        store = ("--backend-store-uri", local.uri, "--artifacts-destination", tmp_path / "artifacts")
        server = start(BIN / "mlflow", "server", "--port", str(port), "--workers", "1", *store)
        wait_until_up(f"{uri}/health", server)
        return server

    server = start_server()
    output = tmp_path / "out.parquet"
    scoring = stopped_scoring(start, uri, f"{name}/1", many, str(output))
    end_group(server)
    if returns == "before the end":
        start_server()
    scoring.send_signal(signal.SIGCONT)
    assert scoring.wait(timeout=100) == 0
    assert versions_in(output) == {1}
    (experiment,) = local.client.search_experiments(filter_string=f"name = '{name}-scoring'")
    (recorded,) = local.client.search_runs([experiment.experiment_id])
    log = (tmp_path / "process-1.log").read_text()
    if returns == "before the end":
        assert (recorded.info.status, recorded.data.metrics["rows"]) == ("FINISHED", MANY)
        assert "WARNING" not in log
    else:
        assert log.startswith("WARNING: this scoring is not recorded: ")
        assert recorded.info.status == "RUNNING"  # the next scoring ends it
        start_server()
        few = write(rows(10), tmp_path / "few.csv")
        again = ("score", f"{name}/1", "--input", few, "--output", tmp_path / "few.parquet")
        assert start(BIN / "registry-tools", *again, env=environment(uri)).wait(timeout=100) == 0
        states = [run.info.status for run in local.client.search_runs([experiment.experiment_id])]
        assert states == ["FINISHED", "KILLED"]
