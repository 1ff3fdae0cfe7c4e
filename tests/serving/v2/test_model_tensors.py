"""Which tensors a version takes and returns, for models of many kinds; each is saved and loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from mlflow.models.signature import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from sklearn.cluster import KMeans
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier

from registry_tools.errors import InputError, InputTooLarge
from registry_tools.inference.input_limits import InputLimits
from registry_tools.inference.predictor import Predictor
from registry_tools.serving.engine.batcher import Batcher
from registry_tools.serving.engine.data_plane import DataPlane
from registry_tools.serving.v2 import inference, model_tensors
from registry_tools.serving.v2.inference import InferRequest
from registry_tools.serving.v2.tensors import Tensor
from tests.support.predictors import save_and_load

pytestmark = pytest.mark.filterwarnings("ignore:.*An input example was not provided:UserWarning")

X = pd.DataFrame({"a": np.arange(12.0), "b": np.arange(12.0)[::-1]})
SIZES = pd.DataFrame({"width": X["a"] * 2, "height": X["b"] + 1})
CODES = np.arange(12) % 2
ROWS = Tensor("rows", X.head(3).to_numpy())
Save = Callable[..., Predictor]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    return partial(save_and_load, tmp_path)


def described(predictor: Predictor) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return name, datatype and shape of the inputs and of the outputs."""
    content = inference.model_metadata(predictor)
    return tuple(  # type: ignore[return-value]
        [(each["name"], each["datatype"], each["shape"]) for each in content[side]]
        for side in ("inputs", "outputs")
    )


def predict(
    predictor: Predictor,
    *inputs: Tensor,
    outputs: list[str] | None = None,
    limits: InputLimits = InputLimits(1000),  # noqa: B008 - frozen
) -> dict[str, Tensor]:
    """Return the outputs for a request."""

    async def ask() -> list[Tensor]:
        plane = DataPlane(Batcher(lambda *counts: None, lambda: 1, []), limits)
        _, found = await inference.infer(plane, predictor, InferRequest(list(inputs), outputs or []), "")
        return found

    return {tensor.name: tensor for tensor in asyncio.run(ask())}


def assert_as_described(predictor: Predictor, found: dict[str, Tensor]) -> None:
    """Check that the outputs have the names, datatypes and shapes of the metadata."""
    _, outputs = described(predictor)
    assert [(t.name, t.datatype) for t in found.values()] == [(name, kind) for name, kind, _ in outputs]
    for tensor, (_, _, shape) in zip(found.values(), outputs, strict=True):
        assert len(shape) == tensor.values.ndim
        assert all(length in (-1, size) for length, size in zip(shape, tensor.values.shape, strict=True))


@pytest.mark.parametrize("example", [None, X.head(2)])
def test_several_columns_of_the_signature_are_several_outputs(save: Save, example: Any) -> None:
    regressor = LinearRegression().fit(X, SIZES)
    predictor = save(regressor, signature=infer_signature(X, SIZES), input_example=example)
    _, outputs = described(predictor)
    assert outputs == [("width", "FP64", (-1,)), ("height", "FP64", (-1,))]
    found = predict(predictor, ROWS)
    assert_as_described(predictor, found)
    np.testing.assert_allclose(found["width"].values, SIZES["width"][:3], atol=1e-9)
    np.testing.assert_allclose(found["height"].values, SIZES["height"][:3], atol=1e-9)
    assert list(predict(predictor, ROWS, outputs=["height"])) == ["height"]
    with pytest.raises(InputError, match="'depth' is unknown; the outputs are 'width', 'height'"):
        predict(predictor, ROWS, outputs=["depth"])


@pytest.mark.parametrize("example", [None, X.head(2)])
def test_classes_of_several_outputs_are_one_tensor_without_probabilities(save: Save, example: Any) -> None:
    targets = np.column_stack([CODES, 1 - CODES])
    model = MultiOutputClassifier(LogisticRegression()).fit(X, targets)
    predictor = save(model, signature=infer_signature(X, targets), input_example=example)
    assert described(predictor)[1] == [("predict", "INT64", (-1, 2))]
    found = predict(predictor, ROWS)
    assert_as_described(predictor, found)
    assert found["predict"].values.shape == (3, 2)


class Table(mlflow.pyfunc.PythonModel):
    """Returns a table."""

    def predict(self, context, model_input, params=None):
        total = model_input["a"] + model_input["b"]
        return pd.DataFrame({"total": total, "large": total > 5, "name": total.astype(str)})


class Mapping(mlflow.pyfunc.PythonModel):
    """Returns an array for each output."""

    def predict(self, context, model_input, params=None):
        total = (model_input["a"] + model_input["b"]).to_numpy()
        return {"total": total, "large": total > 5, "name": total.astype(str).astype(object)}


@pytest.mark.parametrize("model", [Table(), Mapping()])
@pytest.mark.parametrize("example", [None, X.head(2)])
def test_a_table_is_an_output_for_each_column(save: Save, model: Any, example: Any) -> None:
    columns = [
        ColSpec(kind, name) for kind, name in (("double", "total"), ("boolean", "large"), ("string", "name"))
    ]
    signature = ModelSignature(Schema([ColSpec("double", "a"), ColSpec("double", "b")]), Schema(columns))
    predictor = save(model, signature=signature, input_example=example)
    assert described(predictor)[1] == [
        ("total", "FP64", (-1,)),
        ("large", "BOOL", (-1,)),
        ("name", "BYTES", (-1,)),
    ]
    found = predict(predictor, ROWS)
    assert_as_described(predictor, found)
    assert found["total"].values.tolist() == [11.0, 11.0, 11.0]
    assert found["large"].values.tolist() == [True, True, True]
    assert found["name"].values.tolist() == ["11.0"] * 3
    assert list(predict(predictor, ROWS, outputs=["name", "total"])) == ["name", "total"]


class Column(mlflow.pyfunc.PythonModel):
    """Returns a table of one column."""

    def predict(self, context, model_input, params=None):
        return pd.DataFrame({"total": model_input["a"] * 2})


@pytest.mark.parametrize("model", [LinearRegression().fit(X, X["a"] * 2), Column()])
@pytest.mark.parametrize("example", [None, X.head(2)])
def test_one_column_is_named_the_same_in_the_metadata_and_the_response(
    save: Save, model: Any, example: Any
) -> None:
    predictor = save(model, signature=infer_signature(X, (X["a"] * 2).rename("total")), input_example=example)
    ((name, datatype, shape),) = described(predictor)[1]
    assert (datatype, shape) == ("FP64", (-1,))
    for outputs in ([], [name]):
        found = predict(predictor, ROWS, outputs=outputs)
        assert_as_described(predictor, found)
        np.testing.assert_allclose(found[name].values, [0, 2, 4], atol=1e-9)


def test_inputs_and_outputs_have_the_datatypes_of_the_signature(save: Save) -> None:
    table = pd.DataFrame(
        {
            "single": np.arange(4, dtype=np.float32),
            "double": np.arange(4.0),
            "integer": np.arange(4, dtype=np.int32),
            "long": np.arange(4),
            "flag": [True, False, True, False],
            "text": list("abcd"),
        }
    )
    types = {"single": "float", "flag": "boolean", "text": "string"}
    columns = [ColSpec(types.get(name, name), name) for name in table]
    model = DummyClassifier().fit(table, np.arange(4, dtype=np.int32))
    signature = ModelSignature(Schema(columns), Schema([ColSpec("integer")]))
    predictor = save(model, signature=signature, input_example=table)
    inputs, outputs = described(predictor)
    assert [(name, kind) for name, kind, _ in inputs] == [
        ("single", "FP32"),
        ("double", "FP64"),
        ("integer", "INT32"),
        ("long", "INT64"),
        ("flag", "BOOL"),
        ("text", "BYTES"),
    ]
    assert outputs[0] == ("predict", "INT32", (-1,))
    tensors = [Tensor(name, table[name].to_numpy()) for name in table]
    assert_as_described(predictor, predict(predictor, *tensors))


def test_an_output_of_the_signature_is_sent_in_its_datatype(save: Save) -> None:
    model = LinearRegression().fit(X.astype(np.float32), X["a"].astype(np.float32))
    signature = infer_signature(X, model.predict(X.astype(np.float32)))
    predictor = save(model, signature=signature, input_example=X.head(2))
    assert described(predictor)[1] == [("predict", "FP32", (-1,))]
    assert_as_described(predictor, predict(predictor, ROWS))


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        (
            LogisticRegression().fit(X, CODES),
            [("predict", "INT64", (-1,)), ("predict_proba", "FP64", (-1, 2))],
        ),
        (
            LogisticRegression().fit(X, np.array(["no", "yes"])[CODES]),
            [("predict", "BYTES", (-1,)), ("predict_proba", "FP64", (-1, 2))],
        ),
        (LinearRegression().fit(X, CODES), [("predict", "FP64", (-1,))]),
        (KMeans(2, n_init=1, random_state=0).fit(X), [("predict", "INT64", (-1,))]),
    ],
)
def test_the_estimator_tells_the_outputs_without_signature_and_example(
    save: Save, model: Any, outputs: Any
) -> None:
    predictor = save(model)
    assert described(predictor) == ([("input", "FP64", (-1, -1))], outputs)


def test_a_signature_of_tensors_names_them(save: Save) -> None:
    class Add(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return {"sum": model_input["x"] + model_input["y"]}

    specs = [TensorSpec(np.dtype("float32"), (-1, 2), name) for name in "xy"]
    outputs = Schema(
        [TensorSpec(np.dtype("float32"), (-1, 2), "sum"), TensorSpec(np.dtype("int8"), (-1,), "n")]
    )
    predictor = save(Add(), signature=ModelSignature(Schema(specs), outputs))
    assert described(predictor) == (
        [("x", "FP32", (-1, 2)), ("y", "FP32", (-1, 2))],
        [("sum", "FP32", (-1, 2)), ("n", "INT8", (-1,))],
    )
    ones = np.ones((3, 2), np.float32)
    found = predict(predictor, Tensor("x", ones), Tensor("y", ones))
    assert (found["sum"].datatype, found["sum"].values.tolist()) == ("FP32", [[2.0, 2.0]] * 3)
    with pytest.raises(InputError, match="did not return 'n'"):
        predict(predictor, Tensor("x", ones), Tensor("y", ones), outputs=["n"])


@pytest.mark.parametrize(
    ("values", "datatype", "expected"),
    [
        ([None, 1.0], "FP64", np.array([np.nan, 1.0])),
        ([1, 2], "FP32", np.array([1, 2], np.float32)),
        ([1, 2**40], "INT32", np.array([1, 2**40])),  # more than the signature says
        ([1.5], "INT64", np.array([1.5])),
        ([1.0, 2.0], "INT64", np.array([1, 2])),
        (["1"], "INT64", np.array(["1"], object)),
        ([0, 2], "BOOL", np.array([0, 2])),
        ([None, "a", 1], "BYTES", np.array(["", "a", "1"], object)),
        ([None, "a"], "FP64", np.array(["", "a"], object)),
        (["a\0", "\0"], "BYTES", np.array(["a\0", "\0"], object)),
        ([["a"], ["b"]], "BYTES", np.array([["a"], ["b"]], object)),
    ],
)
def test_predictions_have_the_datatype_that_holds_them(values: Any, datatype: str, expected: Any) -> None:
    found = model_tensors.as_array(values, datatype)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


@pytest.mark.parametrize("model", [LinearRegression().fit(X, CODES), Table()])
def test_rows_over_the_limits_are_refused_before_they_are_decoded(save: Save, model: Any) -> None:
    predictor = save(model, signature=infer_signature(X, X["a"]), input_example=X.head(1))
    unknown = Tensor("unknown", np.zeros((3, 50), bool))  # which decoding refuses
    with pytest.raises(InputError, match="3 rows in one request, 2 are allowed"):
        predict(predictor, unknown, limits=InputLimits(rows=2))
    with pytest.raises(InputTooLarge, match="up to 1200 bytes, 1000 are allowed"):
        predict(predictor, unknown, limits=InputLimits(decoded=1000))


def test_predictions_that_are_not_tensors_are_described_and_refused(save: Save) -> None:
    class Uneven(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return [[1.0] * n for n in range(len(model_input))]

    predictor = save(Uneven(), signature=infer_signature(X, X["a"]), input_example=X.head(2))
    assert described(predictor)[1] == [("predict", "FP64", (-1,))]
    with pytest.raises(InputError, match="the predictions of predict are not tensors; use /invocations"):
        predict(predictor, ROWS)


def test_a_model_of_onnx_has_the_platform_of_the_specification(save: Save) -> None:
    def add_flavor(content: dict[str, Any]) -> None:
        content["flavors"]["onnx"] = {}

    assert inference.model_metadata(save(Table(), add_flavor))["platform"] == "onnx_onnxv1"


def test_outputs_that_are_not_described_well_are_texts(save: Save) -> None:
    def garble(content: dict[str, Any]) -> None:
        content["signature"]["outputs"] = '[{"type": "tensor", "tensor-spec": {"dtype": "?!", "shape": 3}}]'

    model = LinearRegression().fit(X, CODES)
    predictor = save(model, garble, signature=infer_signature(X, CODES))
    assert described(predictor)[1] == [("predict", "BYTES", (-1,))]
