"""The command line `registry-tools`."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import joblib
import pandas as pd
import pytest
from mlflow import MlflowClient

from registry_tools.cli.main import cli, main
from registry_tools.errors import NotFound
from registry_tools.mlflow_store import registry, stages
from registry_tools.refs import ModelRef
from tests.support.commands import error_of, run
from tests.support.constants import IRIS_ROW
from tests.support.registries import Place
from tests.support.servers import BIN, free_port
from tests.support.stores import Trained

FEATURES = "6.0,2.5,4.5,1.5"


def test_list_names_models_and_their_stages(trained: Trained, capsys: Any) -> None:
    assert run(capsys, "list") == [{"description": "", "name": "iris", "stages": {"staging": 2}}]
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "iris  staging → 2\n"


def test_list_of_a_model_has_its_versions_newest_first(trained: Trained, capsys: Any) -> None:
    versions = run(capsys, "list", "iris")
    assert [v["version"] for v in versions] == [2, 1]
    assert [v["stages"] for v in versions] == [["staging"], []]
    assert [v["version"] for v in run(capsys, "list", "iris", "--limit", "1")] == [2]
    assert main(["list", "iris"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["version", "stages", "accuracy", "run", "digest", "last", "event"]
    assert lines[2].split()[:3] == ["1", "-", "0.9667"]


def test_list_shows_the_metric_of_a_class_that_the_training_chose(store: str, capsys: Any) -> None:
    client = MlflowClient(store, store)
    run_id = client.create_run("0").info.run_id
    client.log_param(run_id, "metric", "recall:yes")
    client.log_metric(run_id, "accuracy", 0.9)
    client.log_metric(run_id, "class/yes/recall", 0.5)
    client.create_registered_model("rare")
    client.create_model_version("rare", "file:///none", run_id)
    assert main(["list", "rare"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[2] == "class/yes/recall"
    assert row.split()[2] == "0.5000"


def test_show_has_the_fields_that_scripts_rely_on(trained: Trained, capsys: Any) -> None:
    shown = run(capsys, "show", "iris/1")
    assert (shown["name"], shown["version"], shown["stages"]) == ("iris", 1, [])
    assert shown["run_id"] == trained.first.run_id
    assert shown["metrics"]["accuracy"] == pytest.approx(0.9667, abs=5e-5)
    assert shown["tags"]["artifact_digest"] == shown["digest"]
    assert main(["show", "iris@staging"]) == 0
    assert "iris version 2" in capsys.readouterr().out


def test_predict_predicts_one_row(trained: Trained, capsys: Any) -> None:
    answer = run(capsys, "predict", "iris@staging", "--features", FEATURES)
    assert answer == {
        "name": "iris",
        "prediction": "versicolor",
        "prediction_index": 1,
        "stage": "staging",
        "version": 2,
    }
    assert main(["predict", "iris/1", "--features", FEATURES, "--proba"]) == 0
    words = capsys.readouterr().out.split()
    assert words[0] == "versicolor"
    assert words[2].startswith("versicolor=0.")


def test_predict_explains_a_prediction(trained: Trained, tmp_path: Path, capsys: Any) -> None:
    answer = run(capsys, "predict", "iris/1", "--features", FEATURES, "--explain")
    assert answer["prediction"] == "versicolor"
    assert (answer["scale"], answer["note"]) == ("log-odds", None)
    total = answer["base"] + sum(answer["contributions"].values())
    assert main(["predict", "iris/1", "--features", FEATURES, "--explain"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "versicolor"
    names, values = zip(*(line.strip().rsplit("  ", 1) for line in lines[:4]), strict=True)
    assert sorted(name.strip() for name in names) == sorted(answer["contributions"])
    assert sorted(map(float, values), key=abs, reverse=True) == list(map(float, values))
    assert lines[-1].split() == ["sum", f"{total:+.4f}", "log-odds"]
    target = tmp_path / "out.csv"
    argv = ["predict", "iris/1", "--features", FEATURES, "--explain", "--output", str(target)]
    assert main(argv) == 0
    row = pd.read_csv(target).iloc[0]
    assert row["base_score"] + row.filter(like="contribution_").sum() == pytest.approx(total, abs=1e-6)
    capsys.readouterr()
    error = error_of(capsys, "predict", "iris/2", "--features", FEATURES, "--explain")
    assert "iris version 2 is a KNeighborsClassifier, which has no contributions: linear" in error


@pytest.mark.parametrize("form", ["csv", "parquet", "records", "lists", "split"])
def test_predict_reads_every_format(form: str, trained: Trained, tmp_path: Path, capsys: Any) -> None:
    names = [c["name"] for c in _signature(trained)]
    rows = pd.DataFrame([IRIS_ROW, [5.0, 3.4, 1.5, 0.2]], columns=names)
    path = tmp_path / ("rows." + (form if form in {"csv", "parquet"} else "json"))
    if form == "csv":
        rows.to_csv(path, index=False)
    elif form == "parquet":
        rows.to_parquet(path)
    elif form == "records":
        rows.to_json(path, orient="records")
    elif form == "lists":
        path.write_text(json.dumps(rows.to_numpy().tolist()))
    else:
        path.write_text(json.dumps({"dataframe_split": json.loads(rows.to_json(orient="split"))}))
    answers = run(capsys, "predict", "iris/1", "--input", str(path))
    assert [a["prediction"] for a in answers] == ["versicolor", "setosa"]


def _signature(trained: Trained) -> list[dict[str, Any]]:
    from registry_tools import load_model

    return [{"name": c.name} for c in load_model("iris/1").info.signature or ()]


@pytest.mark.parametrize("content", [b"[[6.0, 2.5, 4.5, 1.5]]", b"csv"])
def test_predict_reads_standard_input(
    content: bytes, trained: Trained, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content == b"csv":
        names = ",".join(c["name"] for c in _signature(trained))
        content = f"{names}\n{FEATURES}\n".encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert run(capsys, "predict", "iris/1", "--input", "-")[0]["prediction"] == "versicolor"


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_predict_writes_the_rows_with_their_predictions(
    suffix: str, trained: Trained, tmp_path: Path, capsys: Any
) -> None:
    source, target = tmp_path / "rows.csv", tmp_path / f"out.{suffix}"
    names = [c["name"] for c in _signature(trained)]
    pd.DataFrame([IRIS_ROW], columns=names).assign(note="kept").to_csv(source, index=False)
    argv = ["predict", "iris/1", "--input", str(source), "--proba", "--output", str(target)]
    assert main(argv) == 0
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "json": pd.read_json}[suffix]
    row = read(target).iloc[0]
    assert row["prediction"] == "versicolor"
    assert (row["note"], row["prediction_index"], row["model_version"]) == ("kept", 1, 1)
    assert row["probability_versicolor"] > 0.5
    assert capsys.readouterr().out == f"1 row → {target}\n"
    argv = ["predict", "iris/1", "--input", str(target), "--output", str(target)]
    assert "already has a column 'model_version'" in error_of(capsys, *argv)


def test_export_writes_a_file_that_joblib_loads(trained: Trained, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "iris_model.joblib"
    answer = run(capsys, "export", "iris/1", "--format", "joblib", "-o", str(path))
    assert answer["bytes"] == path.stat().st_size
    names = [c["name"] for c in _signature(trained)]
    assert joblib.load(path).predict(pd.DataFrame([IRIS_ROW], columns=names)).tolist() == [1]


@pytest.mark.parametrize(
    ("argv", "code", "reason"),
    [
        (["show", "iris@production"], 1, "stages in use: staging (version 2)"),
        (["show", "iris"], 2, "names no version and no stage"),
        (["list", "tulip"], 1, "there are: iris"),
        (["list", "a/b"], 2, "model name 'a/b'"),
        (["show"], 2, "Missing argument 'REF'"),
        (["shoe"], 2, "No such command 'shoe'"),
        (["show", "iris/1", "--colour"], 2, "No such option"),
        (["predict", "iris/1"], 2, "exactly one of --features and --input"),
        (["predict", "iris/1", "--features", "1,2"], 1, "2 features given, 4 are needed"),
        (["predict", "iris/1", "--features", "1,2,3,x"], 1, "'x' is not a number"),
        (["predict", "iris/1", "--features", "1,2,3,inf"], 1, "inf is not a finite number"),
        (["predict", "iris/1", "--features", ""], 1, "0 features given"),
        (["predict", "iris/1", "--input", "none.csv"], 1, "does not exist"),
        (["predict", "iris/1", "--input", "rows.txt"], 1, "does not exist"),
        (["export", "iris/1", "-o", "/nowhere/model.joblib"], 1, "cannot be written"),
        (["export", "iris/1", "-o", "pipe"], 1, "is not a regular file"),
        (["list", "--tracking-uri", "mlflow.db"], 1, "'mlflow.db' is not the address of a registry"),
        (["list", "--tracking-uri", "sqlite:///gone.db"], 1, "no registry at sqlite:///gone.db"),
        (["list", "--tracking-uri", "nonsense://x"], 1, "nonsense"),
    ],
)
def test_an_error_is_one_line_that_says_how_to_fix_it(
    argv: list[str],
    code: int,
    reason: str,
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    assert reason in error_of(capsys, *argv, code=code)


def test_an_unknown_output_format_is_refused_and_no_file_is_written(
    trained: Trained, tmp_path: Path, capsys: Any
) -> None:
    target = tmp_path / "out.xlsx"
    argv = ["predict", "iris/1", "--features", FEATURES, "--output", str(target)]
    assert "unknown format '.xlsx'" in error_of(capsys, *argv)
    assert list(tmp_path.iterdir()) == []


def test_verbose_adds_the_traceback(trained: Trained, capsys: Any) -> None:
    assert main(["show", "iris/9", "-v"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("registry-tools: error: 'iris' has no version 9")


def test_a_closed_pipe_ends_quietly(trained: Trained) -> None:
    command = f"{BIN / 'registry-tools'} show iris/1 --json | head -c 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("{", "")


@pytest.mark.parametrize("kind", ["nobody listens", pytest.param("nobody answers", marks=pytest.mark.slow)])
def test_an_unavailable_registry_is_one_line(kind: str) -> None:
    with socket.socket() as silent:
        if kind == "nobody answers":
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            port = silent.getsockname()[1]
        else:
            port = free_port()
        done = subprocess.run(
            [BIN / "registry-tools", "list", "--tracking-uri", f"http://127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"the registry at http://127.0.0.1:{port} is unavailable" in done.stderr


def test_a_refusing_server_is_reported_in_one_line() -> None:
    import http.server

    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        done = subprocess.run(
            [BIN / "registry-tools", "list", "--tracking-uri", address],
            capture_output=True,
            text=True,
            timeout=120,
        )
        server.shutdown()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "refused this" in done.stderr


def test_every_command_has_help_and_the_common_options(capsys: Any) -> None:
    groups = {name: command for name, command in cli.commands.items() if isinstance(command, click.Group)}
    inner = {(name, word): each for name, group in groups.items() for word, each in group.commands.items()}
    for path, command in {**{(name,): each for name, each in cli.commands.items()}, **inner}.items():
        name = path[-1]
        if name in {"completion", *groups} or path == ("policy", "check"):  # they use no registry
            continue
        assert main([*path, "--help"]) == 0
        text = capsys.readouterr().out
        assert command.help
        assert all(option in text for option in ("--tracking-uri", "-v"))
        assert "--json" in text or name in {"serve", "console"}


def test_a_version_has_the_same_stages_by_stage_and_by_number(local: Place) -> None:
    name = local.model()
    client = local.client
    for alias, version in (("canary", 1), ("Canary", 2), ("production", 2), ("Beta", 3)):
        client.set_registered_model_alias(name, alias, str(version))
    for stage, version in (("canary", 1), ("production", 2), ("beta", 3)):
        by_stage = registry.find_version(client, ModelRef(name, stage=stage))
        assert by_stage == registry.find_version(client, ModelRef(name, version=version))
        assert stage in by_stage.stages
        assert stages.stage_holder(client, name, stage) == version
    assert stages.stage_holder(client, name, "gamma") is None


@pytest.mark.filterwarnings("ignore:.*stages:FutureWarning")
def test_a_legacy_stage_without_an_alias_counts_only_if_asked_for(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = local.model()
    local.client.transition_model_version_stage(name, "3", "Production")
    with pytest.raises(NotFound, match=r"no version of .* is in stage 'production'"):
        registry.find_version(local.client, ModelRef(name, stage="production"))
    assert stages.stage_holder(local.client, name, "production") is None
    monkeypatch.setenv("REGISTRY_TOOLS_LEGACY_STAGES", "true")
    assert registry.find_version(local.client, ModelRef(name, stage="production")).version == 3
    local.client.set_registered_model_alias(name, "production", "1")
    assert registry.find_version(local.client, ModelRef(name, stage="production")).version == 1
