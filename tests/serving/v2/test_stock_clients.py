"""The stock clients of Triton and KServe, over HTTP and gRPC, with values, bytes and texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import tritonclient.grpc
import tritonclient.http
from google.protobuf.json_format import MessageToDict
from mlflow.models.signature import ModelSignature
from mlflow.types import ColSpec, Schema
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from tests.support.constants import LONG, ROOT
from tests.support.servers import BIN, free_port
from tests.support.serving import Serve

pytestmark = pytest.mark.slow

KSERVE = "kserve==0.21.0"  # needs an older protobuf and pandas than MLflow's lock has
ANIMALS = pd.DataFrame(
    {
        "weight": [4.0, 30.5, 3.5, 25.0, 5.0, 40.0],
        "home": ["flat", "yard", "flat", "yard", "dächle 🏠", "yard"],
        "tame": [True, False, True, True, False, False],
    }
)
KINDS = np.array(["cat", "dog"] * 3)
SIZES = pd.DataFrame({"width": ANIMALS["weight"] * 2, "height": ANIMALS["weight"] + 1})
DATATYPES = {"weight": "FP64", "home": "BYTES", "tame": "BOOL"}


@pytest.fixture(params=["texts", "several"])
def served(
    request: pytest.FixtureRequest, serve: Serve, store: str
) -> tuple[str, int, int, list[str], dict[str, Any]]:
    """A model of texts, or of several outputs: its name, ports, columns and expected outputs."""
    columns = [ColSpec("double", "weight"), ColSpec("string", "home"), ColSpec("boolean", "tame")]
    if request.param == "texts":
        encoder = make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), ["home", "tame"]), remainder="passthrough"
        )
        model, table = make_pipeline(encoder, LogisticRegression()), ANIMALS
        model.fit(table, KINDS)
        signature = ModelSignature(Schema(columns), Schema([ColSpec("string")]))
        expected = {"predict": model.predict(table), "predict_proba": model.predict_proba(table)}
    else:
        table = ANIMALS[["weight"]]
        model = LinearRegression().fit(table, SIZES)
        outputs = [ColSpec("double", "width"), ColSpec("double", "height")]
        signature = ModelSignature(Schema(columns[:1]), Schema(outputs))
        expected = dict(zip(("width", "height"), model.predict(table).T, strict=True))
    mlflow.sklearn.log_model(
        model,
        name="model",
        registered_model_name=request.param,
        serialization_format="skops",
        signature=signature,
        input_example=table,
        pip_requirements=[],
    )
    mlflow.set_tracking_uri(None)
    port = free_port()
    client = serve(f"{request.param}/1", "--tracking-uri", store, "--grpc-port", str(port))
    return request.param, client.base_url.port, port, list(table), expected


def assert_equal(found: Any, expected: Any) -> None:
    values = [v.decode() if isinstance(v, bytes) else v for v in np.asarray(found).ravel().tolist()]
    wanted = np.asarray(expected).ravel().tolist()
    assert np.shape(found) == np.shape(expected)
    if isinstance(wanted[0], str):
        assert values == wanted
    else:
        np.testing.assert_allclose(values, wanted)


@LONG
@pytest.mark.parametrize("binary", [False, True])
def test_the_clients_of_triton_get_every_output(served: Any, binary: bool) -> None:
    name, http_port, grpc_port, columns, expected = served
    http = tritonclient.http.InferenceServerClient(f"127.0.0.1:{http_port}")
    grpc = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}")
    for module, client in ((tritonclient.http, http), (tritonclient.grpc, grpc)):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(name, "1")
        inputs = []
        for column in columns:
            values = ANIMALS[[column]].to_numpy(object if DATATYPES[column] == "BYTES" else None)
            inputs.append(module.InferInput(column, list(values.shape), DATATYPES[column]))
            how = {"binary_data": binary} if module is tritonclient.http else {}
            inputs[-1].set_data_from_numpy(values, **how)
        result = client.infer(name, inputs, request_id="seven")
        for output, values in expected.items():
            assert_equal(result.as_numpy(output), values)
            how = {"binary_data": not binary} if module is tritonclient.http else {}
            wanted = [module.InferRequestedOutput(output, **how)]
            one = client.infer(name, inputs, outputs=wanted)
            assert_equal(one.as_numpy(output), values)
            assert [one.as_numpy(other) for other in expected if other != output] == [None]
        described = client.get_model_metadata(name)
        if module is tritonclient.grpc:
            described = MessageToDict(described)
        assert [entry["name"] for entry in described["outputs"]] == list(expected)
        assert [(entry["name"], entry["datatype"]) for entry in described["inputs"]] == [
            (column, DATATYPES[column]) for column in columns
        ]
        client.close()


@pytest.fixture(scope="session")
def kserve_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with KServe's SDK."""
    folder = tmp_path_factory.mktemp("kserve") / "venv"
    subprocess.run([BIN / "uv", "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    command = [BIN / "uv", "pip", "install", "--quiet", "--python", python, KSERVE]
    subprocess.run(command, check=True, timeout=600)
    return python


@LONG
def test_the_clients_of_kserve_get_every_output(served: Any, kserve_python: Path) -> None:
    name, http_port, grpc_port, columns, expected = served
    inputs = [
        {
            "name": column,
            "datatype": DATATYPES[column],
            "shape": [len(ANIMALS), 1],
            "data": ANIMALS[column].tolist(),
        }
        for column in columns
    ]
    program = ROOT / "tests" / "support" / "kserve_client.py"
    done = subprocess.run(
        [kserve_python, program, str(http_port), str(grpc_port), name],
        input=json.dumps(inputs),
        capture_output=True,
        text=True,
        timeout=300,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for transport in ("http", "grpc"):
        seen = found[transport]
        assert (seen["live"], seen["ready"], seen["model_ready"]) == (True, True, True)
        for how in ("values", "bytes"):
            assert seen[how]["id"] == "seven"
            assert seen[how]["version"] == ("1" if transport == "grpc" else None)  # this client drops it
            assert list(seen[how]["outputs"]) == list(expected)
            for output, values in expected.items():
                got = seen[how]["outputs"][output]
                assert_equal(np.array(got["data"]).reshape(got["shape"]), values)
        assert list(seen["last"]["outputs"]) == list(expected)[-1:]
