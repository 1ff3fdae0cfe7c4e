"""`registry-tools export --format onnx` and `promote --onnx`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry_tools.cli.main import main
from registry_tools.models import artifacts, manifest
from registry_tools.models.onnx.check import open_session
from registry_tools.policy.tag_names import ONNX_DIGEST_TAG
from tests.support.constants import IRIS_ROW
from tests.support.registries import EQUAL, GOOD, Place, evidence_folder, on_sqlite
from tests.support.signing_keys import write_keys
from tests.support.stores import Trained


def result_of(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> Any:
    assert main([*argv, "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def error_of(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 1) -> str:
    assert main(argv) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


def test_export_writes_an_onnx_file_that_onnx_runtime_reads(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "iris.onnx"
    written = result_of(capsys, "export", "iris/1", "--format", "onnx", "-o", str(path))
    assert written["bytes"] == path.stat().st_size
    assert {name: written["check"][name] for name in ("holdout_rows", "boundary_rows", "differing")} == {
        "holdout_rows": 30,
        "boundary_rows": 800,
        "differing": 0,
    }
    made = open_session(path.read_bytes()).run(["class_name", "prediction"], {"rows": np.array([IRIS_ROW])})
    assert [each.tolist() for each in made] == [["versicolor"], [1]]
    assert list(tmp_path.iterdir()) == [path]


def test_an_onnx_file_is_not_written_if_a_label_differs(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from registry_tools.models.onnx import estimators, rows

    # A conversion with an error: it takes the first class for the second.
    def wrong(graph: Any, margins: str, classes: Any) -> Any:
        return rows.of_margins(graph, graph.columns(margins, [1, 0, 2]), classes)

    monkeypatch.setattr(estimators, "of_margins", wrong)
    path = tmp_path / "iris.onnx"
    err = error_of(capsys, "export", "iris/1", "--format", "onnx", "-o", str(path))
    assert f"iris version 1 was not exported to {path}: " in err
    assert " of 830 rows get another prediction from the ONNX file" in err
    assert not list(tmp_path.iterdir())


@on_sqlite
@pytest.mark.slow
def test_promote_with_onnx_stores_the_file_with_the_version_and_in_its_manifest(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    name = place.model(GOOD, EQUAL)
    ref = f"{name}/1"
    # Versions of these tests share their runs, so the file of an earlier test may exist already.
    before = place.version(name, 1).evidence_digest
    done = result_of(capsys, "promote", ref, "--to", "production", "--onnx")
    gates = {gate["gate"]: gate for gate in done["verdict"]["gates"]}
    assert gates["onnx"]["metrics"] == {"onnx_rows": 830, "onnx_differing": 0}
    version = place.version(name, 1)
    found = artifacts.download_manifest(place.client, version)
    assert found is not None
    file = evidence_folder(place, name, 1) / manifest.ONNX_FILE
    assert found.onnx == {manifest.ONNX_FILE: manifest.sha256_of(file)}
    assert version.tags[ONNX_DIGEST_TAG] == manifest.digest_of(found.onnx)
    assert version.evidence_digest == before
    assert result_of(capsys, "verify", ref)["passed"]
    again = result_of(capsys, "promote", ref, "--to", "staging", "--onnx", "--dry-run")
    messages = {gate["gate"]: gate["message"] for gate in again["verdict"]["gates"]}
    assert messages["onnx"].startswith("the stored ONNX file predicts the same on 30 held-out rows")


@on_sqlite
@pytest.mark.slow
def test_a_changed_onnx_file_of_a_version_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    name = place.model(EQUAL)
    result_of(capsys, "promote", f"{name}/1", "--to", "production", "--onnx")
    file = evidence_folder(place, name, 1) / manifest.ONNX_FILE
    content = file.read_bytes()
    file.write_bytes(content + b"x")
    try:
        assert "evidence/model.onnx was changed" in error_of(capsys, "verify", f"{name}/1")
    finally:
        file.write_bytes(content)


@on_sqlite
@pytest.mark.slow
def test_promote_with_onnx_refuses_a_model_that_has_no_conversion_and_records_it(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = place.model(EQUAL, EQUAL)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "without_onnx"))
    err = error_of(capsys, "promote", f"{name}/2", "--to", "production", "--onnx", code=3)
    assert "onnx: the ONNX export needs the extra `onnx`" in err
    (event,) = result_of(capsys, "history", name)
    assert [gate["gate"] for gate in event["gates"] if not gate["passed"]] == ["onnx"]
    assert event["outcome"] == "refused"


@on_sqlite
@pytest.mark.slow
def test_promote_with_onnx_refuses_a_signed_version_without_a_stored_file(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.params.definitions import TrainParams
    from pipeline.training.train import train

    name = place.model(GOOD)
    train(TrainParams(name=name, plots=False))
    write_keys(tmp_path, "ours")
    assert main(["sign", f"{name}/2", "--key", "ours.pem"]) == 0
    capsys.readouterr()
    err = error_of(capsys, "promote", f"{name}/2", "--to", "production", "--onnx", code=3)
    assert "is signed, and an ONNX file would change the signed manifest" in err
