"""The preparation of columns: scaling, dates, text with many values, missing text, forced types."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import sklearn
from mlflow import MlflowClient
from mlflow.pyfunc import scoring_server
from sklearn.preprocessing import StandardScaler, TargetEncoder
from sklearn.utils.fixes import parse_version

from pipeline.data.load import load_dataset
from pipeline.errors import DataError, InvalidParameter
from pipeline.params.definitions import TrainParams
from pipeline.training import preparation
from pipeline.training.fit_pipeline import fit_pipeline
from pipeline.training.preparation import column_transformer, is_scaled
from pipeline.training.train import train
from registry_tools import load_model
from registry_tools.files.tables import read_table
from registry_tools.task import REGRESSION
from tests.support.commands import run


def visits(rows: int = 300) -> pd.DataFrame:
    """Return a table with dates, codes, text with many values and missing text."""
    rng = np.random.default_rng(0)
    when = pd.Series(pd.date_range("2024-01-01 08:30", periods=rows, freq="31h"))
    colour = pd.Series(rng.choice(["red", "missing", "none at all"], rows), dtype=object)
    table = pd.DataFrame(
        {
            "when": when.dt.strftime("%Y-%m-%d %H:%M"),
            "zip": [f"{number:05d}" for number in rng.integers(1000, 1200, rows)],
            "colour": colour.where(colour != "none at all", None),
            "width": rng.normal(size=rows),
        }
    )
    weekend = (when.dt.day_of_week >= 5).to_numpy()
    return table.assign(kind=np.where(weekend, "yes", "no"))


def write(table: pd.DataFrame, folder: Path, name: str = "table.csv") -> Path:
    path = folder / name
    table.to_csv(path, index=False) if name.endswith("csv") else table.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize(
    ("factor", "model", "scale", "expected"),
    [
        (9, "logistic_regression", "auto", False),
        (11, "logistic_regression", "auto", True),
        (11, "svc", "auto", True),
        (11, "knn", "auto", True),
        (1000, "random_forest", "auto", False),
        (1000, "random_forest", "true", True),
        (1000, "knn", "false", False),
    ],
)
def test_auto_scales_for_models_that_need_it_if_columns_differ_in_magnitude(
    factor: float, model: str, scale: str, expected: bool
) -> None:
    column = np.random.default_rng(0).normal(size=100)
    features = pd.DataFrame({"small": column, "large": factor * column})
    assert is_scaled(TrainParams(model=model, scale=scale), features) is expected


def test_text_and_dates_count_as_columns_of_other_magnitude() -> None:
    column = np.random.default_rng(0).normal(size=100)
    features = pd.DataFrame({"x": column, "text": pd.Series(["a", "b"] * 50, dtype=object)})
    params = TrainParams(model="knn")
    assert not is_scaled(params, features)
    assert is_scaled(params, features.assign(x=20 * column))
    dates = pd.Series(pd.date_range("2026-01-01", periods=100).strftime("%Y-%m-%d"), dtype=object)
    assert is_scaled(params, features.assign(text=dates))


def test_the_run_says_whether_the_columns_are_scaled(store: str, tmp_path: Path) -> None:
    column = np.random.default_rng(0).normal(size=100)
    table = pd.DataFrame({"x": column, "y": 1000 * column[::-1], "kind": np.where(column > 0, "a", "b")})
    params = TrainParams(data=str(write(table, tmp_path)), target="kind", name="own", plots=False)
    client = MlflowClient()
    assert client.get_run(train(params).run_id).data.tags["scaled"] == "true"
    assert isinstance(load_model("own@staging").estimator[0], StandardScaler)
    assert client.get_run(train(TrainParams(plots=False)).run_id).data.tags["scaled"] == "false"
    assert len(load_model("iris@staging").estimator) == 1


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_served_model_takes_dates_and_codes_as_the_table_has_them(
    name: str, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = visits()
    if name.endswith("parquet"):
        table["when"] = pd.to_datetime(table["when"])
    path = write(table, tmp_path, name)
    params = TrainParams(
        data=str(path), target="kind", name="own", dtypes={"zip": "text"}, model="random_forest", plots=False
    )
    result = train(params)
    assert result.metrics["accuracy"] > 0.9  # the day of the week decides, which no other column tells
    model = load_model("own@staging")
    types = {column.name: column.type for column in model.info.signature or ()}
    assert types == {"when": "string", "zip": "string", "colour": "string", "width": "double"}
    text = {"zip"} if name.endswith("csv") else ()
    rows = read_table(path, text_columns=text).drop(columns="kind")
    assert (model.predict_names(rows) == table["kind"]).mean() > 0.95
    written = run(capsys, "predict", "own@staging", "--input", str(path))
    assert [row["prediction"] for row in written] == model.predict_names(rows).tolist()
    first = {"when": "2026-01-03", "zip": "01000", "colour": None, "width": 0.0}
    assert model.predict_names([first, {**first, "when": "2026-01-07T10:00:00"}]).tolist() == ["yes", "no"]


def test_a_code_keeps_its_zeros_with_dtypes_text(tmp_path: Path) -> None:
    params = TrainParams(data=str(write(visits(), tmp_path)), target="kind", name="own")
    assert load_dataset(params).features["zip"].dtype == "int64"
    codes = load_dataset(
        TrainParams(data=params.data, target="kind", name="own", dtypes={"zip": "text"})
    ).features["zip"]
    assert codes.str.match("0[0-9]{4}").all()


def test_dates_become_the_parts_that_vary(tmp_path: Path) -> None:
    params = TrainParams(data=str(write(visits(), tmp_path)), target="kind", name="own")
    dataset = load_dataset(params)
    days = dataset.features[["when"]].map(lambda text: text[:10])
    for features, parts in (
        (dataset.features[["when"]], ["year", "month", "day", "day_of_week", "hour"]),
        (days.iloc[:5], ["day", "day_of_week"]),
    ):
        step = column_transformer(features, params.replace(scale="false"))
        assert step is not None
        found = step.fit_transform(features, dataset.labels[: len(features)])
        assert found.shape == (len(features), len(parts))
    assert found[:2].tolist() == [[1, 0], [2, 1]]
    unknown = pd.DataFrame({"when": pd.Series([None, "31/12/2026"], dtype=object)})
    assert step.transform(unknown).tolist() == [np.median(found, axis=0).tolist()] * 2


def test_missing_text_is_a_category_of_its_own(tmp_path: Path) -> None:
    params = TrainParams(data=str(write(visits(), tmp_path)), target="kind", name="own")
    features = load_dataset(params).features[["colour"]]
    step = column_transformer(features, params.replace(scale="false"))
    assert step is not None
    step.fit(features)
    rows = pd.DataFrame({"colour": pd.Series([np.nan, "missing", "red", "new"], dtype=object)})
    encoded = step.transform(rows)
    assert encoded.sum(axis=1).tolist() == [1, 1, 1, 0]
    assert len(np.unique(encoded, axis=0)) == 4


@pytest.mark.parametrize("values", [3, 150])
def test_an_empty_text_of_parquet_is_no_missing_text(values: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [f"c{number}" for number in range(values)] * 4 + [""] * 40 + [None] * 40
    labels = [*rng.choice(["yes", "no"], 4 * values), *["yes"] * 40, *["no"] * 40]
    table = pd.DataFrame({"text": pd.Series(texts, dtype=object), "kind": labels})
    table.to_parquet(tmp_path / "texts.parquet")
    params = TrainParams(data=str(tmp_path / "texts.parquet"), target="kind", name="own")
    dataset = load_dataset(params)
    step = column_transformer(dataset.features, params.replace(scale="false"))
    assert step is not None
    step.fit(dataset.features, dataset.labels)
    rows = pd.DataFrame({"text": pd.Series(["", None, np.nan], dtype=object)})
    empty, null, missing = step.transform(rows).tolist()
    assert null == missing != empty


@pytest.mark.parametrize("values", [3, 150])
def test_the_null_of_json_is_missing_text_for_both_servers(values: int, store: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    is_missing = rng.random(400) < 0.4
    text = pd.Series([f"c{number}" for number in rng.integers(0, values, 400)], dtype=object)
    table = pd.DataFrame({"text": text.where(~is_missing, None), "x": rng.normal(size=400)})
    path = write(table.assign(kind=np.where(is_missing, "yes", "no")), tmp_path)
    train(TrainParams(data=str(path), target="kind", name="own", drop=("x",), plots=False))
    ours = load_model("own@staging")
    stock = mlflow.pyfunc.load_model("models:/own@staging")
    schema = stock.metadata.get_input_schema()
    null, known = {"text": None}, {"text": "c1"}
    for rows, expected in (([null], [1]), ([null, null], [1, 1]), ([null, known], [1, 0])):
        body = json.dumps({"dataframe_records": rows})
        response = scoring_server.invocations(body, "application/json", stock, schema)
        assert json.loads(response.response) == {"predictions": expected}
        assert ours.predict(rows).tolist() == expected


def test_text_with_many_values_is_encoded_by_the_labels_of_other_rows() -> None:
    rng = np.random.default_rng(0)
    codes = pd.Series([f"c{number}" for number in np.arange(600) % 200], dtype=object)
    features = pd.DataFrame({"code": codes})
    step = column_transformer(features, TrainParams(scale="false"))
    assert step is not None
    labels = rng.integers(0, 2, 600)
    encoded = step.fit_transform(features, labels)
    assert encoded.shape == (600, 1)
    # An encoding with the row's own label would tell it: three rows share a code.
    assert abs(np.corrcoef(encoded[:, 0], labels)[0, 1]) < 0.2
    again = column_transformer(features, TrainParams(scale="false"))
    assert (again.fit_transform(features, labels) == encoded).all()


@pytest.mark.parametrize("version", ["1.8.0", "1.9.0"])
def test_text_is_encoded_to_one_column_for_whole_numbers(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = pd.DataFrame({"code": pd.Series([f"c{number % 200}" for number in range(600)], dtype=object)})
    monkeypatch.setattr(preparation.sklearn, "__version__", version)
    params = TrainParams(data="codes.csv", target="y", name="codes", task=REGRESSION, scale="false")
    step = column_transformer(features, params)
    assert step is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the older arguments in a newer scikit-learn
        assert step.fit_transform(features, np.arange(600.0) % 90).shape == (600, 1)


def crowded(rows: int = 600) -> pd.DataFrame:
    """Return equal rows with codes of 150 values, missing values, and a whole number that codes decide."""
    rng = np.random.default_rng(0)
    code = rng.integers(0, 150, rows // 2)
    texts = pd.Series([f"c{number:03d}" for number in code], dtype=object)
    table = pd.DataFrame({"code": texts.where(rng.random(rows // 2) > 0.05, None)})
    width = pd.Series(rng.normal(size=rows // 2))
    table = table.assign(width=width.where(width < 1, None), kind=code * 2 + rng.integers(0, 3, rows // 2))
    return pd.concat([table, table], ignore_index=True)


@pytest.mark.skipif(parse_version(sklearn.__version__) < parse_version("1.9"), reason="cv takes no folds")
def test_the_encoding_by_labels_keeps_equal_rows_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = TrainParams(
        data=str(write(crowded(), tmp_path)), target="kind", name="own", task="regression", model="ridge"
    )
    dataset = load_dataset(params)
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    fit_transform = TargetEncoder.fit_transform

    def watch(self: TargetEncoder, *arguments: Any) -> np.ndarray:
        seen.extend(self.cv)
        return fit_transform(self, *arguments)

    monkeypatch.setattr(TargetEncoder, "fit_transform", watch)
    model = fit_pipeline(params, dataset.features, dataset)
    assert len(seen) == 5
    for fitted, tested in seen:
        assert not set(dataset.units[fitted]) & set(dataset.units[tested])
    encoder = model[0].named_transformers_["codes"][-1]
    assert (encoder.cv, model[0].get_params()["codes__targetencoder__cv"]) == (5, 5)


def test_codes_missing_values_and_whole_numbers_become_a_version_that_predicts(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = crowded()
    path = write(table, tmp_path)
    result = train(TrainParams(data=str(path), target="kind", name="own", plots=False))
    assert (result.task, result.version) == ("regression", 1)
    assert result.metrics["r2"] > 0.5
    model = load_model("own@staging")
    assert model.estimator[0].transform(table.drop(columns="kind")).shape == (600, 2)
    predicted = model.predict(table.drop(columns="kind"))
    assert np.corrcoef(predicted, table["kind"])[0, 1] > 0.8
    written = run(capsys, "predict", "own@staging", "--input", str(path))
    assert [row["prediction"] for row in written] == pytest.approx(predicted.tolist())


def test_types_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    table = visits().assign(day="31/12/2026")
    table.loc[0, "day"] = "2026-12-31"
    path = write(table, tmp_path)
    for values, reason in (
        ({"dtypes": {"day": "date"}}, "row 1: '31/12/2026' is no date: write 2026-01-31 or"),
        ({"dtypes": {"days": "date"}}, "dtypes=days: .* has no such column"),
    ):
        with pytest.raises(DataError, match=reason):
            load_dataset(TrainParams(data=str(path), target="kind", name="own", **values))
    numbers = write(pd.DataFrame({"x": [1, 2, 3, 4], "kind": list("aabb")}), tmp_path, "n.parquet")
    with pytest.raises(DataError, match=r"column 'x' of .* holds int64: only text becomes text"):
        load_dataset(TrainParams(data=str(numbers), target="kind", name="own", dtypes={"x": "text"}))
    with pytest.raises(InvalidParameter, match="dtypes=zip:number: must be COLUMN:TYPE"):
        TrainParams(dtypes="zip:number", data="t.csv", target="kind", name="own")
    assert TrainParams(dtypes="zip:text,a:b:date", data="t.csv", target="kind", name="own").dtypes == {
        "zip": "text",
        "a:b": "date",
    }
