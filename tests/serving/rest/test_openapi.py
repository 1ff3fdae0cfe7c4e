"""The description at `/openapi.json`, and requests that schemathesis generates from it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

from tests.support.constants import IRIS_COLUMNS, IRIS_ROW, IS_LONG, ROOT
from tests.support.registries import Place
from tests.support.servers import BIN
from tests.support.serving import Serve
from tests.support.text_models import register_working_text_model

SECONDS = 120 if IS_LONG else 20
# MLflow converts and ignores much of what no schema allows, and so does this server.
CONFIG = """
[[operations]]
include-path = "/invocations"
checks.negative_data_rejection.enabled = false
"""


def numeric_model(place: Place) -> tuple[str, pd.DataFrame]:
    return "trained/1", pd.DataFrame([IRIS_ROW], columns=IRIS_COLUMNS)


def text_model(place: Place) -> tuple[str, pd.DataFrame]:
    mlflow.set_tracking_uri(place.uri)
    return register_working_text_model("texts"), pd.DataFrame({"text": ["good film"]})


@pytest.mark.slow
@pytest.mark.parametrize("register", [numeric_model, text_model])
def test_schemathesis_finds_no_mismatch_between_description_and_server(
    serve: Serve, local: Place, tmp_path: Path, register: Callable[[Place], tuple[str, pd.DataFrame]]
) -> None:
    if not (BIN / "schemathesis").exists():
        pytest.skip("schemathesis needs Python 3.11")
    ref, table = register(local)
    table.to_parquet(tmp_path / "rows.parquet")
    table.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    client = serve(ref)
    hooks = {
        "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks",
        "BODIES": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [
            *(BIN / "schemathesis", "run", str(client.base_url.join("/openapi.json"))),
            *("--seed", "1", "--max-time", str(SECONDS), "--continue-on-failure"),
        ],
        cwd=tmp_path,
        env=os.environ | hooks,
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    assert "8 selected / 8 total" in done.stdout


@pytest.mark.slow
def test_the_examples_of_a_model_of_tensors_are_accepted(serve: Serve, local: Place) -> None:
    mlflow.set_tracking_uri(local.uri)
    rows = np.array([[0.1, 0.2], [0.9, 0.8], [0.2, 0.1]])
    model = LogisticRegression().fit(rows, [0, 1, 0])
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name="tensors",
            signature=infer_signature(rows, model.predict(rows)),
            input_example=rows,
            serialization_format="skops",
            pip_requirements=[],
        )
    client = serve("tensors/1")
    described = client.get("/openapi.json").json()
    posts = {path: o["post"] for path, o in described["paths"].items() if "post" in o}
    assert len(posts) == 3
    for path, operation in posts.items():
        example = operation["requestBody"]["content"]["application/json"]["example"]
        reply = client.post(path, json=example)
        assert reply.status_code == 200, (path, example, reply.text)
    proba = client.post("/predict", json={"features": [0.1, 0.2], "proba": True}).json()
    assert set(proba["probabilities"]) == {"0", "1"}
