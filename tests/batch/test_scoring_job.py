"""`registry-tools score`: files of rows in, the same rows with their predictions out."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from registry_tools import load_model
from registry_tools.api import scoring
from registry_tools.cli.main import cli, main
from registry_tools.errors import InputError
from tests.support.commands import environment, error_of, run
from tests.support.constants import IRIS_COLUMNS, LONG, ROOT
from tests.support.registries import GOOD, Place
from tests.support.tables import rows, write


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"id": str}) if path.suffix == ".csv" else pd.read_parquet(path)


def score(capsys: Any, ref: str, given: Path | str, output: Path | str, *options: str) -> Any:
    return run(capsys, "score", ref, "--input", str(given), "--output", str(output), *options)


slow = pytest.mark.slow
WIDE_ROWS = 1_000_000


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ("rows.parquet", "out.parquet"),
        pytest.param("rows.csv", "out.csv", marks=slow),
        pytest.param("rows.csv", "out.parquet", marks=slow),
        pytest.param("rows.parquet", "out.csv", marks=slow),
    ],
)
def test_the_output_is_the_input_with_predictions(
    given: str, output: str, local: Place, tmp_path: Path, capsys: Any
) -> None:
    name = local.model(GOOD)
    table = rows(3000)
    options = {"row_group_size": 700} if given.endswith("parquet") else {}
    write(table, tmp_path / given, **options)
    (tmp_path / output).write_text("what stood there")
    summary = score(capsys, f"{name}/1", tmp_path / given, tmp_path / output, "--workers", "2")
    found = read(tmp_path / output)
    model = load_model(f"{name}/1")
    predicted = model.predict(table[IRIS_COLUMNS])
    added = ["prediction", "prediction_name", "model_version"]
    assert list(found.columns) == [*table.columns, *added]
    pd.testing.assert_frame_equal(found[table.columns], table, check_dtype=False)
    assert found["prediction"].tolist() == predicted.tolist()
    assert found["prediction_name"].tolist() == model.names_of(predicted).tolist()
    assert set(found["model_version"]) == {1}
    counts = found["prediction_name"].value_counts().to_dict()
    assert summary["counts"] == counts
    assert (summary["rows"], summary["rejected"]) == (3000, 0)
    recorded = local.client.get_run(summary["run_id"])
    assert recorded.info.status == "FINISHED"
    assert recorded.data.metrics["rows"] == 3000
    assert recorded.data.metrics["count_setosa"] == counts["setosa"]
    assert recorded.data.tags["version"] == "1"
    assert local.client.get_experiment(recorded.info.experiment_id).name == f"{name}-scoring"
    assert sorted(os.listdir(tmp_path)) == sorted({given, output})


@slow
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_proba_adds_a_column_for_each_class(form: str, local: Place, tmp_path: Path, capsys: Any) -> None:
    name = local.model(GOOD)
    table = rows(100)
    given, output = write(table, tmp_path / f"in.{form}"), tmp_path / f"out.{form}"
    score(capsys, f"{name}/1", given, output, "--proba")
    model = load_model(f"{name}/1")
    found = read(output)[[f"probability_{name}" for name in model.class_names]]
    wanted = model.predict_proba(table[IRIS_COLUMNS])
    np.testing.assert_allclose(found.to_numpy(), wanted, rtol=1e-12)


@pytest.mark.slow
def test_rows_that_cannot_be_scored_go_to_a_file_with_the_reason(
    local: Place, tmp_path: Path, capsys: Any
) -> None:
    ref = f"{local.model(GOOD)}/1"
    header = ",".join(["id", *IRIS_COLUMNS])
    lines = [
        "001,6.0,2.5,4.5,1.5",
        "002,wide,2.5,4.5,1.5",
        "003,6.0,2.5,4.5,1.5,9,9",
        "004,,2.5,4.5,1.5",
        '005,6.0,"2.5",4.5,inf',
        "006,5.0,3.4,1.5,0.2",
    ]
    given, output = tmp_path / "in.csv", tmp_path / "out.csv"
    given.write_text("\n".join([header, *lines]) + "\n")
    summary = score(capsys, ref, given, output, "--on-bad-row", "reject")
    assert (summary["rows"], summary["rejected"]) == (2, 4)
    assert read(output)["id"].tolist() == ["001", "006"]
    rejects = pd.read_csv(tmp_path / "out.rejects.csv", dtype=str)
    assert list(rejects.columns) == ["id", *IRIS_COLUMNS, "reason"]
    assert rejects["id"].tolist() == ["002", "003", "004", "005"]
    by_id = rejects.set_index("id")["reason"]
    assert by_id["002"].endswith("in.csv: row 1: column 'sepal length (cm)': 'wide' is not a number")
    assert by_id["003"].endswith("in.csv: row 2: 7 values, and the header names 5")
    assert "row 3: column 'sepal length (cm)': missing value" in by_id["004"]
    assert "row 4: column 'petal width (cm)': 'inf' is not a finite number" in by_id["005"]
    assert rejects.set_index("id").loc["002", "sepal length (cm)"] == "wide"
    argv = ["score", ref, "--input", str(given), "--output", str(tmp_path / "none.csv")]
    assert "in.csv: row 1: column 'sepal length (cm)': 'wide'" in error_of(capsys, *argv)
    given.write_text("\n".join([header, lines[0], lines[2], lines[1]]) + "\n")
    message = error_of(capsys, *argv)
    assert "in.csv: row 1: 7 values, and the header names 5 (rows count from 0; --on-bad" in message
    given.write_text("\n".join([header, lines[0], lines[1]]) + "\n")
    assert "in.csv: row 1: column 'sepal length (cm)': 'wide'" in error_of(capsys, *argv)
    assert not (tmp_path / "none.csv").exists()
    (experiment,) = local.client.search_experiments(filter_string=f"name = '{ref[:-2]}-scoring'")
    runs = local.client.search_runs([experiment.experiment_id])
    assert [one.info.status for one in runs] == ["FAILED", "FAILED", "FAILED", "FINISHED"]
    assert "'wide'" in runs[0].data.tags["error"]


@slow
def test_rejects_keep_the_order_of_the_rows_and_their_values_whole(
    local: Place, tmp_path: Path, capsys: Any
) -> None:
    lines = ["5.1,3.5,1.4,0.2"] * 400_000  # several batches to each block that is read
    long = "x" * 200_000
    wrong = {0: "1,2", 70_000: "wide,3,1,1", 70_001: "1,2,3,4,5", 70_002: ",,,"}
    wrong |= {300_000: f"{long},3", 399_998: "1,2,3,wide", 399_999: "7"}
    for row, line in wrong.items():
        lines[row] = line
    given = tmp_path / "in.csv"
    given.write_text("\n".join([",".join(IRIS_COLUMNS), *lines]))
    ref, output = f"{local.model(GOOD)}/1", tmp_path / "out.csv"
    summary = score(capsys, ref, given, output, "--on-bad-row", "reject")
    assert (summary["rows"], summary["rejected"]) == (400_000 - len(wrong), len(wrong))
    rejects = pd.read_csv(tmp_path / "out.rejects.csv", dtype=str)
    assert rejects["reason"].str.extract(r"row (\d+):")[0].astype(int).tolist() == list(wrong)
    assert rejects[IRIS_COLUMNS[0]].tolist()[4] == long
    argv = ["score", ref, "--input", str(given), "--output", str(output)]
    message = error_of(capsys, *argv)
    assert "in.csv: row 0: 2 values, and the header names 4 (rows count from 0; --on-bad" in message


@slow
def test_rows_of_parquet_are_rejected_as_well(local: Place, tmp_path: Path, capsys: Any) -> None:
    ref = f"{local.model(GOOD)}/1"
    table = rows(2000)
    table.loc[1500, IRIS_COLUMNS[2]] = np.inf
    table.loc[[3, 1999], IRIS_COLUMNS[0]] = np.nan
    given, output = (write(table, tmp_path / "in.parquet", row_group_size=500), tmp_path / "o.parquet")
    summary = score(capsys, ref, given, output, "--on-bad-row", "reject")
    assert (summary["rows"], summary["rejected"]) == (1997, 3)
    rejects = read(tmp_path / "o.rejects.parquet")
    assert rejects["id"].tolist() == ["000003", "001500", "001999"]
    assert "row 1500: column 'petal length (cm)': inf is not a finite" in rejects["reason"][1]
    assert pq.read_schema(output).field("id") == pq.read_schema(given).field("id")
    argv = ["score", ref, "--input", str(given), "--output", str(output)]
    assert "row 3: column 'sepal length (cm)': missing value" in error_of(capsys, *argv)


@slow
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_folder_is_read_in_the_order_of_its_names(
    form: str, local: Place, tmp_path: Path, capsys: Any
) -> None:
    table = rows(900)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    places = [f"in/a.{form}", f"in/b.{form}", f"in/deep/c.{form}"]
    for part, place in enumerate(places):
        turned = table.columns if part else table.columns[::-1]
        write(table[turned][part * 300 : (part + 1) * 300], tmp_path / place)
    (tmp_path / "in" / "_SUCCESS").touch()
    output = tmp_path / f"out.{form}"
    summary = score(capsys, f"{local.model(GOOD)}/1", tmp_path / "in", output)
    assert summary["rows"] == 900
    assert read(output)["id"].tolist() == table["id"].tolist()


@slow
@pytest.mark.parametrize("given", ["in.parquet", "in.csv"])
def test_no_rows_are_an_output_with_the_right_columns(
    given: str, local: Place, tmp_path: Path, capsys: Any
) -> None:
    write(rows(5).head(0).astype({"id": str}), tmp_path / given)
    output = tmp_path / "out.parquet"
    assert score(capsys, f"{local.model(GOOD)}/1", tmp_path / given, output)["rows"] == 0
    schema = pq.read_schema(output)
    assert schema.names[-3:] == ["prediction", "prediction_name", "model_version"]
    assert schema.field("prediction").type == pa.int64()


@LONG
@slow
def test_a_table_with_text_and_missing_values_is_scored_as_predict_does_without_a_warning(
    store: str, table_csv: Path, tmp_path: Path, capfd: Any
) -> None:
    from pipeline.params.definitions import TrainParams
    from pipeline.training.train import train

    train(TrainParams(data=str(table_csv), target="kind", name="animals", plots=False))
    table = pd.read_csv(table_csv)
    wanted = load_model("animals/1").predict(table)
    outputs = []
    for given in (table_csv, write(table, tmp_path / "animals.parquet")):
        output = tmp_path / f"from-{given.suffix[1:]}.parquet"
        capfd.readouterr()
        argv = ["score", "animals/1", "--input", str(given), "--output", str(output)]
        assert main(argv) == 0
        assert "Warning" not in capfd.readouterr().err  # of the workers
        outputs.append(read(output))
        assert outputs[-1]["prediction"].tolist() == wanted.tolist()
    both = [output.drop(columns=["tame", "planet"]) for output in outputs]
    pd.testing.assert_frame_equal(*both, check_dtype=False)


@LONG
@slow
def test_a_folder_of_part_files_is_the_same_table_as_one_file(
    local: Place, tmp_path: Path, capsys: Any
) -> None:
    ref = f"{local.model(GOOD)}/1"
    table = rows(400_000)
    table.loc[[7, 390_000], IRIS_COLUMNS[1]] = np.nan
    given = write(table, tmp_path / "in.parquet", row_group_size=150_000)
    options = ("--on-bad-row", "reject", "--workers", "2")
    for form in ("csv", "parquet"):
        write(table, tmp_path / f"in.{form}", **({} if form == "csv" else {"row_group_size": 150_000}))
        given, folder, one = (tmp_path / f"{name}.{form}" for name in ("in", "folder", "one"))
        one = one.with_suffix(".parquet")
        summary = score(capsys, ref, given, f"{folder}/", *options)
        assert (summary["rows"], summary["rejected"]) == (399_998, 2)
        assert summary["rejects"] == f"{folder.with_suffix('')}.rejects.{form}.parquet"
        assert len(read(Path(summary["rejects"]))) == 2
        score(capsys, ref, given, one, *options)
        assert len(list(folder.iterdir())) > 2
        assert all(path.name.startswith("part-") for path in folder.iterdir())
        assert pq.read_table(folder).equals(pq.read_table(one))
        error = error_of(capsys, "score", ref, "--input", str(given), "--output", f"{folder}/")
        assert "exists and is not an empty folder" in error


@LONG
@slow
@pytest.mark.timeout(900)
def test_a_million_rows_with_text_are_scored_as_predict_names_does(
    store: str, tmp_path: Path, capsys: Any
) -> None:
    from pipeline.params.definitions import TrainParams
    from pipeline.training.train import train

    rng = np.random.default_rng(5)
    count = WIDE_ROWS
    table = pd.DataFrame({f"n{place}": rng.normal(size=count).round(3) for place in range(14)})
    words = np.array(["red", "green", "blue, dark", 'a "quoted" one', "ä"])
    for place in range(6):
        table[f"t{place}"] = words[rng.integers(0, 5, count)]
    kinds = np.where(table["n0"] + (table["t0"] == "red") > 0.5, "high", "low")
    table[:2000].assign(kind=kinds[:2000]).to_csv(tmp_path / "train.csv", index=False)
    train(TrainParams(data=str(tmp_path / "train.csv"), target="kind", name="wide", plots=False))
    wanted = load_model("wide/1").predict_names(table)
    given = write(table, tmp_path / "in.parquet")
    for output in ("one.parquet", "folder/"):
        score(capsys, "wide/1", given, f"{tmp_path}/{output}", "--workers", "2")
        found = pq.read_table(tmp_path / output).to_pandas()
        assert (found["prediction_name"].to_numpy(object) == wanted).all()
        pd.testing.assert_frame_equal(found[table.columns], table, check_dtype=False)


@LONG
@slow
def test_columns_are_kept_and_named_as_asked(local: Place, tmp_path: Path, capsys: Any) -> None:
    ref = f"{local.model(GOOD)}/1"
    table = rows(100).assign(prediction=7, **{"a, b": 1})
    table.loc[5, IRIS_COLUMNS[0]] = np.nan
    given, output = write(table, tmp_path / "in.parquet"), tmp_path / "out.parquet"
    options = ("--on-bad-row", "reject", "--keep", 'id,"a, b"', "--proba")
    score(capsys, ref, given, output, *options)
    found = read(output)
    added = ["prediction", "prediction_name", "model_version"]
    added += [f"probability_{name}" for name in ("setosa", "versicolor", "virginica")]
    assert list(found.columns) == ["id", "a, b", *added]
    assert found["id"].tolist() == table["id"].drop(5).tolist()
    rejects = read(tmp_path / "out.rejects.parquet")
    assert list(rejects.columns) == [*table.columns, "reason"]
    score(capsys, ref, given, output, "--on-bad-row", "reject", "--prefix", "iris_", "--keep", "prediction")
    assert list(read(output).columns) == ["prediction", *(f"iris_{name}" for name in added[:3])]
    assert list(read(tmp_path / "out.rejects.parquet").columns) == [*table.columns, "iris_reason"]
    argv = ["score", ref, "--input", str(given), "--output", str(output)]
    message = error_of(capsys, *argv)
    assert "already has the column 'prediction', which the output adds: rename them with --prefix" in message
    assert "no column 'idd' to keep; it has 'id'" in error_of(capsys, *argv, "--keep", "idd")


@LONG
@slow
def test_text_is_read_whatever_its_form(local: Place, tmp_path: Path, capsys: Any) -> None:
    ref, table = f"{local.model(GOOD)}/1", rows(1000).assign(town="Kö;ln")
    wanted = tmp_path / "wanted.csv"
    score(capsys, ref, write(table, tmp_path / "in.csv"), wanted)
    given, output = tmp_path / "in.csv.gz", tmp_path / "out.csv"
    table.to_csv(given, index=False, sep=";", encoding="latin-1")
    score(capsys, ref, given, output, "--separator", ";", "--encoding", "latin1")
    assert output.read_text() == wanted.read_text()
    with pa.CompressedOutputStream(str(tmp_path / "in.csv.zst"), "zstd") as file:
        table.to_csv(file, index=False, sep="\t")
    score(capsys, ref, tmp_path / "in.csv.zst", output, "--separator", r"\t")
    assert output.read_text() == wanted.read_text()
    lines = wanted.with_name("in.csv").read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace("ö".encode(), b"\xf6")
    (tmp_path / "in.csv").write_bytes(b"".join(lines))
    summary = score(capsys, ref, tmp_path / "in.csv", output, "--on-bad-row", "reject")
    assert (summary["rows"], summary["rejected"]) == (999, 1)
    rejects = read(tmp_path / "out.rejects.csv")
    assert rejects["town"].tolist() == [r"K\xf6;ln"]
    assert "row 2: column 'town': 'K\\xf6;ln' is not UTF-8" in rejects["reason"][0]
    for option, value in [("--separator", ";;"), ("--encoding", "klingon")]:
        argv = ["score", ref, "--input", "x", "--output", "y.csv", option, value]
        assert repr(value) in error_of(capsys, *argv)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"separator": ";;"}, "the separator ';;' is not one ASCII character"),
        ({"separator": '"'}, "is not one ASCII character"),
        ({"encoding": "nope"}, "no encoding 'nope' for text"),
        ({"encoding": "hex"}, "no encoding 'hex' for text"),
        ({"output": "out/", "rejects": "out/r.csv"}, "cannot lie in each other"),
    ],
)
def test_options_are_refused_before_the_version_is_resolved(
    options: dict[str, str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    write(rows(5), tmp_path / "in" / "a.csv")
    options = {"input": "in", "output": "o.csv", **options}
    with pytest.raises(InputError, match=reason):
        scoring.score("missing/1", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["file", "local"])
def test_an_output_in_a_folder_that_a_url_names_is_refused(scheme: str, tmp_path: Path) -> None:
    refuse_output_in_input(f"{scheme}://{tmp_path}/in", tmp_path)


@pytest.mark.slow  # which installs fsspec
@pytest.mark.parametrize(
    "address", ["local://in", "simplecache::file://{folder}/in", "dir://in::simplecache::file://{folder}"]
)
def test_an_output_in_a_folder_that_fsspec_opens_is_refused(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed (make test-slow installs it)")
    monkeypatch.chdir(tmp_path)
    refuse_output_in_input(address.format(folder=tmp_path), tmp_path)


def refuse_output_in_input(address: str, folder: Path) -> None:
    (folder / "in").mkdir()
    write(rows(5), folder / "in" / "a.csv")
    with pytest.raises(InputError, match=r"o\.csv: it lies in the folder that is read"):
        scoring.score("missing/1", input=address, output=folder / "in" / "o.csv")
    with pytest.raises(InputError, match=r"a\.csv: it is the input as well"):
        scoring.score("missing/1", input=address, output=folder / "in" / "a.csv")
    assert os.listdir(folder / "in") == ["a.csv"]


@slow
def test_errors_are_one_line_and_leave_no_files(local: Place, tmp_path: Path, capsys: Any) -> None:
    ref = f"{local.model(GOOD)}/1"
    good = write(rows(10), tmp_path / "in.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    write(rows(10), folder / "a.csv")
    taken = write(rows(10).assign(prediction=1, model_version=2), tmp_path / "taken.parquet")
    lacking = write(rows(10).drop(columns=IRIS_COLUMNS[1]), tmp_path / "lacking.csv")
    wrong = write(rows(10).astype({IRIS_COLUMNS[0]: str}), tmp_path / "wrong.parquet")
    nested = write(rows(10).assign(tags=[["a"]] * 10), tmp_path / "nested.parquet")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "bare").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for given, output, reason in [
        (taken, "o.csv", "already has the columns 'prediction', 'model_version'"),
        (lacking, "o.csv", "missing column 'sepal width (cm)'; the file has 'id'"),
        (wrong, "o.csv", "holds large_string, and the model takes double"),
        (nested, "o.csv", "nested.parquet: column 'tags' holds list"),
        (good, "in.parquet", "it is the input as well"),
        (folder, "folder/o.csv", "lies in the folder that is read"),
        (good, "o.xlsx", "unknown format '.xlsx'"),
        (good, "none/o.csv", "there is no folder"),
        (good, "folder", "unknown format ''"),
        (tmp_path / "gone.csv", "o.csv", "no such file or folder"),
        (tmp_path / "empty.csv", "o.csv", "empty, without even a header"),
        (tmp_path / "notes.txt", "o.csv", "unknown format; use one of .csv"),
        (tmp_path / "bare", "o.csv", "no file in it ends with .csv"),
        ("nothing://user:word@host/in.csv", "o.csv", "nothing://host/in.csv"),
    ]:
        argv = ["score", ref, "--input", str(given), "--output", str(tmp_path / output)]
        message = error_of(capsys, *argv)
        assert reason in message
        assert "word" not in message
    assert sorted(tmp_path.rglob("*")) == before
    for options in (["--rejects", "x.csv"], ["--master", "local"]):
        assert "goes with" in error_of(
            capsys, "score", ref, "--input", "x", "--output", "y.csv", *options, code=2
        )


@slow
def test_a_url_is_read(local: Place, tmp_path: Path, capsys: Any) -> None:
    predictor = tmp_path / "served"
    predictor.mkdir()
    write(rows(50), predictor / "in.csv")
    ref, output = f"{local.model(GOOD)}/1", tmp_path / "out.csv"
    assert score(capsys, ref, (predictor / "in.csv").as_uri(), output)["rows"] == 50
    handler = partial(_Quiet, directory=str(predictor))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://user:word@127.0.0.1:{server.server_port}/in.csv"
        try:
            import fsspec  # noqa: F401
        except ImportError:
            argv = ["score", ref, "--input", url, "--output", str(output)]
            assert "needs fsspec: install registry-pipeline[url]" in error_of(capsys, *argv)
        else:
            summary = score(capsys, ref, url, output)
            assert summary["rows"] == 50
            assert "word" not in json.dumps(summary)
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@slow
def test_a_registry_that_cannot_be_written_to_does_not_keep_from_scoring(
    local: Place, tmp_path: Path
) -> None:
    shutil.copy(local.files / "mlflow.db", tmp_path / "read.db")
    with sqlite3.connect(tmp_path / "read.db") as database:
        database.execute(
            "CREATE TRIGGER closed BEFORE INSERT ON experiments "
            "BEGIN SELECT RAISE(ABORT, 'attempt to write a readonly database'); END"
        )
    database.close()
    given = write(rows(50), tmp_path / "in.csv")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "registry_tools", "score", "trained/1", "--json"),
            *("--input", given, "--output", tmp_path / "out.csv"),
        ],
        env=environment(f"sqlite:///{tmp_path}/read.db"),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("WARNING: this scoring is not recorded: ")
    assert json.loads(done.stdout)["run_id"] is None
    assert len(read(tmp_path / "out.csv")) == 50


def test_the_entry_point_that_scores_has_the_options_of_its_command_and_their_defaults() -> None:
    entry = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]["score"]
    command = entry["command"].split()
    assert command[:5] == ["python", "-m", "registry_tools", "score", "{ref}"]
    options = {o.opts[0].removeprefix("--").replace("-", "_"): o for o in cli.commands["score"].params}
    context = click.Context(cli.commands["score"])
    given = dict(zip(command[5::2], command[6::2], strict=True))
    names = [name for name in entry["parameters"] if name != "ref"]
    assert given == {f"--{name.replace('_', '-')}": f"{{{name}}}" for name in names}
    # Flags take no value. The defaults of the others depend on the machine or on other options.
    absent = {"proba", "rejects", "workers", "master"}
    shared = {"trust", "allow_code", "require_signature", "public_key", "tracking_uri", "json", "ref", "_v"}
    assert options.keys() - names == absent | shared
    for name in names:
        if name not in {"input", "output"}:
            assert entry["parameters"][name]["default"] == options[name].get_default(context)


@LONG
@slow
def test_mlflow_run_scores(local: Place, tmp_path: Path) -> None:
    given, output = tmp_path / "in.csv", tmp_path / "out.parquet"
    rows(50).to_csv(given, sep=";", index=False)
    parameters = {"ref": f"{local.model(GOOD)}/1", "input": given, "output": output}
    parameters |= {"separator": ";", "keep": "id", "prefix": "model_"}
    pairs = [word for key, value in parameters.items() for word in ("-P", f"{key}={value}")]
    done = subprocess.run(
        ["mlflow", "run", ROOT, "-e", "score", "--env-manager", "local", *pairs],
        env=environment(local.uri),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "scored  50 rows" in done.stdout
    added = ["model_prediction", "model_prediction_name", "model_model_version"]
    assert list(read(output)) == ["id", *added]
    assert len(read(output)) == 50
