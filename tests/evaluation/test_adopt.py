"""Versions that plain `log_model` made are adopted: they get evidence, and keep their files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression

from registry_tools import load_model
from registry_tools.cli.main import main
from registry_tools.mlflow_store import stages
from registry_tools.models import artifacts, manifest
from registry_tools.policy.tag_names import DIGEST_TAG
from tests.support.constants import LONG
from tests.support.registries import GOOD, Place, evidence_folder, on_server, on_sqlite, renew_manifest
from tests.support.signing_keys import write_keys

IRIS = load_iris(as_frame=True)
TRAINING = slice(0, None, 2)


def log_plain(name: str, C: float = 1.0) -> LogisticRegression:
    """Register a version as any user of MLflow does, within the active run."""
    model = LogisticRegression(C=C, max_iter=500).fit(IRIS.data[TRAINING], IRIS.target[TRAINING])
    signature = mlflow.models.infer_signature(IRIS.data)
    mlflow.sklearn.log_model(
        model, name="model", signature=signature, pip_requirements=[], registered_model_name=name
    )
    return model


@pytest.fixture
def plain(place: Place, tmp_path: Path) -> str:
    """A model of one plain version; `rows.csv` has the rows that it was not trained on."""
    name = f"{place.model(GOOD)}-plain"
    mlflow.set_tracking_uri(place.uri)
    with mlflow.start_run():
        log_plain(name)
    rows = IRIS.data.assign(kind=IRIS.target, note="none of the model's")
    rows[1::2].to_csv(tmp_path / "rows.csv", index=False)
    return name


ROWS = ["--eval-data", "rows.csv", "--target", "kind"]


def error_of(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 1) -> str:
    capsys.readouterr()
    assert main(argv) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


def test_an_adopted_version_has_evidence_and_the_same_files(
    place: Place, plain: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with artifacts.model_files(place.client, plain, 1) as folder:
        before = manifest.manifest_of(folder)
    assert main(["adopt", f"{plain}/1", *ROWS]) == 0
    assert capsys.readouterr().out == (
        f"adopted  {plain} version 1: 75 held-out rows, 20 recorded predictions\n"
        "accuracy  0.9600 on the 75 held-out rows, 0.3333 for always predicting the commonest class\n"
        f"unknown  training rows of {plain} version 1: no check can show that the held-out rows are not "
        "among them\n"
    )
    with artifacts.model_files(place.client, plain, 1) as folder:
        assert manifest.manifest_of(folder) == before
    version = place.version(plain, 1)
    assert version.digest == manifest.digest_of(before)
    with artifacts.evidence_files(place.client, version) as evidence:
        assert evidence is not None
        made = manifest.read_manifest(evidence)
        assert made is not None
        assert set(made.evidence) == {"holdout.parquet", "recorded_predictions.json"}
        assert version.evidence_digest == manifest.digest_of(made.evidence)
        assert list(pd.read_parquet(evidence / "holdout.parquet").columns) == [*IRIS.data.columns, "kind"]
    # A second time with the same rows changes nothing, and says so.
    assert main(["adopt", f"{plain}/1", *ROWS, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": plain,
        "version": 1,
        "digest": version.digest,
        "evidence_digest": version.evidence_digest,
        "holdout_rows": 75,
        "recorded_rows": 20,
        "metric": "accuracy",
        "value": pytest.approx(72 / 75),
        "baseline_value": pytest.approx(1 / 3),
        "training_rows": None,
        "made": False,
    }


@pytest.mark.slow
@on_server
def test_the_gates_rely_on_the_evidence_of_an_adopted_version(
    place: Place, plain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow.set_tracking_uri(place.uri)
    with mlflow.start_run():
        log_plain(plain, C=2.0)
    for version in (1, 2):
        assert main(["adopt", f"{plain}/{version}", *ROWS]) == 0
        capsys.readouterr()
        assert main(["promote", f"{plain}/{version}", "--to", "production"]) == 0
    out = capsys.readouterr().out
    assert "20 recorded predictions reproduced" in out
    assert "the training rows of the candidate are not recorded" in out
    assert "on 75 rows, which may include training rows of the champion, as they are not recorded" in out
    assert place.holder(plain) == 2
    assert main(["verify", f"{plain}/2"]) == 0
    assert main(["compare", f"{plain}/1", f"{plain}/2"]) == 0
    title = f"{plain} version 1 and {plain} version 2"
    assert f"on 75 rows (the training rows of {title} are not recorded)" in capsys.readouterr().out


@pytest.mark.slow
@on_sqlite
def test_what_was_adopted_cannot_be_swapped(
    place: Place, plain: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["adopt", f"{plain}/1", *ROWS]) == 0
    folder = evidence_folder(place, plain, 1)
    recorded = folder / "recorded_predictions.json"
    content = json.loads(recorded.read_text())
    content["predictions"][0] = 1 - content["predictions"][0]
    recorded.write_text(json.dumps(content))
    assert "recorded_predictions.json was changed" in error_of(capsys, "verify", f"{plain}/1")
    renew_manifest(place, plain, 1)
    assert "predictions: the prediction for row 0 of the input example differs" in error_of(
        capsys, "verify", f"{plain}/1"
    )


@pytest.mark.slow
@on_server
def test_a_second_adoption_with_other_rows_is_refused(
    place: Place, plain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["adopt", f"{plain}/1", *ROWS]) == 0
    before = place.version(plain, 1)
    pd.read_csv("rows.csv")[:60].to_csv("other.csv", index=False)
    other = ["--eval-data", "other.csv", "--target", "kind"]
    err = error_of(capsys, "adopt", f"{plain}/1", *other)
    assert f"{plain} version 1 already has evidence, with another holdout.parquet" in err
    assert place.version(plain, 1) == before
    assert main(["verify", f"{plain}/1"]) == 0


@pytest.mark.slow
@on_server
def test_labels_that_the_version_does_not_predict_are_refused(
    place: Place, plain: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = IRIS.data.assign(kind=IRIS.target_names[IRIS.target])
    rows.to_csv("named.csv", index=False)
    err = error_of(capsys, "adopt", f"{plain}/1", "--eval-data", "named.csv", "--target", "kind")
    assert "predicts 0, 1, 2; the labels are setosa, versicolor, virginica: give --target the column" in err
    assert place.version(plain, 1).tags == {}
    few = rows.assign(kind=IRIS.target)[1::8]
    pd.concat([few] * 5).to_csv("few.csv", index=False)
    err = error_of(capsys, "adopt", f"{plain}/1", "--eval-data", "few.csv", "--target", "kind")
    assert "few.csv has 19 distinct rows, 20 are needed to adopt" in err
    assert "no such column" in error_of(
        capsys, "adopt", f"{plain}/1", "--eval-data", "named.csv", "--target", "x"
    )
    assert main(["adopt", f"{plain}/1", "--eval-data", "named.csv"]) == 2


@pytest.mark.slow
@on_server
def test_a_wrong_target_is_refused_before_anything_is_written(
    place: Place, plain: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = IRIS.data.assign(kind=IRIS.target, shuffled=IRIS.target.sample(frac=1, random_state=0).to_numpy())
    rows = rows.assign(constant=0, day=[i % 31 for i in range(len(rows))])[1::2]
    rows.to_csv("wrong.csv", index=False)
    rows[:19].to_csv("few.csv", index=False)
    for target in ("shuffled", "constant", "day"):
        err = error_of(capsys, "adopt", f"{plain}/1", "--eval-data", "wrong.csv", "--target", target)
        assert f"{plain} version 1 predicts '{target}' with accuracy " in err
        assert "(p = " in err
        assert f"check that --target {target} is the label that it was trained on, or give more rows" in err
    err = error_of(capsys, "adopt", f"{plain}/1", "--eval-data", "few.csv", "--target", "kind")
    assert "few.csv has 19 rows, 20 are needed to adopt" in err
    version = place.version(plain, 1)
    assert version.tags == {}
    with artifacts.evidence_files(place.client, version) as evidence:
        assert evidence is None
    assert main(["adopt", f"{plain}/1", "--eval-data", "wrong.csv", "--target", "kind"]) == 0


@pytest.mark.slow
@on_server
def test_versions_that_no_promotion_could_use_are_not_adopted(
    place: Place, plain: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow.set_tracking_uri(place.uri)
    x, y = IRIS.data[TRAINING], IRIS.target[TRAINING]
    signature = mlflow.models.infer_signature(IRIS.data)
    two = np.column_stack([y, y])
    for model, labels, signed in (
        (LogisticRegression(max_iter=500), y, None),
        (LinearRegression(), two, signature),
    ):
        with mlflow.start_run():
            mlflow.sklearn.log_model(
                model.fit(x, labels),
                name="model",
                signature=signed,
                pip_requirements=[],
                registered_model_name=plain,
            )
    err = error_of(capsys, "adopt", f"{plain}/2", *ROWS)
    assert f"{plain} version 2 has no signature" in err
    assert "log the model again with signature=mlflow.models.infer_signature(X)" in err
    err = error_of(capsys, "adopt", f"{plain}/3", *ROWS)
    assert f"{plain} version 3 predicts 2 numbers for each row, and the gates compare one" in err
    trained = place.model(GOOD)
    assert f"{trained} version 1 already has evidence from its training: there is nothing to adopt" in (
        error_of(capsys, "adopt", f"{trained}/1", *ROWS)
    )


@on_sqlite
def test_a_version_that_came_from_no_run_cannot_be_adopted(
    place: Place, plain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with artifacts.model_files(place.client, plain, 1) as folder:
        shutil.copytree(folder, tmp_path / "model")
    place.client.create_model_version(plain, source=str(tmp_path / "model"))
    err = error_of(capsys, "adopt", f"{plain}/2", *ROWS)
    assert f"{plain} version 2 has no run that could store its evidence" in err
    assert "log the model within mlflow.start_run()" in err


@pytest.mark.slow
@on_server
def test_two_models_of_one_run_are_not_mixed_up(
    place: Place, plain: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow.set_tracking_uri(place.uri)
    run_id = place.client.get_model_version(plain, "1").run_id
    with mlflow.start_run(run_id=run_id):
        log_plain(plain, C=0.5)
    assert main(["adopt", f"{plain}/1", *ROWS]) == 0
    assert f"run {run_id} holds the evidence of a model other than" in error_of(
        capsys, "adopt", f"{plain}/2", *ROWS
    )
    assert main(["verify", f"{plain}/1"]) == 0


@pytest.mark.slow
@on_server
def test_an_adopted_version_is_signed_and_copied_with_its_evidence(
    place: Place, plain: str, tmp_path: Path, empty_database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_keys(tmp_path, "ours")
    sign, required = ["sign", f"{plain}/1", "--key", "ours.pem"], ["--public-key", "ours.pub.pem"]
    assert main(sign) == 0  # a manifest without evidence
    assert main(["adopt", f"{plain}/1", *ROWS, *required]) == 0
    assert "the signature does not match evidence/manifest.json" in error_of(
        capsys, "verify", f"{plain}/1", *required
    )
    assert main(sign) == 0
    assert main(["verify", f"{plain}/1", *required]) == 0
    (tmp_path / "there").mkdir()
    uri = f"sqlite:///{tmp_path}/there/mlflow.db"
    (tmp_path / "there" / "mlflow.db").write_bytes(empty_database.read_bytes())
    assert main(["copy", f"{plain}/1", "--to-uri", uri]) == 0
    capsys.readouterr()
    assert main(["verify", f"{plain}/1", *required, "--tracking-uri", uri]) == 0
    assert "20 recorded predictions reproduced" in capsys.readouterr().out
    assert load_model(f"{plain}/1", tracking_uri=uri, public_key="ours.pub.pem").info.version == 1


@LONG
@pytest.mark.slow
@on_server
def test_versions_are_compared_on_evaluation_data(
    place: Place, plain: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = place.model(GOOD)
    stages.move_alias(place.client, trained, "production", 1)
    pair = ["compare", f"{plain}/1", f"{trained}@production"]
    assert main(pair) == 0
    assert (
        "was logged without held-out rows: give --eval-data FILE --target COLUMN" in capsys.readouterr().out
    )
    assert main([*pair, *ROWS]) == 0
    phrase = f"rows (the training rows of {plain} version 1 are not recorded)"
    assert phrase in capsys.readouterr().out
    assert main([*pair, *ROWS, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["eval_data"] == "rows.csv"
    assert shown["unrecorded_training_rows"] == [f"{plain} version 1"]
    assert 5 < shown["paired"]["rows"] < 75  # without those that the second was trained on
    assert main([*pair, *ROWS, "--html", "page.html"]) == 0
    assert phrase in Path("page.html").read_text().replace("&#39;", "'")
    assert main([*pair, "--eval-data", "rows.csv"]) == 2
    assert DIGEST_TAG not in place.version(plain, 1).tags
