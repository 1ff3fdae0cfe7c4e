"""`registry-tools score --engine spark`: executors read, score and write; the driver sees no row."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from registry_tools.cli.main import main
from registry_tools.data.schema import Column
from registry_tools.errors import VerificationError
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models import manifest
from registry_tools.models.trust_policy import TRUSTED_TYPES
from registry_tools.refs import parse_ref
from tests.support.commands import environment, error_of, run
from tests.support.constants import IRIS_COLUMNS, LONG
from tests.support.registries import GOOD, Place
from tests.support.servers import BIN, eventually
from tests.support.spark import CLUSTER, executors, holders, require_spark, spark_environment
from tests.support.tables import rows, write

slow = pytest.mark.slow
Start = Callable[..., "subprocess.Popen[bytes]"]
FEATURES = ["kind", "width", "count"]


def mixed_table(count: int) -> pd.DataFrame:
    """Text, numbers and whole numbers, missing values among them, and columns that no model reads."""
    rng = np.random.default_rng(7)
    table = pd.DataFrame(
        {
            "id": [f"{n:05}" for n in range(count)],
            "note": [f'{n}, "quoted"\nover two lines; é' if n % 7 == 0 else f" {n} " for n in range(count)],
            "kind": rng.choice(["long", "short", "other"], count),
            "width": rng.normal(size=count).round(3),
            "count": rng.integers(0, 50, count),
        }
    )
    table.loc[rng.random(count) < 0.1, "width"] = np.nan
    table.loc[rng.random(count) < 0.1, "kind"] = None
    return table


def register_mixed_model(name: str) -> str:
    """Register a version that takes a text, an optional number and a whole number; return its reference."""
    table = mixed_table(400)
    target = np.where(table["width"].fillna(0) + (table["kind"] == "long") > 0.5, "big", "small")
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    prepare = make_column_transformer((encode, ["kind"]), remainder="passthrough")
    model = make_pipeline(prepare, HistGradientBoostingClassifier(max_iter=5)).fit(table[FEATURES], target)
    optional = [ColSpec("string", "kind", required=False), ColSpec("double", "width", required=False)]
    inputs = Schema([*optional, ColSpec("long", "count")])
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=name,
            signature=ModelSignature(inputs, Schema([ColSpec("string")])),
            input_example=table[FEATURES].dropna().head(5),
            serialization_format="skops",
            skops_trusted_types=list(TRUSTED_TYPES),
            pip_requirements=[],
        )
    return f"{name}/{info.registered_model_version}"


def score_on_spark(
    ref: str, given: Path, output: Path, *options: str, uri: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "registry_tools", "score", ref, "--engine", "spark"),
            *("--input", given, "--output", output, *options),
        ],
        env=environment(uri) | variables,
        capture_output=True,
        text=True,
        timeout=500,
    )


def read(path: Path) -> pa.Table:
    """Read a file or a folder of Parquet, whose parts have no order, with one type for text."""
    table = pq.read_table(path).sort_by("id").replace_schema_metadata(None)
    texts = {f.name: pa.string() for f in table.schema if "string" in str(f.type) and f.name != "tags"}
    return table.cast(pa.schema([pa.field(f.name, texts.get(f.name, f.type)) for f in table.schema]))


@slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", ["parquet", pytest.param("csv", marks=LONG)])
def test_executors_write_what_the_local_engine_writes(form: str, local: Place, tmp_path: Path) -> None:
    require_spark()
    ref, table, folder = register_mixed_model(f"mixed-{form}"), mixed_table(9000), tmp_path / "in"
    folder.mkdir()
    if form == "parquet":
        table = table.assign(day=pd.Timestamp("2026-11-27 10:00"), tags=[["a", "b"]] * len(table))
        table = table.astype({"count": "Int64"})
        table.loc[[40, 7000], "count"] = pd.NA
        table.loc[5000, "width"] = np.inf
    else:
        table = table.astype({"count": "str"})
        table.loc[[40, 7000], "count"] = ["many", ""]
        table.loc[5000, "width"] = np.inf
    for number in range(3):
        write(table[number * 3000 : (number + 1) * 3000], folder / f"part {number}.{form}")
    if form == "csv":
        with (folder / "part 2.csv").open("ab") as file:
            file.write(b'short,1\nlong,"a\nb",long,1,2,3,4\n\nbytes,\xff,long,1.5,2\n')
    options = ("--on-bad-row", "reject", "--proba", "--json")
    rejects = tmp_path / "local-rejects.parquet"
    argv = ["score", ref, "--input", str(folder), "--output", str(tmp_path / "local.parquet"), *options]
    assert main([*argv, "--rejects", str(rejects)]) == 0
    done = score_on_spark(
        *(ref, folder, tmp_path / "spark", "--master", CLUSTER, *options),
        uri=local.uri,
        **spark_environment(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    wanted, found = read(tmp_path / "local.parquet"), read(tmp_path / "spark")
    assert found.schema.types == wanted.schema.types
    assert found.column_names[-3:] == ["model_version", "probability_big", "probability_small"]
    assert found.to_pylist() == wanted.to_pylist()
    counts = Counter(wanted["prediction_name"].to_pylist())
    # Spark replaces bytes that are not UTF-8, and the local engine escapes them.
    as_local = [
        {
            name: text.replace("\ufffd", "\\xff") if isinstance(text, str) else text
            for name, text in row.items()
        }
        for row in read(tmp_path / "spark.rejects").select(read(rejects).column_names).to_pylist()
    ]
    assert as_local == read(rejects).to_pylist()
    summary = json.loads(done.stdout)
    bad = 3 if form == "parquet" else 6
    assert (summary["rows"], summary["rejected"]) == (9000 - 3, bad)
    assert summary["counts"] == counts
    recorded = local.client.get_run(summary["run_id"])
    assert (recorded.info.status, recorded.data.tags["engine"]) == ("FINISHED", "spark")
    assert recorded.data.metrics["rejected"] == bad
    assert (tmp_path / "spark" / "_SUCCESS").exists()
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")]


MANY = 1_200_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that take 650 MB once they are read."""
    folder = tmp_path_factory.mktemp("large") / "in"
    folder.mkdir()
    files, some = 8, rows(1000).drop(columns="id")
    note = pa.DictionaryArray.from_arrays(
        pa.array(np.arange(MANY // files) % 997, pa.int32()), [f"{n:04} " * 100 for n in range(997)]
    ).cast(pa.string())
    for number in range(files):
        table = pd.concat([some] * (MANY // files // len(some)), ignore_index=True)
        table.insert(0, "id", np.arange(len(table)) + number * len(table))
        table = pa.Table.from_pandas(table, preserve_index=False).append_column("note", note)
        pq.write_table(table, folder / f"{number}.parquet")
        assert table.nbytes * files > 600 << 20
    return folder


def start_on_cluster(start: Start, ref: str, given: Path, folder: Path, **settings: str) -> Any:
    """Start a scoring on a cluster, and return its process when the first task has written its part."""
    process = start(
        *(BIN / "registry-tools", "score", ref, "--input", given, "--output", folder / "out", "--json"),
        *("--engine", "spark", "--master", CLUSTER),
        env=environment(os.environ["MLFLOW_TRACKING_URI"]) | spark_environment(folder, **settings),
    )

    def writes() -> bool:
        assert process.poll() is None, (folder / "process-0.log").read_text()
        return any(folder.glob(".out.*.part/_temporary/0/task_*/*.parquet"))

    eventually(writes, 300)
    return process


@LONG
@slow
@pytest.mark.timeout(800)
def test_a_table_larger_than_the_drivers_memory_is_read_by_executors_alone(
    large: Path, local: Place, tmp_path: Path, start: Start
) -> None:
    require_spark()
    settings = {"spark.driver.memory": "512m", "spark.sql.files.maxPartitionBytes": "1m"}
    process = start_on_cluster(start, f"{local.model(GOOD)}/1", large, tmp_path, **settings)
    readers: set[int] = set()
    workers: set[int] = set()
    peak = 0
    while process.poll() is None:
        readers |= holders(process.pid, large)
        workers |= set(executors(process.pid))
        peak = max(peak, memory_of(process.pid))
        time.sleep(0.2)
    assert process.returncode == 0, (tmp_path / "process-0.log").read_text()
    assert len(workers) >= 2  # Spark replaces an executor that it does not hear of in time
    assert readers
    assert readers <= workers
    assert peak < 512 << 10
    found = pq.read_table(tmp_path / "out", columns=["id", "note", "model_version"])
    assert np.array_equal(np.sort(found["id"].to_numpy()), np.arange(MANY))
    assert set(found["model_version"].unique().to_pylist()) == {1}


def memory_of(pid: int) -> int:
    """Return the most memory that a process has used, in KiB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return max((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), default=0)


@LONG
@slow
@pytest.mark.timeout(800)
def test_an_executor_that_is_killed_costs_no_row(
    large: Path, local: Place, tmp_path: Path, start: Start
) -> None:
    require_spark()
    ref = f"{local.model(GOOD)}/1"
    settings = {"spark.sql.files.maxPartitionBytes": "1m"}
    process = start_on_cluster(start, ref, large, tmp_path, **settings)
    killed, _ = executors(process.pid)
    os.kill(killed, 9)
    assert process.wait(timeout=500) == 0, (tmp_path / "process-0.log").read_text()
    log = (tmp_path / "process-0.log").read_text()
    summary = json.loads(log[log.index("{") : log.rindex("}") + 1])
    assert (summary["rows"], sum(summary["counts"].values())) == (MANY, MANY)
    assert main(["score", ref, "--input", str(large), "--output", str(tmp_path / "local.parquet")]) == 0
    columns = ["id", "prediction_name"]
    found, wanted = (
        pq.read_table(tmp_path / name, columns=columns).sort_by("id").to_pandas()
        for name in ("out", "local.parquet")
    )
    pd.testing.assert_frame_equal(found, wanted.astype({"prediction_name": "str"}))


@LONG
@slow
@pytest.mark.timeout(800)
def test_an_interrupted_job_leaves_nothing(large: Path, local: Place, tmp_path: Path, start: Start) -> None:
    require_spark()
    name = local.model(GOOD)
    process = start_on_cluster(start, f"{name}/1", large, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=200) == 143
    assert sorted(os.listdir(tmp_path)) == ["process-0.log", "spark-conf", "spark-home"]
    (experiment,) = local.client.search_experiments(filter_string=f"name = '{name}-scoring'")
    (recorded,) = local.client.search_runs([experiment.experiment_id])
    assert recorded.info.status == "KILLED"


@pytest.fixture
def on_spark(local: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of a scoring on Spark in this process."""
    require_spark()
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    output = str(tmp_path / "out")
    return [
        "score",
        f"{local.model(GOOD)}/1",
        "--engine",
        "spark",
        "--master",
        "local[2]",
        "--output",
        output,
    ]


@LONG
@slow
def test_without_rejects_a_bad_row_fails_the_job_and_leaves_no_output(
    on_spark: list[str], local: Place, tmp_path: Path, capsys: Any
) -> None:
    table = rows(3000)
    table.loc[[1234, 2000], IRIS_COLUMNS[2]] = np.nan
    given = write(table, tmp_path / "in.parquet")
    message = error_of(capsys, *on_spark, "--input", str(given))
    assert f"{given}: row 1234: column 'petal length (cm)': missing value" in message
    assert os.listdir(tmp_path) == ["in.parquet"]
    (experiment,) = local.client.search_experiments(
        filter_string=f"name = '{on_spark[1].removesuffix('/1')}-scoring'"
    )
    (recorded,) = local.client.search_runs([experiment.experiment_id])
    assert recorded.info.status == "FAILED"


@slow
def test_what_does_not_fit_is_refused_before_any_row_is_scored(
    on_spark: list[str], tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    argv = [*on_spark, "--input", str(folder)]
    assert "the folder holds no file that ends with .csv" in error_of(capsys, *argv)
    assert "there is no such file or folder" in error_of(capsys, *on_spark, "--input", "nowhere")
    write(rows(10).drop(columns=IRIS_COLUMNS[1]), folder / "a.parquet")
    assert "missing column 'sepal width (cm)'" in error_of(capsys, *argv)
    write(rows(10).astype({IRIS_COLUMNS[1]: "str"}), folder / "a.parquet")
    assert "column 'sepal width (cm)' holds string, and the model takes double" in error_of(capsys, *argv)
    write(rows(10), folder / "b.parquet")
    assert "Failed to merge incompatible data types" in error_of(capsys, *argv)
    write(rows(10).assign(prediction=1), folder / "a.parquet")
    assert "it already has the column 'prediction'" in error_of(capsys, *argv)
    write(rows(10), folder / "a.csv")
    assert "the folder holds CSV and Parquet files" in error_of(capsys, *argv)
    (folder / "a.parquet").unlink()
    (folder / "b.parquet").unlink()
    (folder / "a.csv").write_text("a,b,a\n1,2,3\n")
    assert "column 'a' stands twice" in error_of(capsys, *argv)
    assert os.listdir(tmp_path) == ["in"]


@slow
def test_an_output_that_is_the_input_or_holds_files_is_refused(
    on_spark: list[str], tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(rows(10), folder / "a.parquet")
    argv = [*on_spark, "--input", str(folder)]
    for output in (folder, folder / "out"):
        assert "the input is there as well" in error_of(capsys, *argv, "--output", str(output))
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").touch()
    assert "is not an empty folder" in error_of(capsys, *argv, "--output", str(other))
    assert os.listdir(other) == ["mine"]
    (other / "mine").unlink()
    summary = run(capsys, *argv, "--output", str(other))
    assert summary["rows"] == pq.read_table(other).num_rows == 10


@slow
def test_an_empty_table_gives_a_folder_with_the_columns(
    on_spark: list[str], tmp_path: Path, capsys: Any
) -> None:
    given = write(rows(10).iloc[:0].astype({"id": "str"}), tmp_path / "in.parquet")
    summary = run(capsys, *on_spark, "--input", str(given), "--on-bad-row", "reject")
    assert (summary["rows"], summary["rejected"]) == (0, 0)
    names = ["prediction", "prediction_name", "model_version"]
    assert pq.read_table(tmp_path / "out").column_names == ["id", *IRIS_COLUMNS, *names]
    assert pq.read_table(tmp_path / "out.rejects").column_names == ["id", *IRIS_COLUMNS, "reason"]


@slow
def test_scoring_keeps_the_settings_of_the_process_and_refuses_its_session(
    on_spark: list[str], tmp_path: Path, capsys: Any
) -> None:
    from pyspark.sql import SparkSession

    given = write(rows(20), tmp_path / "in.parquet")
    run(capsys, *on_spark, "--input", str(given))
    assert not sklearn.get_config()["assume_finite"]
    shutil.rmtree(tmp_path / "out")
    session = SparkSession.builder.master("local[1]").getOrCreate()
    try:
        assert "stop it" in error_of(capsys, *on_spark, "--input", str(given))
        assert session.range(3).count() == 3
    finally:
        session.stop()


@slow
def test_a_table_that_changes_between_scores_and_rejects_is_refused(
    on_spark: list[str], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyspark.accumulators import AddingAccumulatorParam

    from registry_tools.batch import spark_job

    given = tmp_path / "in.csv"
    rows(50).astype({IRIS_COLUMNS[2]: object}).replace({IRIS_COLUMNS[2]: {1.4: "bad"}}).to_csv(
        given, index=False
    )
    made = []

    class Results(AddingAccumulatorParam):
        def __init__(self, zero: object) -> None:
            super().__init__(zero)
            made.append(self)
            if len(made) == 2:  # between the two passes; the length of the file stays
                given.write_text(given.read_text().replace("bad", "1.4", 1))

    monkeypatch.setattr(spark_job, "AddingAccumulatorParam", Results)
    message = error_of(capsys, *on_spark, "--input", str(given), "--on-bad-row", "reject")
    assert "in.csv: the table changed while it was scored" in message
    assert os.listdir(tmp_path) == ["in.csv"]


@slow
def test_an_output_that_another_job_writes_meanwhile_is_kept(
    on_spark: list[str], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyspark.accumulators import AddingAccumulatorParam

    from registry_tools.batch import spark_job

    made = []

    class Results(AddingAccumulatorParam):
        def __init__(self, zero: object) -> None:
            super().__init__(zero)
            made.append(self)
            if len(made) == 2:  # the output was checked, and does not have its name yet
                (tmp_path / "out").mkdir()
                (tmp_path / "out" / "theirs.parquet").touch()

    monkeypatch.setattr(spark_job, "AddingAccumulatorParam", Results)
    given = write(rows(20), tmp_path / "in.parquet")
    message = error_of(capsys, *on_spark, "--input", str(given), "--on-bad-row", "reject")
    assert "out exists and is not an empty folder: remove it" in message
    assert os.listdir(tmp_path / "out") == ["theirs.parquet"]
    assert sorted(os.listdir(tmp_path)) == ["in.parquet", "out", "out.rejects"]  # ours got their name first


@slow
def test_options_of_columns_and_of_csv_apply(on_spark: list[str], tmp_path: Path, capsys: Any) -> None:
    table = rows(20).assign(nöte="é", prediction=1)
    table.to_csv(tmp_path / "in.csv", sep=";", index=False, encoding="cp1252")
    with (tmp_path / "in.csv").open("a") as file:
        file.write("short, it is;1\n")
    argv = [*on_spark, "--input", str(tmp_path / "in.csv"), "--separator", ";", "--encoding", "cp1252"]
    run(capsys, *argv, "--keep", "nöte,id", "--prefix", "model_", "--on-bad-row", "reject")
    found = pq.read_table(tmp_path / "out").to_pandas()
    added = ["model_prediction", "model_prediction_name", "model_model_version"]
    assert list(found) == ["id", "nöte", *added]
    assert found["id"].tolist() == table["id"].tolist()
    assert set(found["nöte"]) == {"é"}
    rejects = pq.read_table(tmp_path / "out.rejects")
    assert rejects.column_names == [*table, "model_reason"]
    (reason,) = rejects["model_reason"].to_pylist()
    assert reason.endswith("in.csv: row 20: 2 values, and the header names 7")


@LONG
@slow
def test_executors_without_the_packages_are_reported(local: Place, tmp_path: Path) -> None:
    require_spark()
    bare = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    done = score_on_spark(
        *(f"{local.model(GOOD)}/1", write(rows(10), tmp_path / "in.parquet"), tmp_path / "out"),
        *("--master", "local[1]"),
        uri=local.uri,
        PYSPARK_PYTHON=str(bare),
        SPARK_LOCAL_IP="127.0.0.1",
    )
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert "the executors of Spark at local[1] cannot score (No module named " in message
    assert "name their interpreter in PYSPARK_PYTHON" in message
    assert not (tmp_path / "out").exists()


@LONG
@slow
def test_a_cluster_that_does_not_answer_is_reported(local: Place, tmp_path: Path) -> None:
    require_spark()
    done = score_on_spark(
        *(f"{local.model(GOOD)}/1", write(rows(10), tmp_path / "in.parquet"), tmp_path / "out"),
        *("--master", "spark://127.0.0.1:1"),
        uri=local.uri,
        SPARK_LOCAL_IP="127.0.0.1",
    )
    assert done.returncode == 1
    message = "registry-tools: error: Spark at spark://127.0.0.1:1 does not answer: check --master"
    assert done.stderr.splitlines()[-1] == message
    assert not (tmp_path / "out").exists()


@slow
def test_without_pyspark_the_error_says_what_to_install(local: Place, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyspark'] = None; import registry_tools.cli.main as m; sys.exit(m.main())"
    )
    given = write(rows(10), tmp_path / "in.csv")
    argv = ["score", f"{local.model(GOOD)}/1", "--input", given, "--output", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", code, *argv, "--engine", "spark"],
        env=environment(local.uri),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "install registry-pipeline[spark]" in done.stderr


@pytest.mark.slow  # which installs pyspark
def test_an_executor_does_not_load_files_that_changed_on_the_way(
    local: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyspark = pytest.importorskip("pyspark", reason="pyspark is not installed (make test-slow installs it)")
    from registry_tools.batch.job import RowCounts, ScoringJob, ScoringRequest
    from registry_tools.batch.spark_job import SparkTask

    source = local.client.get_model_version_download_uri(local.model(GOOD), "1")
    shutil.copytree(source, tmp_path / "version" / "model")
    digest = manifest.digest_of(manifest.manifest_of(tmp_path / "version"))
    columns = tuple(Column(name, "double") for name in IRIS_COLUMNS)
    schema = pa.schema([(name, pa.float64()) for name in IRIS_COLUMNS])
    artifact = ModelArtifact("elsewhere", "m", 1, None, None, None)
    request = ScoringRequest(parse_ref("m/1"), "in", "out", rejects="rejects", keep=())
    job = ScoringJob(request, artifact, columns, "in", schema, None, "parquet", "parquet")
    counted: list[RowCounts] = []
    output = pa.schema(
        [("prediction", pa.int64()), ("prediction_name", pa.string()), ("version", pa.int32())]
    )
    task = SparkTask(job, digest, output, SimpleNamespace(add=counted.append))
    monkeypatch.setattr(pyspark.SparkFiles, "get", lambda name: str(tmp_path / "version"))
    batch = pa.RecordBatch.from_pydict(
        {**{name: [1.0, np.nan] for name in IRIS_COLUMNS}, "file": ["file:///a%20b"] * 2, "row": [5, 6]}
    )
    (rejects,) = task.reject(iter([batch]))
    assert [each.rejected for each in counted] == [1]
    missing = "/a b: row 6: column 'sepal length (cm)': missing value, and the model needs one"
    assert rejects.column("reason").to_pylist() == [missing]
    with pytest.raises(VerificationError, match="its files were changed"):
        next(dataclasses.replace(task, digest="0" * 64).score(iter([batch])))
