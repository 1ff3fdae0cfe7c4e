"""The commands that move stages: what they print, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from registry_tools import load_model
from registry_tools.cli.main import main
from registry_tools.policy.tag_names import DIGEST_TAG, EVIDENCE_DIGEST_TAG
from tests.support.constants import IRIS_ROW, LONG, ROOT
from tests.support.estimators import Tracer
from tests.support.registries import EQUAL, GOOD, POOR, Place
from tests.support.servers import BIN, free_port, wait_until_up


def result_of(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> Any:
    assert main([*argv, "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def error_of(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 1) -> str:
    assert main(argv) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("registry-tools: error: ")
    return err


def test_a_model_through_all_commands(local: Place, capsys: pytest.CaptureFixture[str]) -> None:
    name = local.model()
    first = result_of(capsys, "promote", f"{name}/1", "--to", "Production", "--actor", "ada")
    assert (first["version"], first["stage"], first["previous_version"]) == (1, "production", None)
    assert first["verdict"]["passed"]
    assert first["event"]["actor"] == "ada"
    refused = result_of(capsys, "promote", f"{name}/3", "--to", "production", code=3)
    assert [g["gate"] for g in refused["verdict"]["gates"] if not g["passed"]] == ["champion", "baseline"]
    assert result_of(capsys, "promote", f"{name}/2", "--to", "production")["previous_version"] == 1
    back = result_of(capsys, "rollback", name, "--reason", "worse")
    assert (back["version"], back["previous_version"], back["event"]["reason"]) == (1, 2, "worse")

    entries = result_of(capsys, "history", name)
    assert [(a["action"], a["outcome"], a["version"]) for a in entries] == [
        ("rollback", "applied", 1),
        ("promote", "applied", 2),
        ("promote", "refused", 3),
        ("promote", "applied", 1),
    ]
    assert [a["at"] for a in entries] == sorted((a["at"] for a in entries), reverse=True)
    assert len(result_of(capsys, "history", name, "--limit", "2")) == 2
    assert result_of(capsys, "history", name, "--stage", "staging") == []

    shown = result_of(capsys, "show", f"{name}@production")
    assert (shown["version"], shown["last_event"]["action"]) == (1, "rollback")
    assert shown["verdict"]["passed"]
    listed = result_of(capsys, "list", name)
    assert [v["last_event"]["outcome"] for v in listed] == ["refused", "applied", "applied"]
    assert not listed[0]["verdict"]["passed"]

    compared = result_of(capsys, "compare", f"{name}/1", f"{name}/2")
    assert compared["paired"]["rows"] == 30
    assert compared["paired"]["difference"] == pytest.approx(-1 / 30)
    assert main(["compare", f"{name}/1", f"{name}/2"]) == 0
    assert "on 30 rows that neither was trained on: 0.9667 and 1.0000" in capsys.readouterr().out
    assert result_of(capsys, "verify", f"{name}@production")["passed"]
    assert result_of(capsys, "repair", name) == []
    assert result_of(capsys, "delete", f"{name}/3")["deleted"]


def test_each_mistake_is_reported_in_one_line(local: Place, capsys: pytest.CaptureFixture[str]) -> None:
    name = local.model(GOOD, EQUAL)
    to = ["--to", "production"]
    assert "is not a legal alias" in error_of(capsys, "promote", f"{name}/1", "--to", "two words", code=2)
    assert "MLflow reserves" in error_of(capsys, "promote", f"{name}/1", "--to", "v3", code=2)
    assert "names no version" in error_of(capsys, "promote", name, *to, code=2)
    assert "has no version 9" in error_of(capsys, "promote", f"{name}/9", *to)
    assert "--force needs --reason" in error_of(capsys, "promote", f"{name}/1", *to, "--force", code=2)
    assert "'accuracy': write METRIC=NUMBER" in error_of(
        capsys, "promote", f"{name}/1", *to, "--min", "accuracy", code=2
    )
    assert "--margin" in error_of(capsys, "promote", f"{name}/1", *to, "--margin", "2", code=2)
    assert "go together" in error_of(capsys, "promote", f"{name}/1", *to, "--eval-data", "rows.csv", code=2)
    assert "rows.csv" in error_of(
        capsys, "promote", f"{name}/1", *to, "--eval-data", "rows.csv", "--target", "kind"
    )
    assert "at no version, not at version 7 as expected" in error_of(
        capsys, "promote", f"{name}/1", *to, "--expect-current", "7"
    )
    assert "--reason" in error_of(capsys, "rollback", name, code=2)
    assert "needs --reason" in error_of(capsys, "rollback", name, "--reason", " ")
    assert "at no version, not at version 7 as expected" in error_of(
        capsys, "rollback", name, "--reason", "worse", "--expect-current", "7"
    )
    assert "it held no other version before" in error_of(capsys, "rollback", name, "--reason", "worse")
    assert "needs --reason" in error_of(capsys, "unset", name, "--stage", "staging", "--reason", " ")
    assert "holds no version" in error_of(capsys, "unset", name, "--stage", "staging", "--reason", "gone")
    assert "did you mean production? --new-stage prod creates it" in error_of(
        capsys, "promote", f"{name}/1", "--to", "prod"
    )
    assert "either --to STAGE or --new-stage STAGE" in error_of(capsys, "promote", f"{name}/1", code=2)
    assert "no registered model 'nobody'" in error_of(capsys, "history", "nobody")
    assert "no registered model 'nobody'" in error_of(capsys, "repair", "nobody")
    assert result_of(capsys, "history", name) == []


@LONG
@pytest.mark.slow
def test_a_dry_run_prints_the_verdict_and_returns_its_exit_code(
    local: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    name = local.model()
    assert main(["promote", f"{name}/1", "--to", "production", "--dry-run"]) == 0
    assert f"would move  {name} production: version none → 1" in capsys.readouterr().out
    main(["promote", f"{name}/1", "--to", "production"])
    capsys.readouterr()
    assert main(["promote", f"{name}/3", "--to", "production", "--dry-run"]) == 3
    assert "would be refused" in capsys.readouterr().out
    assert len(result_of(capsys, "history", name)) == 1


@LONG
@pytest.mark.slow
def test_the_reason_of_a_refusal_is_printed_once_where_output_and_errors_meet(local: Place) -> None:
    """On a terminal, and in a log of both streams; stderr alone has the reason as well."""
    name = local.model(POOR)
    reason = "no better: train a better model"

    def refused(*command: str, code: int, **streams: int) -> str:
        done = subprocess.run([BIN / "registry-tools", *command], text=True, **streams)  # type: ignore[call-overload]
        assert done.returncode == code
        return str(done.stderr or done.stdout)

    promote = ("promote", f"{name}/1", "--to", "production", "--dry-run")
    together = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    apart = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    printed = refused(*promote, code=3, **together)
    assert printed.count(reason) == 1, printed
    assert printed.count("was not promoted") == 1
    assert printed.endswith("registry-tools: error: refused by the gate baseline\n")
    assert reason in refused(*promote, code=3, **apart)

    for tag in (EVIDENCE_DIGEST_TAG, DIGEST_TAG):
        local.client.delete_model_version_tag(name, "1", tag)
    verify = ("verify", f"{name}/1")
    assert refused(*verify, code=1, **together).count("the digest tags of the version were removed") == 1
    assert "the digest tags of the version were removed" in refused(*verify, code=1, **apart)


@LONG
@pytest.mark.slow
def test_external_changes_are_reported_and_recorded(local: Place, capsys: pytest.CaptureFixture[str]) -> None:
    name = local.model()
    main(["promote", f"{name}/1", "--to", "production"])
    local.client.set_registered_model_alias(name, "production", "3")
    capsys.readouterr()
    assert main(["history", name]) == 0
    assert f"moved externally; run: registry-tools repair {name}" in (capsys.readouterr().err)
    assert "history: production is at version 3" in error_of(capsys, "verify", f"{name}@production")
    assert result_of(capsys, "repair", name) == [
        "production was moved from version 1 to version 3 externally; recorded"
    ]
    assert main(["verify", f"{name}@production"]) == 0


@LONG
@pytest.mark.slow
def test_a_model_that_runs_code_on_load_is_neither_promoted_nor_run(
    local: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))  # where the model's class is

    trace = tmp_path / "executed"
    name = local.model(GOOD)
    model = Tracer(str(trace)).fit(np.array([[0.0, 1, 2, 3], [1.0, 2, 3, 4]]), [0, 1])
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            model,
            name="model",
            signature=mlflow.models.infer_signature(local_rows(), np.array([0])),
            serialization_format="cloudpickle",
            pip_requirements=[],
            registered_model_name=name,
        )
    trace.unlink(missing_ok=True)
    capsys.readouterr()
    err = error_of(capsys, "promote", f"{name}/2", "--to", "production", code=3)
    assert "would run code from it" in err
    assert not trace.exists()
    for command in (["verify", f"{name}/2"], ["compare", f"{name}/2", f"{name}/1"]):
        main(command)
        assert not trace.exists()
    main(["promote", f"{name}/2", "--to", "production", "--allow-code"])
    assert trace.exists()


def local_rows() -> Any:
    return pd.DataFrame([IRIS_ROW], columns=["a", "b", "c", "d"])


@LONG
@pytest.mark.slow
def test_the_entry_point_promotes(local: Place, capsys: pytest.CaptureFixture[str]) -> None:
    entry = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]["promote"]
    passed = set(entry["command"].split()) & {f"{{{name}}}" for name in entry["parameters"]}
    assert passed == {f"{{{name}}}" for name in entry["parameters"]}
    name = local.model(GOOD, POOR)
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    command = [BIN / "mlflow", "run", ROOT, "-e", "promote", "--env-manager", "local"]
    for version, code in ((1, 0), (2, 1)):
        done = subprocess.run(
            [*command, "-P", f"ref={name}/{version}", "-P", "reason=by hand, at last"],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
    entries = result_of(capsys, "history", name)
    assert [(a["outcome"], a["reason"]) for a in entries] == [
        ("refused", "by hand, at last"),
        ("applied", "by hand, at last"),
    ]


@LONG
@pytest.mark.slow
def test_after_a_rollback_mlflow_serves_the_version_before_by_alias_and_by_legacy_stage(
    local: Place, start: Any, tmp_path: Path
) -> None:
    name = local.model(GOOD, POOR)
    main(["promote", f"{name}/1", "--to", "production"])
    main(["promote", f"{name}/2", "--to", "production", "--force", "--reason", "a mistake"])
    main(["rollback", name, "--reason", "a mistake"])
    for ref in (f"{name}@production", f"{name}/Production"):
        port = free_port()
        process = start(
            *(BIN / "mlflow", "models", "serve", "-m", f"models:/{ref}", "--env-manager", "local"),
            *("--port", str(port)),
            env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        )
        wait_until_up(f"http://127.0.0.1:{port}/ping", process)
        columns = [c.name for c in _columns(local, name)]
        body = {"dataframe_split": {"columns": columns, "data": [IRIS_ROW, [5.0, 3.4, 1.5, 0.2]]}}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            assert json.load(response) == {"predictions": [1, 0]}


def _columns(place: Place, name: str) -> Any:
    return load_model(f"{name}/1", tracking_uri=place.uri).info.signature
