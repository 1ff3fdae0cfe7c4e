"""Requests that only MLflow's code can decode get its response, and none expands beyond the budget."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor

from registry_tools.models.trust_policy import TrustPolicy
from tests.support import scoring_cases
from tests.support.python_models import echo
from tests.support.scoring_cases import as_json
from tests.support.side_by_side import CSV, JSON, PARQUET, Ask, save_sklearn, side_by_side

TABLE = pd.DataFrame({"a": np.arange(9.0), "b": np.arange(9.0)})


@pytest.fixture
def python_function(tmp_path: Path) -> Ask:
    scoring_cases.save_params(tmp_path / "model")
    return side_by_side(tmp_path, trust_policy=TrustPolicy(allow_code=True))


@pytest.mark.parametrize(
    "content",
    [
        {"inputs": [1, 2**70]},
        {"messages": [{"role": "user", "content": "hello"}], "params": {"method": "kept"}, "limit": 7},
        {"prompt": "hello"},
        {"input": [float("nan"), float("-inf")]},
        {"inputs": [1], "params": {"method": "other", "limit": 5}},
        {"inputs": [1], "params": {}},
    ],
)
def test_a_python_function_gets_the_values_and_params_that_mlflow_passes(
    python_function: Ask, content: dict[str, Any]
) -> None:
    ours, theirs = python_function(as_json(**content))
    assert (ours.status_code, theirs.status_code) == (200, 200), ours.text
    assert ours.headers["content-type"] == theirs.headers["content-type"] == JSON
    assert json.loads(ours.text, parse_constant=str) == json.loads(theirs.text, parse_constant=str)
    assert "Infinity" in ours.text
    if "params" in content and "inputs" in content:
        method = content["params"].get("method", "plain")
        assert ours.json()["predictions"][0]["params"]["method"] == method


def test_empty_params_reach_a_model_that_declares_none(tmp_path: Path) -> None:
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=echo(), pip_requirements=[])
    ask = side_by_side(tmp_path, trust_policy=TrustPolicy(allow_code=True))
    for params in ({}, None):
        ours, theirs = ask(as_json(inputs=[1], params=params))
        assert ours.json()["predictions"][0]["params"] == params
        assert theirs.json()["predictions"][0]["params"] == params


def test_a_param_that_a_scikit_learn_model_declares_is_checked(tmp_path: Path) -> None:
    scoring_cases.save_numeric(tmp_path / "model")
    ask = side_by_side(tmp_path)
    rows = scoring_cases.KINDS[scoring_cases.NUMERIC].rows.to_dict("records")
    ours, theirs = ask(as_json(inputs=rows, params={"mood": "bad"}))
    assert ours.json() == theirs.json() == {"predictions": [1, 0]}
    for content in ({"inputs": rows, "params": {"mood": 7}}, {"inputs": [{"unknown": 1}]}):
        ours, theirs = ask(as_json(**content))
        assert (ours.status_code, theirs.status_code) == (400, 400)
        assert ours.json()["error_code"] == theirs.json()["error_code"] == "INVALID_PARAMETER_VALUE"


def test_a_prediction_that_json_cannot_hold_is_written_as_mlflow_writes_it(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(TABLE, TABLE["a"])
    fitted.coef_ = np.array([np.inf, 1.0])
    save_sklearn(fitted, tmp_path / "model", TABLE)
    ask = side_by_side(tmp_path)
    ours, theirs = ask(as_json(inputs=[{"a": 1.0, "b": 1.0}]))
    assert ours.json() == theirs.json() == {"predictions": [float("inf")]}


@pytest.mark.parametrize("path", ["/invocations/", "/ping/", "/health/", "/version/"])
def test_a_slash_at_the_end_is_redirected_as_by_mlflow(path: str, local_numbers: Ask) -> None:
    ours, theirs = local_numbers(b"{}", JSON, path, "POST" if path == "/invocations/" else "GET")
    assert (ours.status_code, theirs.status_code) == (307, 307)
    assert theirs.headers["location"] == f"http://localhost{ours.headers['location']}"


@pytest.fixture
def local_numbers(tmp_path: Path) -> Ask:
    save_sklearn(LinearRegression().fit(TABLE, TABLE["a"]), tmp_path / "model", TABLE)
    return side_by_side(tmp_path, max_body=1 << 20)


def test_a_body_that_expands_beyond_the_budget_is_refused_before_it_does(tmp_path: Path) -> None:
    save_sklearn(LinearRegression().fit(TABLE, TABLE["a"]), tmp_path / "model", TABLE)
    ask = side_by_side(tmp_path, max_body=1 << 20, max_rows=10**9)
    file = io.BytesIO()
    pd.DataFrame(dict.fromkeys("ab", np.zeros(1_000_000))).to_parquet(file)
    rest = {"a": 1, "b": 2}
    wide = ",".join(["a", "b", *map(str, range(2_000))]) + "\n"
    for body, kind in (
        (file.getvalue(), PARQUET),
        ((wide + "1,2\n" * 2_000).encode(), CSV),
        (as_json(dataframe_records=[rest, *({**rest, str(n): 1} for n in range(2_000))]), JSON),
    ):
        assert len(body) < 1 << 17
        ours, theirs = ask(body, kind)
        assert (ours.status_code, theirs.status_code) == (413, 200)
        assert "8388608 are allowed: send them in parts" in ours.json()["message"]


def test_a_prediction_without_a_class_name_is_refused_and_the_reason_is_given(tmp_path: Path) -> None:
    fitted = KNeighborsRegressor(n_neighbors=2).fit(TABLE, [0, 0, 1, 1, 1, 1, 1, 1, 1])
    save_sklearn(fitted, tmp_path / "model", TABLE, metadata={"target_names": ["no", "yes"]})
    ask = side_by_side(tmp_path)
    ours, _ = ask(b'{"features": [8, 8]}', JSON, "/predict")
    assert ours.json() == {"prediction": "yes", "prediction_index": 1}
    ours, _ = ask(b'{"features": [1.5, 1.5]}', JSON, "/predict")
    assert ours.status_code == 400
    assert "predicts 0.5, and its class names are those of the codes 0 to 1" in ours.json()["error"]
    assert ask(as_json(inputs=[{"a": 1.5, "b": 1.5}]))[0].json() == {"predictions": [0.5]}
