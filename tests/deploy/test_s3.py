"""Tables, scoring input and artifacts in an S3-compatible store: moto's server as a process on loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from pyarrow import fs
from sklearn.datasets import load_iris

from pipeline.errors import DataError, InvalidParameter
from pipeline.params.definitions import TrainParams
from pipeline.training.train import train
from registry_tools import load_model
from tests.support.commands import error_of, run
from tests.support.constants import LONG, ROOT
from tests.support.servers import BIN, end_group, free_port, wait_until_up
from tests.support.tracking_servers import server_over

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of the server's own environment: boto3 does not go with our lock."""
    folder = tmp_path_factory.mktemp("server-packages")
    uv = str(BIN / "uv")
    lock = ROOT / "tests/support/s3.lock"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    install = ["pip", "install", "--quiet", "--require-hashes", "--requirement", lock]
    subprocess.run([uv, *install, "--python", folder / "bin" / "python"], check=True)
    return folder / "bin"


@pytest.fixture(scope="module")
def bucket(server_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[fs.FileSystem]:
    """An empty bucket of the name `bucket`; the environment says where it is, and has its key."""
    port = free_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    folder = tmp_path_factory.mktemp("moto")
    with pytest.MonkeyPatch.context() as patch, (folder / "moto.log").open("wb") as log:
        for name, value in settings.items():
            patch.setenv(name, value)
        command = [server_bin / "moto_server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until_up(f"http://127.0.0.1:{port}/moto-api/", process)
            made = fs.S3FileSystem(endpoint_override=settings["AWS_ENDPOINT_URL"], allow_bucket_creation=True)
            made.create_dir("bucket")
            yield made
        finally:
            end_group(process)


@pytest.fixture(scope="module")
def registry(
    bucket: fs.FileSystem, server_bin: Path, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A server that keeps its artifacts in the bucket; its clients hold no key of theirs."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    options = ("--workers", "1", "--artifacts-destination", "s3://bucket/mlflow")
    with server_over(f"sqlite:///{folder}/mlflow.db", folder, *options, program=server_bin / "mlflow") as uri:
        yield uri


@pytest.fixture
def here(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands of this process use that server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)
    mlflow.set_tracking_uri(registry)
    yield
    mlflow.set_tracking_uri(None)


def table() -> pd.DataFrame:
    iris = load_iris(as_frame=True)
    return iris.data.assign(species=iris.target_names[iris.target])


def upload(bucket: fs.FileSystem, content: pd.DataFrame, path: str) -> str:
    with bucket.open_output_stream(f"bucket/{path}") as stream:
        stream.write(
            content.to_parquet() if path.endswith("parquet") else content.to_csv(index=False).encode()
        )
    return f"s3://bucket/{path}"


@LONG
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_model_is_trained_kept_and_scored_in_a_bucket(
    form: str, bucket: fs.FileSystem, here: None, tmp_path: Path, capsys: Any
) -> None:
    name = f"iris-s3-{form}"
    data = upload(bucket, table(), f"tables/{form}/iris.{form}")
    train(TrainParams(data=data, target="species", name=name, plots=False))
    capsys.readouterr()  # MLflow prints where the run is
    client = MlflowClient()
    version = client.get_model_version(name, "1")
    recorded = client.get_run(str(version.run_id))
    assert recorded.data.params["data"] == data
    assert recorded.info.artifact_uri.startswith("mlflow-artifacts:/")
    files = bucket.get_file_info(fs.FileSelector("bucket/mlflow", recursive=True))
    assert any(file.path.endswith("MLmodel") for file in files)
    run(capsys, "verify", f"{name}/1")
    rows = upload(bucket, table().drop(columns="species"), f"rows/{form}/part one.{form}")
    output = tmp_path / "out.parquet"
    for given in (rows, f"s3://bucket/rows/{form}"):
        summary = run(capsys, "score", f"{name}/1", "--input", given, "--output", str(output))
        assert summary["rows"] == 150
        found = pd.read_parquet(output)
        model = load_model(f"{name}/1")
        assert found["prediction_name"].tolist() == model.predict_names(table().iloc[:, :4]).tolist()


def test_a_bad_row_in_a_bucket_is_named(bucket: fs.FileSystem, here: None, capsys: Any) -> None:
    train(TrainParams(name="iris-s3-bad", plots=False))
    capsys.readouterr()  # MLflow prints where the run is
    rows = table().drop(columns="species").astype("str")
    rows.iloc[7, 0] = "wide"
    given = upload(bucket, rows, "bad/rows.csv")
    message = error_of(capsys, "score", "iris-s3-bad/1", "--input", given, "--output", "out.csv")
    assert f"{given}: row 7: column 'sepal length (cm)': 'wide' is not a number" in message


def test_a_table_that_is_not_there_is_one_line_without_the_key(
    bucket: fs.FileSystem, here: None, capsys: Any
) -> None:
    with pytest.raises(DataError, match=r"data=s3://bucket/none.csv: there is no such file or folder"):
        train(TrainParams(data="s3://bucket/none.csv", target="species", name="own", plots=False))
    with pytest.raises(InvalidParameter, match="must hold no key") as error:
        TrainParams(data="s3://key:pass@bucket/none.csv", target="species", name="own")
    assert "pass" not in str(error.value).replace("password", "")
    message = error_of(
        capsys, "score", "none/1", "--input", "s3://key:pass@bucket/none.csv", "--output", "out.csv"
    )
    assert "s3://bucket/none.csv: there is no such file or folder" in message


def test_a_bucket_that_cannot_be_reached_is_one_line(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    argv = ["score", "none/1", "--input", "s3://bucket/none.csv", "--output", "out.csv"]
    assert "s3://bucket/none.csv: cannot be read: " in error_of(capsys, *argv)
