"""The results of a training in the store: run, model, version and stage."""

from __future__ import annotations

import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.data.load import load_dataset
from pipeline.data.split import split_rows
from pipeline.errors import DataError, InvalidParameter, RegistrationError, UntrustedType
from pipeline.estimators import ESTIMATORS, EstimatorSpec, models_of
from pipeline.params.definitions import TrainParams
from pipeline.training.model_card import run_name
from pipeline.training.plots import figures
from pipeline.training.train import train
from registry_tools import load_model
from registry_tools.errors import RegistryToolsError
from registry_tools.models import artifacts
from registry_tools.models.evidence import read_training_rows
from registry_tools.models.manifest import digest_of, manifest_of
from registry_tools.task import CLASSIFICATION
from tests.support.constants import IRIS_ROW, LONG
from tests.support.stores import Trained

METRICS = {"accuracy", "balanced_accuracy", "f1_macro", "log_loss", "roc_auc"}

PICTURES = (
    *("confusion_matrix", "learning_curve", "permutation_importance"),
    *("partial_dependence", "reliability", "roc_and_precision_recall"),
)


def test_iris_with_the_defaults_is_the_lessons_model(trained: Trained) -> None:
    result = trained.first
    assert result.metrics["accuracy"] == pytest.approx(0.9667, abs=5e-5)
    assert (result.train_rows, result.holdout_rows) == (120, 30)
    model = load_model("iris/1")
    assert model.predict([IRIS_ROW]).tolist() == [1]
    assert model.predict_names([IRIS_ROW]).tolist() == ["versicolor"]
    assert model.estimator[-1].get_params()["max_iter"] == 200


def test_a_run_has_parameters_metrics_dataset_and_artifacts(trained: Trained) -> None:
    client = MlflowClient()
    run = client.get_run(trained.first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["max_iter"] == "200"
    assert run.data.params["test_size"] == "0.2"
    arguments = {"estimator": "logistic_regression", "model.C": "1.0", "model.class_weight": "none"}
    assert arguments.items() <= run.data.params.items()
    classes = ("setosa", "versicolor", "virginica")
    per_class = {f"class/{name}/{figure}" for figure in ("precision", "recall") for name in classes}
    grouped = {"cv/accuracy_mean", "cv/accuracy_std", "train/accuracy"}
    grouped |= {"learning_curve/train", "learning_curve/holdout"}
    assert set(run.data.metrics) == METRICS | per_class | grouped
    inputs = {each.dataset.name: each for each in run.inputs.dataset_inputs}
    assert {name: each.tags[0].value for name, each in inputs.items()} == {
        "iris-training": "training",
        "iris-holdout": "holdout",
    }
    assert len(run.data.tags["data_digest"]) == 64
    paths = {
        re.sub(r"\+step\+0\+.*(?=\.)", "", item.path)
        for folder in ("evidence", "plots", "images")
        for item in client.list_artifacts(run.info.run_id, folder)
        if not item.path.endswith(".webp")
    }
    assert paths == {
        "evidence/recorded_predictions.json",
        "evidence/holdout.parquet",
        "evidence/manifest.json",
        "evidence/training_rows.npz",
        "evidence/baseline.json",
        "evidence/baseline.parquet",
        "evidence/baseline_outcomes.parquet",
        "evidence/evaluation.json",
        *(f"plots/{name}.json" for name in PICTURES),
        *(f"images/{name}.png" for name in PICTURES),
    }


def test_metrics_are_linked_to_the_model_and_to_their_rows(trained: Trained) -> None:
    client = MlflowClient(trained.uri)
    run = client.get_run(trained.first.run_id)
    model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    rows = {each.key: each.dataset_name for each in model.metrics}
    assert rows["accuracy"] == rows["class/setosa/recall"] == "iris-holdout"
    assert rows["train/accuracy"] == rows["cv/accuracy_mean"] == "iris-training"
    assert {each.dataset_digest for each in model.metrics} == {
        each.dataset.digest for each in run.inputs.dataset_inputs
    }
    assert model.params["estimator"] == "logistic_regression"
    points = client.get_metric_history(run.info.run_id, "learning_curve/holdout")
    assert [point.step for point in points] == [12, 30, 60, 90, 120]
    assert points[-1].value == pytest.approx(run.data.metrics["accuracy"], abs=1e-6)


def test_the_predictions_on_the_holdout_are_a_table(trained: Trained) -> None:
    client = MlflowClient(trained.uri)
    place = client.get_run(trained.first.run_id).info.experiment_id
    table = client.load_table(place, "holdout_predictions.json", run_ids=[trained.first.run_id])
    assert list(table)[:4] == ["label", "prediction", "probability", "sepal length (cm)"]
    assert len(table) == 30
    assert (table["label"] == table["prediction"]).mean() == pytest.approx(trained.first.metrics["accuracy"])


def test_a_model_that_is_no_better_than_the_majority_is_trained_with_a_warning(
    store: str, caplog: pytest.LogCaptureFixture
) -> None:
    train(TrainParams(max_iter=1, plots=False))
    assert "no better than always predicting 'setosa': correct on 0.3333" in caplog.text


def test_weights_that_calibration_undoes_are_reported(store: str, caplog: pytest.LogCaptureFixture) -> None:
    train(TrainParams(model="svc", model_params={"class_weight": "balanced"}, plots=False))
    assert "class_weight has almost no effect: svc has no probabilities" in caplog.text
    caplog.clear()
    train(TrainParams(model_params={"class_weight": "balanced"}, plots=False))
    assert "class_weight" not in caplog.text


def test_a_run_and_its_version_carry_a_card(trained: Trained) -> None:
    client = MlflowClient(trained.uri)
    version = client.get_model_version("iris", "1")
    run = client.get_run(trained.first.run_id)
    assert run.info.run_name == "logistic_regression"
    assert version.description == (
        "logistic_regression on iris: accuracy 0.9667 on 30 held-out rows, trained on 120."
    )
    for sentence in (
        "accuracy 0.9667 on 30 held-out rows, trained on 120",
        "1 × versicolor taken for virginica",
        "Weakest class: versicolor, recall 0.90",
        'load_model("iris/N")',
    ):
        assert sentence in run.data.tags["mlflow.note.content"]


def test_the_name_of_a_run_lists_parameters_that_differ_from_the_defaults() -> None:
    params = TrainParams(model="knn", model_params={"n_neighbors": 3}, subset_size=40)
    assert run_name(params) == "knn n_neighbors=3 subset_size=40"


def test_no_plots_are_logged_with_plots_false(store: str) -> None:
    result = train(TrainParams(plots=False))
    names = {entry.path for entry in MlflowClient().list_artifacts(result.run_id)}
    assert names == {"config.yaml", "evidence", "holdout_predictions.json"}


def test_each_plot_is_logged_with_its_values_as_json(trained: Trained) -> None:
    folder = mlflow.artifacts.download_artifacts(
        run_id=trained.first.run_id, artifact_path="plots", tracking_uri=trained.uri
    )
    numbers = {path.stem: json.loads(path.read_text()) for path in Path(folder).glob("*.json")}
    counts = np.array(numbers["confusion_matrix"]["counts"])
    assert counts.trace() / counts.sum() == pytest.approx(trained.first.metrics["accuracy"])
    curves = numbers["roc_and_precision_recall"]
    areas = [curve["roc_auc"] for curve in curves.values()]
    assert np.mean(areas) == pytest.approx(trained.first.metrics["roc_auc"])
    last = numbers["learning_curve"][-1]
    assert last["rows"] == trained.first.train_rows
    assert last["holdout"] == pytest.approx(trained.first.metrics["accuracy"], abs=1e-6)
    assert numbers["permutation_importance"][0]["column"] in {"petal length (cm)", "petal width (cm)"}


def test_the_evidence_distinguishes_training_rows_from_held_out_rows(trained: Trained) -> None:
    folder = Path(
        mlflow.artifacts.download_artifacts(
            run_id=trained.first.run_id, artifact_path="evidence", tracking_uri=trained.uri
        )
    )
    holdout = pd.read_parquet(folder / "holdout.parquet")
    training = read_training_rows(folder)
    assert training is not None
    assert len(holdout) == 30
    assert training.hashes.shape == (120,)
    assert training.columns == tuple(holdout.columns[:-1])
    # Iris has one row twice. With this seed, one copy is on each side, so the sides share only this row.
    assert np.isin(training.hash(holdout), training.hashes).sum() <= 1
    answer = json.loads((folder / "recorded_predictions.json").read_text())
    model = load_model("iris/1")
    rows = pd.DataFrame(**answer["rows"])
    assert model.predict(rows).tolist() == answer["predictions"]
    assert model.predict_proba(rows).tolist() == answer["probabilities"]


def test_a_version_carries_tags_description_and_a_digest_of_its_files(trained: Trained) -> None:
    client = MlflowClient()
    version = client.get_model_version("iris", "1")
    assert version.tags["accuracy"] == "0.9667"
    assert version.tags["data_digest"] == client.get_run(trained.first.run_id).data.tags["data_digest"]
    with artifacts.model_files(client, "iris", 1) as folder:
        files = manifest_of(folder)
    assert "MLmodel" in files
    assert version.tags["artifact_digest"] == digest_of(files)


def test_the_model_has_signature_example_pins_and_target_names(trained: Trained) -> None:
    described = mlflow.models.get_model_info("models:/iris/1")
    assert [c.type.name for c in described.signature.inputs] == ["double"] * 4
    assert described.metadata == {"target_names": ["setosa", "versicolor", "virginica"]}
    assert described.saved_input_example_info
    with artifacts.model_files(MlflowClient(), "iris", 1) as folder:
        pins = (folder / "requirements.txt").read_text().splitlines()
    assert all("==" in pin for pin in pins)
    assert {pin.partition("==")[0] for pin in pins} >= {"mlflow", "scikit-learn", "skops"}


def test_the_stage_and_its_legacy_mirror_name_the_newest_version(trained: Trained) -> None:
    client = MlflowClient()
    assert int(client.get_model_version_by_alias("iris", "staging").version) == 2
    legacy = {int(v.version): v.current_stage for v in client.search_model_versions("name='iris'")}
    assert legacy == {1: "Archived", 2: "Staging"}


@LONG
@pytest.mark.slow
def test_equal_parameters_give_bit_equal_predictions(store: str) -> None:
    params = TrainParams(model="random_forest", split="hash")
    train(params)
    train(params)
    rows = np.random.default_rng(0).uniform(0, 8, (200, 4))
    first, second = load_model("iris/1"), load_model("iris/2")
    assert first.predict_proba(rows).tobytes() == second.predict_proba(rows).tobytes()


@pytest.mark.parametrize(
    "model",
    [
        model if model == "knn" else pytest.param(model, marks=pytest.mark.slow)
        for model in models_of(CLASSIFICATION)
    ],
)
def test_every_model_logs_the_same_metrics_and_loads(model: str, store: str) -> None:
    result = train(TrainParams(model=model, max_iter=50 if "boost" in model else 200))
    assert set(result.metrics) >= METRICS
    assert result.metrics["accuracy"] >= 0.9
    loaded = load_model("iris", stage="staging")
    assert loaded.predict_names([IRIS_ROW]).tolist() == ["versicolor"]
    assert loaded.predict_proba([IRIS_ROW]).shape == (1, 3)


def test_a_table_with_text_missing_values_and_booleans(store: str, table_csv: Path) -> None:
    result = train(TrainParams(data=str(table_csv), target="kind", name="other"))
    assert result.metrics["accuracy"] > 0.8
    model = load_model("other@staging")
    raw = {"weight": 3.0, "legs": 4, "colour": "never seen", "size": None, "sold": True}
    assert model.predict_names([raw | {"tame": None}]).tolist() == ["cat"]


def test_missing_values_in_the_holdout_alone_do_not_shorten_the_learning_curve(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame({"x": random.normal(size=100), "z": random.normal(size=100)})
    table["kind"] = np.where(table["x"] > 0, "a", "b")
    path = tmp_path / "late.csv"
    table.to_csv(path, index=False)
    params = TrainParams(data=str(path), target="kind", name="late")
    held_out = split_rows(load_dataset(params), params)[1]
    table.loc[held_out[:3], "z"] = np.nan
    table.to_csv(path, index=False)
    result = train(params)
    plots = mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="plots")
    points = json.loads(Path(plots, "learning_curve.json").read_text())
    assert [point["rows"] for point in points] == [8, 20, 40, 60, 80]
    assert "learning curve" not in caplog.text


def test_a_refused_parameter_leaves_no_run_and_no_file(store: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    for params, reason in (
        (TrainParams(subset_size=2), "no row of class"),
        (TrainParams(model_params={"C": -1}), "must be a float in the range"),
        (TrainParams(model_params={"depth": 1}), "takes no 'depth' here; valid: C, class_weight"),
        (TrainParams(model_params={"max_iter": 1}), "use the parameter max_iter of the training"),
        (TrainParams(model_params={"solver": "liblinear"}), "model_params="),
        (TrainParams(test_size=150), "0 of 150 rows would be left to train on"),
        (TrainParams(model="knn", model_params={"n_neighbors": 100}), "a fold has only 95 training rows"),
        (TrainParams(model="knn", model_params={"n_neighbors": None}), "a whole number"),
        (TrainParams(model="knn", model_params={"metric": "canberra"}), "are not trusted"),
    ):
        with pytest.raises(InvalidParameter, match=reason):
            train(params)
    with pytest.raises(DataError, match="no such file or folder"):
        train(TrainParams(data="none.csv", target="kind", name="own"))
    assert sorted(tmp_path.iterdir()) == before
    assert MlflowClient().search_experiments(filter_string="name = 'iris'") == []


def test_a_new_estimator_is_a_table_entry_and_needs_its_types_trusted(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REGISTRY_TOOLS_TRUST", raising=False)
    own = EstimatorSpec(f"{__name__}:scaled_network", takes=("network__max_iter", "network__random_state"))
    monkeypatch.setitem(ESTIMATORS, "own", own)
    params = TrainParams(model="own", plots=False)
    optimizer = "sklearn.neural_network._stochastic_optimizers.AdamOptimizer"
    with pytest.raises(UntrustedType, match=f"REGISTRY_TOOLS_TRUST={optimizer} for the training"):
        train(params)
    assert MlflowClient().search_registered_models() == []
    monkeypatch.setenv("REGISTRY_TOOLS_TRUST", optimizer)
    train(params)
    network = load_model("iris@staging").estimator[-1][-1]
    assert (network.max_iter, network.random_state) == (200, 42)


class First(ClassifierMixin, BaseEstimator):
    """An estimator that predicts the first class, without probabilities and decision values."""

    def fit(self, features: object, labels: object) -> First:
        self.classes_ = np.unique(labels)
        return self

    def predict(self, features: list) -> np.ndarray:
        return np.full(len(features), self.classes_[0])


def test_a_custom_estimator_class_needs_only_predict(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_TOOLS_TRUST", f"{__name__}.First")
    monkeypatch.setitem(ESTIMATORS, "own", EstimatorSpec(f"{__name__}:First", takes=()))
    assert train(TrainParams(model="own")).metrics["accuracy"] == pytest.approx(1 / 3)
    assert load_model("iris@staging").predict_names([IRIS_ROW]).tolist() == ["setosa"]


def scaled_network() -> Pipeline:
    return Pipeline([("scale", StandardScaler()), ("network", MLPClassifier())])


def test_a_legacy_mirror_that_fails_does_not_fail_the_training(
    store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("no such stage")

    monkeypatch.setattr(MlflowClient, "transition_model_version_stage", refuse)
    train(TrainParams(plots=False))
    assert "the legacy stages of iris were not set" in caplog.text
    assert int(MlflowClient().get_model_version_by_alias("iris", "staging").version) == 1


def test_a_version_that_cannot_be_registered_leaves_no_empty_model(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("quota")

    monkeypatch.setattr(MlflowClient, "create_model_version", refuse)
    with pytest.raises(RegistryToolsError, match="quota"):
        train(TrainParams(plots=False))
    assert MlflowClient().search_registered_models() == []


@pytest.mark.parametrize("suffix", [pytest.param(".csv", marks=pytest.mark.slow), ".parquet"])
def test_the_registered_model_takes_the_raw_table(suffix: str, store: str, table_csv: Path) -> None:
    path = table_csv.with_suffix(suffix)
    if suffix == ".parquet":
        pd.read_csv(table_csv).to_parquet(path)
    train(TrainParams(data=str(path), target="kind", name="other"))
    raw = pd.read_csv(table_csv) if suffix == ".csv" else pd.read_parquet(path)
    mine = load_model("other@staging").predict_names(raw)
    generic = mlflow.pyfunc.load_model("models:/other@staging")
    names = np.array(load_model("other/1").info.target_names)
    assert mine.tolist() == names[generic.predict(raw)].tolist()
    assert (mine == raw["kind"]).mean() > 0.9
    assert {c.name: c.type for c in load_model("other/1").info.signature or ()} == {
        "weight": "double",
        "legs": "long",
        "size": "double",
        "colour": "string",
        "sold": "boolean",
        "tame": "boolean",
    }


def test_a_subset_is_logged_as_other_data_than_its_table(store: str) -> None:
    client = MlflowClient()
    digests = {
        client.get_run(train(params).run_id).inputs.dataset_inputs[0].dataset.digest
        for params in (TrainParams(plots=False), TrainParams(plots=False, subset_size=60))
    }
    assert len(digests) == 2


@pytest.mark.slow
def test_a_failure_before_the_stage_leaves_no_version(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    train(TrainParams(plots=False))

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(figures, figures.confusion_matrix.__name__, fail)
    with pytest.raises(OSError, match="no space"):
        train(TrainParams(max_iter=100))
    client = MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("iris").experiment_id])
    assert [run.info.status for run in runs] == ["FAILED", "FINISHED"]
    assert len(client.search_model_versions("name='iris'")) == 1
    assert int(client.get_model_version_by_alias("iris", "staging").version) == 1


def test_a_stage_that_cannot_be_set_stays_and_the_error_names_the_version(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(TrainParams(plots=False))

    def refuse(*_: object) -> None:
        raise MlflowException("read only")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", refuse)
    with pytest.raises(RegistrationError, match="iris version 2 is registered, but stage staging"):
        train(TrainParams(plots=False))
    monkeypatch.undo()
    client = MlflowClient(store)
    assert int(client.get_model_version_by_alias("iris", "staging").version) == 1
    run = client.get_run(client.get_model_version("iris", "2").run_id)
    assert run.info.status == "FAILED"


def test_an_unreadable_store_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, but long enough to look at " * 50)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(RegistryToolsError, match="file is not a database"):
        train(TrainParams(plots=False))
