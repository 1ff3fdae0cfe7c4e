"""A version with a tensor signature scores files, whose columns it takes by position."""

from __future__ import annotations

import warnings
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from registry_tools import score
from registry_tools.errors import InputError, UnsupportedOperation
from tests.support.constants import IRIS_COLUMNS

ROWS, LABELS = load_iris(return_X_y=True)


def register(name: str, dtype: str) -> LogisticRegression:
    """Register a version that takes a tensor of a NumPy type."""
    rows = (10 * ROWS).astype(dtype)
    fitted = LogisticRegression(max_iter=1000).fit(rows, LABELS)
    with mlflow.start_run(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # integer columns cannot have missing values
        mlflow.sklearn.log_model(
            fitted,
            name="model",
            registered_model_name=name,
            signature=infer_signature(rows, LABELS),
            pip_requirements=[],
            serialization_format="skops",
        )
    return fitted


@pytest.mark.parametrize(
    ("dtype", "columns", "bad", "reason"),
    [
        ("float32", IRIS_COLUMNS, "", "the model cannot take these rows"),
        ("int64", list("abcd"), "", "column 'a': missing value, and the model needs one"),
        ("int64", list("abcd"), "1.5", "column 'a': '1.5' is not a whole number that long holds"),
    ],
)
def test_the_columns_of_a_file_are_taken_by_position(
    dtype: str, columns: list[str], bad: str, reason: str, store: str
) -> None:
    fitted = register("petals", dtype)
    table = pd.DataFrame((10 * ROWS).astype(dtype), columns=columns)
    table.astype(object).replace({columns[0]: {table.iloc[0, 0]: bad}}).to_csv("rows.csv", index=False)
    found = score(
        "petals/1", input="rows.csv", output="out.csv", rejects="rejects.csv", proba=True, workers=1
    )
    kept = table[table.iloc[:, 0] != table.iloc[0, 0]]
    assert (found.rows, found.rejected) == (len(kept), len(table) - len(kept))
    written = pd.read_csv("out.csv")
    assert written["prediction"].tolist() == fitted.predict(kept.to_numpy()).tolist()
    probabilities = written[["probability_0", "probability_1", "probability_2"]].to_numpy()
    assert probabilities == pytest.approx(fitted.predict_proba(kept.to_numpy()), abs=1e-5)
    assert pd.read_csv("rejects.csv")["reason"].tolist()[0] == f"rows.csv: row 0: {reason}"


def test_a_file_with_more_or_fewer_columns_is_refused_before_a_row_is_read(store: str) -> None:
    register("petals", "float64")
    pd.DataFrame(np.ones((2, 5)), columns=list("abcde")).to_parquet("rows.parquet")
    fault = r"rows.parquet: 5 columns, 4 are needed: .*by position; the file has 'a', 'b'"
    with pytest.raises(InputError, match=fault):
        score("petals/1", input="rows.parquet", output="out.csv", workers=1)
    assert not Path("out.csv").exists()


def test_a_tensor_of_a_type_that_no_column_has_is_refused_with_the_types_that_are_scored(store: str) -> None:
    register("petals", "uint8")
    pd.DataFrame(np.ones((2, 4)), columns=list("abcd")).to_csv("rows.csv", index=False)
    fault = "tensor uint8 .*: files are scored with float64, float32, int64, int32 only; use predict"
    with pytest.raises(UnsupportedOperation, match=fault):
        score("petals/1", input="rows.csv", output="out.csv", workers=1)
