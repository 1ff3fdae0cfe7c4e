"""From a reference to a loaded model."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression, LogisticRegression

from pipeline.params.definitions import TrainParams
from pipeline.training.train import train
from registry_tools import load_model
from registry_tools.errors import (
    InputError,
    NotFound,
    RegistryUnavailable,
    UnsupportedOperation,
    VerificationError,
)
from registry_tools.models.joblib_file import export_joblib
from tests.support.constants import IRIS_ROW
from tests.support.estimators import Tracer
from tests.support.stores import Trained

NAMES = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")


@pytest.mark.parametrize(
    "ref", ["iris@staging", "iris/2", "iris/Staging", "models:/iris@STAGING", "models:/iris/2"]
)
def test_every_form_of_reference_loads(ref: str, trained: Trained) -> None:
    assert load_model(ref).info.version == 2


def test_info_says_what_was_loaded(trained: Trained) -> None:
    info = load_model("iris", stage="staging").info
    assert (info.name, info.version, info.stage) == ("iris", 2, "staging")
    assert info.run_id == trained.second.run_id
    assert info.target_names == ("setosa", "versicolor", "virginica")
    assert tuple(c.name for c in info.signature or ()) == NAMES
    assert len(info.digest or "") == 64
    assert load_model("iris/2").info.stage is None


def test_a_tracking_uri_may_be_given(trained_once: Trained) -> None:
    assert load_model("iris/1", tracking_uri=trained_once.uri).info.version == 1


def test_rows_may_be_lists_arrays_mappings_and_frames(trained: Trained) -> None:
    model = load_model("iris/1")
    frame = pd.DataFrame([IRIS_ROW], columns=NAMES)
    for rows in ([IRIS_ROW], np.array([IRIS_ROW]), frame, frame[list(reversed(NAMES))]):
        assert model.predict(rows).tolist() == [1]
    assert model.predict([dict(zip(NAMES, IRIS_ROW, strict=True))]).tolist() == [1]
    assert model.predict_proba([IRIS_ROW]).sum() == pytest.approx(1)


def test_a_missing_value_that_training_never_saw_is_named(trained: Trained) -> None:
    with pytest.raises(InputError, match=r"column 'petal width .* row 0: missing value"):
        load_model("iris/1").predict([[6.0, 2.5, 4.5, float("nan")]])


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("iris/9", "'iris' has no version 9; there are: 2, 1"),
        ("iris@production", r"stage 'production'; stages in use: staging \(version 2\)"),
        ("tulip/1", "no registered model 'tulip'; there are: iris"),
    ],
)
def test_a_missing_reference_names_the_existing_ones(ref: str, reason: str, trained: Trained) -> None:
    with pytest.raises(NotFound, match=reason):
        load_model(ref)


def test_an_empty_registry_says_so(store: str) -> None:
    with pytest.raises(NotFound, match="the registry is empty"):
        load_model("iris/1")


def test_a_store_that_does_not_exist_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryUnavailable, match=r"no registry at sqlite:.*mlflow\.db"):
        load_model("iris/1")
    assert list(tmp_path.iterdir()) == []


def test_a_legacy_stage_without_alias_is_no_stage_unless_asked_for(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(TrainParams(plots=False))
    client = MlflowClient()
    client.delete_registered_model_alias("iris", "staging")
    assert client.get_model_version("iris", "1").current_stage == "Staging"
    with pytest.raises(NotFound, match="no version of 'iris' is in stage 'staging'"):
        load_model("iris@staging")
    monkeypatch.setenv("REGISTRY_TOOLS_LEGACY_STAGES", "true")
    assert load_model("iris@staging").info.version == 1


def test_a_changed_file_is_refused_before_it_is_loaded(store: str) -> None:
    train(TrainParams(plots=False))
    folder = Path(MlflowClient().get_model_version_download_uri("iris", "1"))
    (folder / "model.skops").write_bytes(b"something else")
    with pytest.raises(VerificationError, match=r"model\.skops was changed after registration"):
        load_model("iris/1")


def test_a_type_that_the_model_trusts_itself_is_not_trusted(store: str) -> None:
    class_, x = LogisticRegression(), np.array([[0.0], [1.0]])
    class_.fit(x, [0, 1])
    class_.note = os.path.join  # a function that no model of ours holds
    mlflow.sklearn.log_model(
        class_,
        name="model",
        registered_model_name="crafted",
        pip_requirements=[],
        skops_trusted_types=["posixpath.join"],
    )
    with pytest.raises(VerificationError, match=r"untrusted types.*posixpath\.join"):
        load_model("crafted/1")


def test_an_alias_in_any_case_is_a_stage(store: str) -> None:
    train(TrainParams(plots=False))
    MlflowClient().set_registered_model_alias("iris", "Champion", "1")
    assert load_model("iris@CHAMPION").info.version == 1


def test_what_would_run_code_is_not_loaded_unless_that_is_allowed(store: str, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    mlflow.sklearn.log_model(
        Tracer(str(trace)),
        name="model",
        registered_model_name="pickled",
        serialization_format="cloudpickle",
        pip_requirements=[],
    )
    trace.unlink(missing_ok=True)  # made when MLflow checked what it had saved
    with pytest.raises(VerificationError, match="would run code from it: scikit-learn saved as"):
        load_model("pickled/1")
    assert not trace.exists()
    assert load_model("pickled/1", allow_code=True).predict([[1.0]]).tolist() == [0]
    assert trace.exists()


def test_any_pyfunc_flavor_loads_through_the_generic_path(store: str) -> None:
    class Doubler(mlflow.pyfunc.PythonModel):
        def predict(self, context: object, model_input: pd.DataFrame, params: object = None):
            return model_input["x"] * 2

    rows = pd.DataFrame({"x": [1.0, 2.0]})
    mlflow.pyfunc.log_model(
        python_model=Doubler(),
        name="model",
        registered_model_name="doubler",
        pip_requirements=[],
        input_example=rows,
        signature=infer_signature(rows, rows["x"]),
    )
    with pytest.raises(VerificationError, match="would run code from it: flavor pyfunc"):
        load_model("doubler/1")
    model = load_model("doubler/1", allow_code=True)
    assert model.predict(rows).tolist() == [2.0, 4.0]
    with pytest.raises(UnsupportedOperation, match="gives no probabilities"):
        model.predict_proba(rows)
    with pytest.raises(UnsupportedOperation, match="has no target names"):
        model.predict_names(rows)


def test_a_model_without_signature_takes_rows_as_they_are(store: str) -> None:
    model = LogisticRegression().fit([[0.0], [1.0]], ["no", "yes"])
    mlflow.sklearn.log_model(model, name="model", registered_model_name="bare", pip_requirements=[])
    loaded = load_model("bare/1")
    assert loaded.info.signature is None
    assert loaded.predict_names([[1.0]]).tolist() == ["yes"]


def test_a_model_without_probabilities_says_so(store: str) -> None:
    mlflow.sklearn.log_model(
        LinearRegression().fit([[0.0], [1.0]], [0, 1]),
        name="model",
        registered_model_name="line",
        pip_requirements=[],
    )
    with pytest.raises(UnsupportedOperation, match=r"line version 1 \(LinearRegression\)"):
        load_model("line/1").predict_proba([[1.0]])


def test_the_exported_file_predicts_the_same_without_mlflow(trained: Trained, tmp_path: Path) -> None:
    model = load_model("iris/2")
    path = tmp_path / "iris_model.joblib"
    export_joblib(model, path)
    code = (
        "import sys, warnings, joblib\n"
        "sys.modules['mlflow'] = None\n"
        "warnings.simplefilter('ignore')\n"
        f"print(joblib.load(sys.argv[1]).predict([{IRIS_ROW}])[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True)
    assert int(done.stdout) == model.predict([IRIS_ROW])[0]
    assert [p.name for p in tmp_path.iterdir()] == ["iris_model.joblib"]


def test_downloaded_files_are_removed(
    tracking_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    train(TrainParams(plots=False))
    load_model("iris@staging").predict([IRIS_ROW])
    assert list(scratch.iterdir()) == []
