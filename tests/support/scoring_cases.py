"""Requests of MLflow's scoring protocol, and the kinds of models to which the tests send them.

The requests cover the same topics as MLflow's own tests of its scoring server: malformed bodies, every
orientation of a table, content types and their parameters, tensors, types of a schema, parameters, and
the bodies of language models.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from tests.support.python_models import echo, hinted
from tests.support.side_by_side import CSV, JSON, PARQUET, save_sklearn

NUMERIC, TEXT, PARAMS, TENSOR, HINTS = (
    *("scikit-learn, numbers", "scikit-learn, text", "pyfunc with params"),
    *("tensor signature", "pyfunc with type hints"),
)


@dataclass(frozen=True)
class Case:
    """One request."""

    name: str
    body: bytes = b""
    kind: str | None = JSON
    path: str = "/invocations"
    method: str = "POST"


@dataclass(frozen=True)
class Kind:
    """One kind of model: a function that saves it, two valid rows, and additional requests."""

    save: Callable[[Path], None]
    rows: pd.DataFrame
    cases: tuple[Case, ...] = field(default=())


def save_numeric(folder: Path) -> None:
    features, labels = load_iris(return_X_y=True, as_frame=True)
    save_sklearn(KNeighborsClassifier().fit(features, labels), folder, features, {"mood": "good"})


def save_text(folder: Path) -> None:
    table = pd.DataFrame({"text": ["good film", "bad plot"] * 5, "stars": [5.0, 1.0] * 5})
    prepare = ColumnTransformer([("text", TfidfVectorizer(), "text"), ("stars", "passthrough", ["stars"])])
    save_sklearn(make_pipeline(prepare, LogisticRegression()).fit(table, [1, 0] * 5), folder, table)


def save_params(folder: Path) -> None:
    params = {"method": "plain", "limit": 3, "share": 0.5}
    # To infer the signature from a list of text, MLflow would import Spark if it is installed.
    signature = ModelSignature(
        outputs=Schema([ColSpec("string")]), params=infer_signature(params=params).params
    )
    mlflow.pyfunc.save_model(
        folder, python_model=echo(), signature=signature, input_example=["text"], pip_requirements=[]
    )


def save_tensor(folder: Path) -> None:
    features, labels = load_iris(return_X_y=True)
    save_sklearn(KNeighborsClassifier().fit(features[:, :2], labels), folder, features[:, :2])


def save_hints(folder: Path) -> None:
    mlflow.pyfunc.save_model(folder, python_model=hinted(), input_example=[{"a": 1.0}], pip_requirements=[])


def as_json(**content: Any) -> bytes:
    return json.dumps(content).encode()


def as_parquet(table: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    table.to_parquet(file)
    return file.getvalue()


def common_cases(rows: pd.DataFrame) -> list[Case]:
    """Return the requests that are sent to every kind of model, with rows of that model."""
    split = rows.to_dict("split")
    records, columns = rows.to_dict("records"), rows.to_dict("list")
    values = rows.to_numpy().tolist()
    body = as_json(dataframe_split=split)
    reversed_split = rows[rows.columns[::-1]].to_dict("split")
    return [
        Case("split", body),
        Case("split, charset utf-8", body, f"{JSON}; charset=UTF-8"),
        Case("split, charset utf-16", body, f"{JSON}; charset=utf-16"),
        Case("split, another parameter of the type", body, f"{JSON}; something=something"),
        Case("no content type", body, None),
        Case("unknown content type", body, "not_a_supported_content_type"),
        Case("split, columns in another order", as_json(dataframe_split=reversed_split)),
        Case("split, one column more", as_json(dataframe_split=rows.assign(more=1).to_dict("split"))),
        Case("split, one column less", as_json(dataframe_split=rows.iloc[:, 1:].to_dict("split"))),
        Case("split without columns", as_json(dataframe_split={"data": values})),
        Case("split without data", as_json(dataframe_split={"columns": list(rows)})),
        Case("split, an unknown key in it", as_json(dataframe_split={**split, "dtype": "float"})),
        Case("split, index of another length", as_json(dataframe_split={**split, "index": [1, 2, 3]})),
        Case("split, rows of several lengths", as_json(dataframe_split={**split, "data": [[1], [1, 2]]})),
        Case("split, no rows", as_json(dataframe_split={**split, "data": [], "index": []})),
        Case("split, a list of records", as_json(dataframe_split=records)),
        Case("split, text for each value", as_json(dataframe_split=rows.astype(str).to_dict("split"))),
        Case("split, null for each value", as_json(dataframe_split={**split, "data": [[None] * len(split)]})),
        Case("split, NaN", as_json(dataframe_split={**split, "data": [[float("nan")] * rows.shape[1]] * 2})),
        Case(
            "split, infinity",
            as_json(dataframe_split={**split, "data": [[float("inf")] * rows.shape[1]] * 2}),
        ),
        Case(
            "split, integers of 30 digits",
            as_json(dataframe_split={**split, "data": [[10**30] * rows.shape[1]] * 2}),
        ),
        Case("records", as_json(dataframe_records=records)),
        Case("records, an object", as_json(dataframe_records=split)),
        Case(
            "records, a key missing in one",
            as_json(dataframe_records=[records[0], dict([*records[1].items()][1:])]),
        ),
        Case("instances, records", as_json(instances=records)),
        Case("instances, lists", as_json(instances=values)),
        Case("instances, columns", as_json(instances=columns)),
        Case("instances, columns of several lengths", as_json(instances={**columns, next(iter(rows)): [1]})),
        Case("inputs, records", as_json(inputs=records)),
        Case("inputs, lists", as_json(inputs=values)),
        Case("inputs, columns", as_json(inputs=columns)),
        Case("inputs, one value", as_json(inputs=1)),
        Case("inputs, addresses", as_json(inputs=["http://foo.example", "aaa://bbb", "address:/path"])),
        Case("instances and signature_name", as_json(instances=values, signature_name="serving_default")),
        Case("inputs and an unknown key", as_json(inputs=values, note="x")),
        Case("two formats", as_json(dataframe_records=[], dataframe_split={"data": []})),
        Case("no format", as_json(nothing="a serialized table")),
        Case("empty object", b"{}"),
        Case("a number", b"1"),
        Case("a text", b'"1"'),
        Case("a list", b"[1]"),
        Case("not JSON", b"this is,,,, not valid json"),
        Case("not UTF-8", b'{"inputs": "\xff"}'),
        Case("an integer of 5,000 digits", b'{"inputs": [1%s]}' % (b"0" * 5000)),
        Case("100,000 brackets", b"[" * 100_000),
        Case("empty JSON body", b""),
        Case("params, unknown", as_json(dataframe_split=split, params={"unknown": "value"})),
        Case("params, empty", as_json(dataframe_split=split, params={})),
        Case("params, null", as_json(dataframe_split=split, params=None)),
        Case("params, no object", as_json(dataframe_split=split, params=[1])),
        Case("params, method", as_json(dataframe_split=split, params={"method": "predict"})),
        Case("messages", as_json(messages=[{"role": "user", "content": "hello"}])),
        Case("prompt", as_json(prompt="hello")),
        Case("input", as_json(input=["hello", "there"])),
        Case("messages and params", as_json(messages=[], params={"unknown": 1}, limit=2)),
        Case("CSV", rows.to_csv(index=False).encode(), CSV),
        Case("CSV, charset utf-8", rows.to_csv(index=False).encode(), f"{CSV}; charset=utf-8"),
        Case("CSV with an index", rows.to_csv().encode(), CSV),
        Case("CSV without a header", rows.to_csv(index=False, header=False).encode(), CSV),
        Case("CSV, one column less", rows.iloc[:, 1:].to_csv(index=False).encode(), CSV),
        Case("CSV, a word for each value", rows.map(lambda _: "wide").to_csv(index=False).encode(), CSV),
        Case(
            "CSV, a missing value",
            (",".join(map(str, rows)) + "\n" + "," * (rows.shape[1] - 1) + "\n").encode(),
            CSV,
        ),
        Case("CSV, not UTF-8", b"\xff\n1", CSV),
        Case("CSV, empty", b"", CSV),
        Case("Parquet", as_parquet(rows), PARQUET),
        Case("Parquet, one column less", as_parquet(rows.iloc[:, 1:]), PARQUET),
        Case("Parquet, broken", b"PAR1", PARQUET),
        Case("Parquet, empty", b"", PARQUET),
        Case("GET /ping", path="/ping", method="GET"),
        Case("GET /health", path="/health", method="GET"),
        Case("GET /version", path="/version", method="GET"),
        Case("HEAD /ping", path="/ping", method="HEAD"),
        Case("POST /ping", path="/ping"),
        Case("GET /invocations", path="/invocations", method="GET"),
        Case("POST /invocations/", body, path="/invocations/"),
        Case("GET /ping/", path="/ping/", method="GET"),
        Case("GET /unknown", path="/unknown", method="GET"),
    ]


_IRIS = pd.DataFrame([[6.0, 2.5, 4.5, 1.5], [5.0, 3.4, 1.5, 0.2]], columns=load_iris().feature_names)
_TEXT = pd.DataFrame({"text": ["good", "bad plot"], "stars": [4.0, 2.0]})
_PLAIN = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
KINDS = {
    NUMERIC: Kind(
        save_numeric,
        _IRIS,
        (
            Case("declared param", as_json(dataframe_split=_IRIS.to_dict("split"), params={"mood": "bad"})),
            Case(
                "declared param of another type", as_json(inputs=_IRIS.to_dict("records"), params={"mood": 7})
            ),
        ),
    ),
    TEXT: Kind(save_text, _TEXT),
    PARAMS: Kind(
        save_params,
        _PLAIN,
        (
            Case("declared params", as_json(inputs=[1], params={"method": "other", "limit": 5})),
            Case("declared param of another type", as_json(inputs=[1], params={"limit": "many"})),
            Case("messages and a declared param", as_json(messages=[{"role": "user"}], limit=7)),
        ),
    ),
    TENSOR: Kind(save_tensor, _IRIS.iloc[:, :2].set_axis([0, 1], axis=1)),
    HINTS: Kind(
        save_hints,
        _PLAIN,
        (
            Case("inputs, integers", as_json(inputs=[{"a": 1, "b": 2}, {"c": 10**30}])),
            Case("inputs, no rows", as_json(inputs=[])),
            Case("inputs, a text", as_json(inputs=[{"a": "x"}])),
        ),
    ),
}
