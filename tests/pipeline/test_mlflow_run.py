"""`mlflow run`, `make run` and `mlflow models serve`, run as real processes."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from registry_tools import load_model
from registry_tools.cli.main import main
from tests.support.commands import environment
from tests.support.constants import IRIS_ROW, LONG, ROOT
from tests.support.servers import BIN, free_port, wait_until_up


def mlflow_run(uri: str, *parameters: str) -> subprocess.CompletedProcess[str]:
    pairs = [word for pair in parameters for word in ("-P", pair)]
    return subprocess.run(
        [BIN / "mlflow", "run", ROOT, "--env-manager", "local", *pairs],
        env=environment(uri),
        capture_output=True,
        text=True,
        timeout=120,
    )


def runs(client: MlflowClient) -> list[Any]:
    """Return the runs of all experiments except the history, in which each event is a run."""
    found = [e.experiment_id for e in client.search_experiments() if not e.name.endswith("-promotions")]
    return client.search_runs(found)


@LONG
@pytest.mark.slow
def test_mlflow_run_resumes_the_run_that_it_opened(store: str) -> None:
    done = mlflow_run(store, "max_iter=150", "test_size=0.25", 'model_params={"C": 0.5}')
    assert done.returncode == 0, done.stderr
    client = MlflowClient()
    (run,) = runs(client)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "logistic_regression C=0.5 max_iter=150 test_size=0.25"
    assert (run.data.params["max_iter"], run.data.params["name"]) == ("150", "iris")
    assert (run.data.params["model"], run.data.params["estimator"]) == ("auto", "logistic_regression")
    assert run.data.tags["mlflow.project.entryPoint"] == "main"
    assert int(client.get_model_version_by_alias("iris", "staging").version) == 1
    assert load_model("iris@staging").estimator[-1].get_params()["C"] == 0.5
    words = done.stdout.split()
    assert run.info.run_id in words
    assert words[words.index("version") + 1 :][:5] == ["iris", "version", "1,", "stage", "staging"]
    kind = client.get_experiment(run.info.experiment_id).tags["mlflow.experimentKind"]
    assert kind == "custom_model_development"


@LONG
@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ("test_size=abc", "pipeline: error: test_size=abc: must be a fraction above 0 and below 1"),
        ("depth=3", "pipeline: error: No such option"),
        (
            "data=t.csv target=y",
            "pipeline: error: name=auto: data=t.csv needs a model of its own: set name=MODEL",
        ),
    ],
)
def test_a_mistyped_parameter_leaves_no_run_and_no_version(parameters: str, line: str, store: str) -> None:
    done = mlflow_run(store, *parameters.split())
    assert done.returncode != 0
    assert [text for text in done.stderr.splitlines() if text.startswith(line)]
    client = MlflowClient()
    assert runs(client) == []
    assert client.search_registered_models() == []


@LONG
@pytest.mark.slow
def test_mlflow_run_trains_on_a_csv_table(store: str, table_csv: Path) -> None:
    done = mlflow_run(store, f"data={table_csv}", "target=kind", "name=other", "split=hash")
    assert done.returncode == 0, done.stderr
    assert "other version 1, stage staging" in done.stdout
    assert "'planet' is left out: it is constant" in done.stderr


@LONG
@pytest.mark.slow
def test_training_through_a_tracking_server(tracking_server: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "python", "-m", "pipeline", "train", "--max-iter", "300"],
        cwd=tmp_path,
        env=environment(tracking_server) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("run       ")
    assert f"open {tracking_server}" in done.stdout
    model = load_model("iris@staging", tracking_uri=tracking_server)
    assert model.predict_names([IRIS_ROW]).tolist() == ["versicolor"]
    client = MlflowClient(tracking_server)
    assert client.get_model_version("iris", "1").current_stage == "Staging"
    assert client.get_model_version("iris", "1").source.startswith("models:/m-")
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith("process-")] == ["server"]
    assert main(["show", "iris/2", "--tracking-uri", tracking_server]) == 1


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:{port}",
        *(
            pytest.param(address, marks=pytest.mark.slow)
            for address in ("sqlite:////dev/null/mlflow.db", "sqlite://", "mlflow.db")
        ),
    ],
)
def test_an_unavailable_store_is_reported_in_one_line(address: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "python", "-m", "pipeline", "train"],
        cwd=tmp_path,
        env=environment(address.format(port=free_port())) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("pipeline: error: ")
    assert "regist" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["models:/iris@staging", "models:/iris/Staging"])
def test_mlflow_models_serve_predicts_with_the_stage(
    uri: str, store: str, start: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.params.definitions import TrainParams
    from pipeline.training.train import train

    train(TrainParams())
    port = free_port()
    process = start(
        BIN / "mlflow",
        *("models", "serve", "-m", uri, "--env-manager", "local", "--port", str(port)),
        env=environment(store),
    )
    wait_until_up(f"http://127.0.0.1:{port}/ping", process)
    names = [c.name for c in load_model("iris/1").info.signature or ()]
    body = json.dumps({"dataframe_split": {"columns": names, "data": [IRIS_ROW]}}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        assert json.load(response) == {"predictions": [1]}
    # MLflow writes a file into the model folder when it serves; the digest ignores it.
    assert load_model("iris@staging").info.version == 1


def test_a_python_without_the_packages_names_the_fix(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([BIN / "python", "-m", "venv", "--without-pip", bare], check=True)
    done = subprocess.run(
        [bare / "bin" / "python", "-m", "pipeline", "train"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "activate the environment first" in done.stderr
    assert done.stderr.count("\n") == 1


@LONG
@pytest.mark.slow
def test_two_first_trainings_at_once_both_register(tmp_path: Path) -> None:
    command = [BIN / "python", "-m", "pipeline", "train"]
    variables = environment() | {"PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(command, cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert len(client.search_model_versions("name = 'iris'")) == 2


@pytest.mark.slow
def test_the_default_store_works_in_a_folder_with_a_space_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "my clone"
    folder.mkdir()
    for name in ("MLproject", "conda.yaml", "pipeline", "registry_tools"):
        (folder / name).symlink_to(ROOT / name)

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)

    trained = run(BIN / "mlflow", "run", ".", "--env-manager", "local", "-P", "plots=false")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.endswith("mlflow ui\n")  # without the address of another store
    assert "MLFLOW_TRACKING_URI" not in trained.stdout
    for command in (["verify", "iris@staging"], ["promote", "iris@staging", "--to", "production"]):
        done = run(BIN / "registry-tools", *command)
        assert (done.returncode, done.stderr) == (0, "")
