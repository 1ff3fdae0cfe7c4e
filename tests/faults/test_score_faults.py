"""Scoring on bad days: killed, interrupted, no room, broken files; with real processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from registry_tools.mlflow_store import stages
from tests.support.commands import environment, error_of
from tests.support.constants import IRIS_COLUMNS
from tests.support.registries import EQUAL, GOOD, Place
from tests.support.servers import BIN, eventually
from tests.support.tables import MANY, rows, write, write_many

pytestmark = pytest.mark.slow

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_many(tmp_path_factory.mktemp("many") / "many.parquet")


def partials(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(".part")]


def scratch(pid: int) -> list[Path]:
    """Return the temporary folders of a process."""
    return list(Path(tempfile.gettempdir()).glob(f"*-{socket.gethostname()}-{pid}-*"))


def workers_of(pid: int) -> list[int]:
    """Return the processes that score; another one cleans up after multiprocessing."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(n) for n in children if b"spawn_main" in Path(f"/proc/{n}/cmdline").read_bytes()]


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def score_half(start: Start, ref: str, many: Path, output: Path | str) -> Any:
    """Start a scoring, and return it when it is in the middle of writing."""
    process = start(
        BIN / "registry-tools", *("score", ref, "--input", many, "--output", output, "--workers", "2")
    )

    def writes() -> bool:
        assert process.poll() is None, "it ended before it was met"
        return any(part for folder in partials(Path(output).parent) for part in folder.glob("part-*"))

    eventually(writes, 60)
    return process


@pytest.mark.parametrize("output", ["out.csv", "out.parquet", "out/"])
def test_killed_in_the_middle_it_leaves_nothing_under_the_name(
    output: str, local: Place, many: Path, tmp_path: Path, start: Start, capsys: Any
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    target = folder / output
    if output.endswith("/"):
        target.mkdir()
    else:
        target.write_text("what stood there")
    ref = f"{local.model(GOOD)}/1"
    process = score_half(start, ref, many, f"{folder}/{output}")
    workers = workers_of(process.pid)
    assert len(workers) == 2
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=120)
    eventually(lambda: not any(map(lives, workers)))
    if output.endswith("/"):
        assert os.listdir(target) == []
    else:
        assert target.read_text() == "what stood there"
    assert scratch(process.pid)
    assert len(partials(folder)) == 2
    given = write(rows(10), tmp_path / "few.csv")
    from registry_tools.cli.main import main

    assert main(["score", ref, "--input", str(given), "--output", f"{folder}/{output}"]) == 0
    assert os.listdir(folder) == [target.name]
    assert not scratch(process.pid)
    (experiment,) = local.client.search_experiments(filter_string=f"name = '{ref[:-2]}-scoring'")
    states = [r.info.status for r in local.client.search_runs([experiment.experiment_id])]
    assert states == ["FINISHED", "KILLED"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_interrupted_it_clears_up(
    number: signal.Signals, code: int, local: Place, many: Path, tmp_path: Path, start: Start
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    name = local.model(GOOD)
    process = score_half(start, f"{name}/1", many, folder / "out.csv")
    workers = workers_of(process.pid)
    process.send_signal(number)
    assert process.wait(timeout=120) == code
    assert not any(map(lives, workers))
    assert os.listdir(folder) == []
    assert not scratch(process.pid)
    (experiment,) = local.client.search_experiments(filter_string=f"name = '{name}-scoring'")
    (run,) = local.client.search_runs([experiment.experiment_id])
    assert run.info.status == "KILLED"


def test_a_worker_that_is_killed_ends_the_scoring_in_one_line(
    local: Place, many: Path, tmp_path: Path, start: Start
) -> None:
    name = local.model(GOOD)
    process = score_half(start, f"{name}/1", many, tmp_path / "out.csv")
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    assert process.wait(timeout=120) == 1
    log = (tmp_path / "process-0.log").read_text()
    assert log.count("\n") == 1
    assert f"a worker ended by itself (SIGKILL) with {name} version 1: " in log
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("output", ["out.csv", "out.parquet", "out/"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    output: str, local: Place, many: Path, tmp_path: Path
) -> None:
    # The largest file that may be written stands for the disk: the store's own is smaller.
    command = 'ulimit -f 4096; exec "$@"'
    done = subprocess.run(
        [
            *("bash", "-c", command, "bash", BIN / "registry-tools"),
            *("score", f"{local.model(GOOD)}/1", "--proba"),  # so that a part is large as well
            *("--input", many, "--output", f"{tmp_path}/{output}"),
        ],
        env=environment(local.uri),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"{output.rstrip('/')}: cannot be written: File too large" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_file_with_other_columns_in_a_folder_is_named_before_anything_is_written(
    form: str, local: Place, tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        write(rows(10), folder / f"{name}.{form}")
    ref, output = f"{local.model(GOOD)}/1", tmp_path / "out.csv"
    argv = ["score", ref, "--input", str(folder), "--output", str(output)]
    other = rows(10).rename(columns={IRIS_COLUMNS[1]: "width"})
    write(other, folder / f"b.{form}")
    message = error_of(capsys, *argv)
    assert f"b.{form}: other columns than in" in message
    assert "it lacks 'sepal width (cm)'" in message
    if form == "parquet":
        write(rows(10).astype({IRIS_COLUMNS[1]: "float32"}), folder / "b.parquet")
        message = error_of(capsys, *argv)
        assert "b.parquet: column 'sepal width (cm)' holds float, and in" in message
    assert sorted(os.listdir(tmp_path)) == ["in"]


def test_a_broken_parquet_is_named(local: Place, many: Path, tmp_path: Path, capsys: Any) -> None:
    ref, folder = f"{local.model(GOOD)}/1", tmp_path / "in"
    folder.mkdir()
    shutil.copy(many, folder / "a.parquet")
    content = many.read_bytes()
    (folder / "b.parquet").write_bytes(content[: len(content) // 2])
    for output in ("out.csv", "out.parquet"):
        argv = ["score", ref, "--input", str(folder), "--output", str(tmp_path / output)]
        assert "in/b.parquet: cannot be read: " in error_of(capsys, *argv)
    # The footer is whole, and in the middle pages are not.
    middle = pq.ParquetFile(many).metadata.row_group(15).column(0).data_page_offset
    broken = content[: middle - 400] + b"\xff" * 5000 + content[middle + 4600 :]
    (folder / "b.parquet").write_bytes(broken)
    for output in ("out.csv", "out.parquet"):
        argv = ["score", ref, "--input", str(folder), "--output", str(tmp_path / output)]
        assert "in/b.parquet: cannot be read: " in error_of(capsys, *argv)
    assert os.listdir(tmp_path) == ["in"]


def test_the_whole_output_is_of_the_version_that_it_began_with(
    local: Place, many: Path, tmp_path: Path, start: Start
) -> None:
    name = local.model(GOOD, EQUAL)
    stages.move_alias(local.client, name, "production", 1)
    output = tmp_path / "out.parquet"
    process = score_half(start, f"{name}@production", many, output)
    stages.move_alias(local.client, name, "production", 2)
    assert process.wait(timeout=120) == 0
    found = pq.read_table(output, columns=["model_version"])
    assert len(found) == MANY
    assert set(found["model_version"].unique().to_pylist()) == {1}
    assert stages.stage_holder(local.client, name, "production") == 2


@pytest.mark.parametrize("home", [None, "/nowhere"])
def test_without_java_the_error_says_so(home: str | None, local: Place, tmp_path: Path) -> None:
    pytest.importorskip("pyspark", reason="pyspark is not installed (make test-slow installs it)")
    given = write(rows(10), tmp_path / "in.csv")
    variables = environment(local.uri) | {"PATH": str(tmp_path)}
    variables |= {"JAVA_HOME": home} if home else {}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "registry_tools", "score", f"{local.model(GOOD)}/1"),
            *("--input", given, "--output", tmp_path / "out.csv", "--engine", "spark"),
        ],
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Spark needs Java 17 or newer" in done.stderr
    assert "JAVA_HOME" in done.stderr
