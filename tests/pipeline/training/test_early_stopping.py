"""XGBoost and LightGBM: early stopping, the saved model, and the errors."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from pipeline.data.dataset import Dataset
from pipeline.data.folds import check_folds
from pipeline.data.load import load_dataset
from pipeline.data.split import split_rows
from pipeline.errors import InvalidParameter
from pipeline.params.definitions import TrainParams
from pipeline.training.checks import check_model_params
from pipeline.training.fit import fit_model
from pipeline.training.fit_pipeline import fit_and_stop_early, fit_pipeline
from pipeline.training.model_pipeline import resolve_model
from pipeline.training.train import train
from registry_tools import load_model
from registry_tools.errors import VerificationError

BOTH = pytest.mark.parametrize("model", ["xgboost", "lightgbm"])


def noisy(rows: int = 150) -> pd.DataFrame:
    """Return a table of two classes that overlap, with column names that both libraries refuse."""
    random = np.random.default_rng(0)
    table = pd.DataFrame({"x [m], {a}": random.normal(size=rows), "y<2>": random.integers(0, 9, rows)})
    table["kind"] = np.where(table["x [m], {a}"] + random.normal(size=rows) > 0, "big", "small")
    return table


def load(folder: Path, table: pd.DataFrame, **values: Any) -> tuple[Dataset, TrainParams]:
    path = folder / "table.csv"
    table.to_csv(path, index=False)
    params = TrainParams(**{"data": str(path), "target": "kind", "name": "own", "max_iter": 50, **values})
    dataset = load_dataset(params)
    return dataset, resolve_model(params, dataset)


@BOTH
def test_the_final_model_is_plain_and_fits_all_rows_with_the_best_number_of_iterations(
    tmp_path: Path, model: str
) -> None:
    dataset, params = load(tmp_path, noisy(), model=model)
    pipeline, stop = fit_and_stop_early(params, dataset.features, dataset)
    assert stop is not None
    validation = stop.losses["validation"]
    assert len(validation) == len(stop.losses["train"])
    assert stop.iterations == 1 + int(np.argmin(validation)) < 50
    assert type(pipeline[-1]).__module__ == f"{model}.sklearn"
    assert pipeline[-1].n_estimators == stop.iterations
    same = params.replace(max_iter=stop.iterations, early_stopping=None)
    expected = fit_pipeline(same, dataset.features, dataset)
    np.testing.assert_allclose(
        pipeline.predict_proba(dataset.features), expected.predict_proba(dataset.features), rtol=1e-6
    )


@BOTH
def test_without_early_stopping_all_iterations_are_trained(tmp_path: Path, model: str) -> None:
    dataset, params = load(tmp_path, noisy(), model=model, early_stopping=None, max_iter=7)
    pipeline, stop = fit_and_stop_early(params, dataset.features, dataset)
    assert stop is None
    assert pipeline[-1].n_estimators == 7


@BOTH
def test_the_latest_training_rows_decide_on_the_iterations_with_time(tmp_path: Path, model: str) -> None:
    table = noisy()
    table["at"] = range(len(table))
    late = table["at"] >= 135  # a tenth, whose labels contradict the others
    table.loc[late, "kind"] = np.where(table.loc[late, "x [m], {a}"] > 0, "small", "big")
    dataset, params = load(tmp_path, table, model=model, time="at")
    _, stop = fit_and_stop_early(params, dataset.features, dataset)
    assert stop is not None
    assert stop.iterations <= 3
    _, random = fit_and_stop_early(params.replace(time=None), dataset.features, dataset.take(np.arange(135)))
    assert random is not None
    assert random.losses["validation"][0] < stop.losses["validation"][-1]


def test_too_few_rows_for_a_validation_part_train_all_iterations_and_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, params = load(tmp_path, noisy(30), model="xgboost", max_iter=3, cv="2")
    training, holdout = (dataset.take(rows) for rows in split_rows(dataset, params.replace(test_size=20)))
    with caplog.at_level(logging.WARNING):
        fitted = fit_model(params, dataset, training, holdout)
    assert fitted.losses == {}
    assert "too few for early stopping: 3 iterations" in caplog.text


def test_an_argument_that_lightgbm_refuses_leaves_no_run(tmp_path: Path) -> None:
    dataset, params = load(tmp_path, noisy(), model="lightgbm", model_params={"num_leaves": 1})
    with pytest.raises(InvalidParameter, match=r'model_params=\{"num_leaves": 1\}: .*num_leaves'):
        check_model_params(params, dataset, trusted=())


@pytest.mark.parametrize(
    ("model", "argument"),
    [("xgboost", {"eval_metric": "mlogloss"}), ("lightgbm", {"metric": "multi_logloss"})],
)
def test_a_loss_that_does_not_fit_the_number_of_classes_leaves_no_run(
    tmp_path: Path, model: str, argument: dict[str, str]
) -> None:
    dataset, params = load(tmp_path, noisy(), model=model, model_params=argument)
    with pytest.raises(InvalidParameter, match=f"^model_params=.*{next(iter(argument.values()))}"):
        check_model_params(params, dataset, trusted=())


@pytest.mark.parametrize("name", ["n_estimators", "early_stopping_rounds", "verbosity"])
def test_arguments_that_the_training_sets_are_refused(tmp_path: Path, name: str) -> None:
    dataset, params = load(tmp_path, noisy(), model="xgboost", model_params={name: 3})
    with pytest.raises(InvalidParameter, match=f"xgboost takes no '{name}' here"):
        check_model_params(params, dataset, trusted=())


def test_xgboost_needs_all_classes_in_each_fold(tmp_path: Path) -> None:
    table = noisy().assign(at=range(150))
    table.loc[120:, "kind"] = "new"
    dataset, params = load(tmp_path, table, model="xgboost", time="at")
    with pytest.raises(InvalidParameter, match=r"cv=5: .* no 'new'"):
        check_folds(dataset, params)


def test_a_version_has_its_curves_and_its_package_and_says_if_that_is_missing(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy().to_csv(tmp_path / "table.csv", index=False)
    params = TrainParams(
        data=str(tmp_path / "table.csv"), target="kind", model="xgboost", name="noisy", plots=False, cv="2"
    )
    result = train(params)
    client = MlflowClient()
    steps = [point.step for point in client.get_metric_history(result.run_id, "loss/validation")]
    assert sorted(steps) == list(range(1, len(steps) + 1))
    assert result.metrics["iterations"] <= len(steps)
    requirements = mlflow.pyfunc.get_model_dependencies("models:/noisy@staging")
    assert "xgboost" in Path(requirements).read_text()
    for module in [name for name in sys.modules if name.partition(".")[0] == "xgboost"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        VerificationError, match=r"needs xgboost, .*: pip install 'registry-pipeline\[boosting\]'"
    ):
        load_model("noisy@staging")
    with pytest.raises(InvalidParameter, match=r"xgboost is not installed: pip install '\.\[boosting\]'"):
        train(params)
    assert len(client.search_runs([client.get_run(result.run_id).info.experiment_id])) == 1


@pytest.mark.filterwarnings("ignore:Early stopping is not available in dart mode")
@pytest.mark.parametrize(
    ("model", "more"),
    [("xgboost", {}), ("lightgbm", {}), ("lightgbm", {"model_params": {"boosting_type": "dart"}})],
)
def test_the_validation_rows_decide_also_if_all_iterations_are_trained(
    tmp_path: Path, model: str, more: dict[str, Any]
) -> None:
    dataset, params = load(tmp_path, noisy(), model=model, max_iter=12, early_stopping=12, **more)
    _, stop = fit_and_stop_early(params, dataset.features, dataset)
    assert stop is not None
    assert len(stop.losses["validation"]) == 12
    assert stop.iterations == 1 + int(np.argmin(stop.losses["validation"]))
    assert 1 < stop.iterations < 12 or more
