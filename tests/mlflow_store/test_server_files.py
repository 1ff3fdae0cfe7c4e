from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from registry_tools.mlflow_store.user_credentials import from_server

SERVER = "https://mlflow.example.org"


@pytest.mark.parametrize(
    "address",
    [
        "file:///home/console",
        "/home/console",
        "s3://bucket/model",
        "http://evil.example/model",
        "mlflow-artifacts://evil.example/model",
        "mlflow-artifacts://mlflow.example.org:8443/model",
    ],
)
def test_other_places_than_the_server_are_refused(address: str) -> None:
    with pytest.raises(MlflowException, match="not read for other users"):
        from_server(address, SERVER)


@pytest.mark.parametrize("address", ["mlflow-artifacts:/1/model", "mlflow-artifacts://mlflow.example.org/1"])
def test_the_server_itself_is_accepted(address: str) -> None:
    found = from_server(address, SERVER)
    assert found.artifact_uri.startswith(f"{SERVER}/api/2.0/mlflow-artifacts/artifacts/1")
