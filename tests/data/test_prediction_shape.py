"""A model that returns more or fewer predictions than rows is refused wherever it predicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry_tools import load_model
from registry_tools.cli.main import main
from registry_tools.data.prediction_shape import check_class_values, check_one_output, check_predictions
from registry_tools.errors import UnsupportedOperation, VerificationError
from registry_tools.inference import model_loader
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models.evidence import RecordedPredictions, write_recorded_predictions
from registry_tools.models.manifest import EVIDENCE
from registry_tools.models.trust_policy import TrustPolicy
from tests.support.commands import error_of
from tests.support.registries import Place
from tests.support.spark import require_spark
from tests.support.text_models import ROWS, TABLE, register_text_model, save_text_model

MESSAGE = f"the model returned 1 prediction for {ROWS} rows"
MESSAGES = {"predict": MESSAGE, "predict_proba": f"the model returned 1 row of probabilities for {ROWS} rows"}


@pytest.mark.parametrize("values", [[1], [[0.5, 0.5]], 1, {"a": [1, 2]}, [1, 2, 3]])
def test_the_number_of_predictions_must_be_that_of_the_rows(values: Any) -> None:
    with pytest.raises(VerificationError, match=r"the model returned \d predictions? for 2 rows: "):
        check_predictions(values, 2)
    with pytest.raises(VerificationError, match=r"the model returned \d rows? of probabilities for 2 rows: "):
        check_predictions(values, 2, "predict_proba")


def test_one_output_is_a_value_a_row() -> None:
    assert check_one_output(np.array([[1], [2]])).tolist() == [1, 2]
    assert check_one_output(np.empty((0, 1))).shape == (0,)
    with pytest.raises(UnsupportedOperation, match="predicts 2 values for each row"):
        check_one_output(np.zeros((3, 2)))


@pytest.mark.parametrize("value", ["2.0", "2", True, 3])
def test_a_prediction_that_is_none_of_the_classes_is_refused(value: Any) -> None:
    check_class_values([0, 2], [0, 1, 2], "the rows")
    check_class_values([value], [], "the rows")  # a model that declares no classes
    with pytest.raises(VerificationError) as caught:
        check_class_values([0, value], [0, 1, 2], "the rows")
    assert str(caught.value) == (
        f"row 1 of the rows: the model predicts {value!r}, which is not one of its classes 0, 1, 2"
    )


@pytest.fixture
def text_ref(local: Place) -> str:
    return register_text_model("texts")


def test_a_loaded_model_refuses_to_predict(text_ref: str) -> None:
    model = load_model(text_ref)
    for method in ("predict", "predict_names", "predict_proba"):
        with pytest.raises(VerificationError, match=MESSAGES.get(method, MESSAGE)):
            getattr(model, method)(TABLE[["text"]])


def test_predict_and_score_write_no_output(text_ref: str, tmp_path: Path, capsys: Any) -> None:
    TABLE.to_csv(tmp_path / "rows.csv", index=False)
    for command in ("predict", "score"):
        error = error_of(capsys, command, text_ref, "--input", "rows.csv", "--output", f"{command}.csv")
        assert MESSAGE in error
        assert not (tmp_path / f"{command}.csv").exists()


def test_a_promotion_is_refused(text_ref: str, local: Place, tmp_path: Path, capsys: Any) -> None:
    TABLE.to_csv(tmp_path / "rows.csv", index=False)
    options = ("--eval-data", "rows.csv", "--target", "kind", "--json")
    assert main(["promote", text_ref, "--to", "production", *options]) == 3
    refusals = [g for g in json.loads(capsys.readouterr().out)["verdict"]["gates"] if not g["passed"]]
    assert [refusal["gate"] for refusal in refusals] == ["predictions"]
    assert MESSAGE in refusals[0]["message"]


def test_verify_fails(text_ref: str, local: Place, tmp_path: Path, capsys: Any) -> None:
    recorded = RecordedPredictions(TABLE[["text"]], np.array(["bad"]), None)
    write_recorded_predictions(tmp_path, recorded)
    run_id = local.client.get_model_version("texts", text_ref.partition("/")[2]).run_id
    local.client.log_artifact(run_id, str(tmp_path / "recorded_predictions.json"), EVIDENCE)
    assert main(["verify", text_ref]) == 1
    assert MESSAGE in capsys.readouterr().err


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_the_server_refuses_requests_that_mlflow_parses(method: str, tmp_path: Path) -> None:
    save_text_model(tmp_path / "model")
    predictor = model_loader.load(artifact(tmp_path), TrustPolicy())
    split = {"dataframe_split": TABLE[["text"]].to_dict("split")}
    with pytest.raises(VerificationError, match=MESSAGES[method]):
        predictor.mlflow_scoring.score_request(split, "application/json", method)
    csv = TABLE[["text"]].to_csv(index=False).encode()
    with pytest.raises(VerificationError, match=MESSAGES[method]):
        predictor.mlflow_scoring.score_request(csv, "text/csv", method)
    with pytest.raises(VerificationError, match=MESSAGES[method]):
        predictor.mlflow_scoring.predict(TABLE[["text"]], method)


def test_a_worker_does_not_load_a_version_that_fails_on_its_example(tmp_path: Path) -> None:
    save_text_model(tmp_path / "model", example_rows=5)
    with pytest.raises(VerificationError, match="the model returned 1 prediction for 5 rows"):
        model_loader.load(artifact(tmp_path), TrustPolicy())


@pytest.mark.slow
def test_spark_refuses_it_as_well(text_ref: str, tmp_path: Path, capsys: Any) -> None:
    require_spark()
    given, output = tmp_path / "rows.csv", tmp_path / "out"
    TABLE.to_csv(given, index=False)
    options = ("--input", str(given), "--output", str(output), "--engine", "spark")
    assert main(["score", text_ref, *options]) == 1
    assert MESSAGE in capsys.readouterr().err
    assert not output.exists()


def artifact(folder: Path) -> ModelArtifact:
    return ModelArtifact(str(folder), "texts", 1, None, None, None)
