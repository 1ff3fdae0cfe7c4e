"""The predictions of a version for a batch: their columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from registry_tools.data.arrow_coercion import coerce_batch
from registry_tools.data.schema import Column
from registry_tools.errors import InputError, UnsupportedOperation
from registry_tools.inference.batch_predictor import BatchPredictor
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.predictor import Predictor
from registry_tools.models.loaded_model import LoadedModel, ModelInfo

COLUMNS = (Column("a", "double"), Column("b", "double"))
X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["a", "b"])


def batch_predictor(codes: Any, names: tuple[str, ...] | None) -> BatchPredictor:
    """Return the predictor of a model that was trained on these classes."""
    estimator = LogisticRegression().fit(X, codes)
    info = ModelInfo("m", 1, None, None, None, names, COLUMNS)
    artifact = ModelArtifact(folder="", name="m", version=1, stage=None, run_id=None, digest=None)
    reader: Any = None
    model = LoadedModel(info, estimator)
    predictor = Predictor(artifact, model, None, reader, estimator)
    return BatchPredictor(predictor, proba=True)


@pytest.mark.parametrize("rows", [60, 0])
@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ([0, 2], ("none", "some", "all")),
        ([0, 1], ("none", "some", "all")),
        ([1, 2], ("none", "some", "all")),
        ([0, 1, 2], ("none", "some", "all")),
        ([False, True], ("none", "some")),
        ([0, 2], None),
        (["zed", "alpha"], None),
    ],
)
def test_probability_columns_are_named_after_their_class(
    classes: list[Any], names: tuple[str, ...] | None, rows: int
) -> None:
    predictor = batch_predictor([classes[row % len(classes)] for row in range(len(X))], names)
    found, bad = predictor.predict(coerce_batch(pa.RecordBatch.from_pandas(X[:rows]), COLUMNS, False))
    estimator = predictor.predictor.estimator
    wanted = {str(name): np.zeros(rows) for name in names or ()}
    for place, code in enumerate(estimator.classes_.tolist()):
        name = names[code] if names and code < len(names) else str(code)
        wanted[name] = estimator.predict_proba(X)[:rows, place]
    assert predictor.probability_columns == [f"probability_{name}" for name in wanted]
    assert not bad
    for name, values in wanted.items():
        assert found.column(f"probability_{name}").to_pylist() == values.tolist()
    assert predictor.predictor.model.class_names == tuple(
        names[code] if names and code < len(names) else str(code) for code in estimator.classes_.tolist()
    )


def test_rows_that_the_model_refuses_are_found_unless_it_refuses_very_many() -> None:
    predictor = batch_predictor([row % 2 for row in range(len(X))], None)
    table = pd.concat([X] * 40, ignore_index=True)
    table.loc[[0, 7, 1300, 2399], "b"] = np.nan  # the coercion leaves missing values to the model
    optional = (COLUMNS[0], Column("b", "double", required=False))
    found, refused = predictor.predict(coerce_batch(pa.RecordBatch.from_pandas(table), optional, False))
    assert list(refused) == [0, 7, 1300, 2399]
    assert all(
        reason.startswith("the model cannot take it: Input X contains NaN") for reason in refused.values()
    )
    wanted = predictor.predictor.estimator.predict(table.dropna())
    assert found.column("prediction").to_pylist() == wanted.tolist()
    table["b"] = np.nan
    with pytest.raises(InputError, match="Input X contains NaN"):
        predictor.predict(coerce_batch(pa.RecordBatch.from_pandas(table), optional, False))


def test_classes_of_one_name_have_no_columns_of_probabilities() -> None:
    predictor = batch_predictor([row % 2 for row in range(len(X))], ("same", "same"))
    with pytest.raises(UnsupportedOperation, match="does not name its classes, each by a name of"):
        _ = predictor.probability_columns
