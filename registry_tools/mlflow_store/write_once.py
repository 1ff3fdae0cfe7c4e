"""Write a parameter of a run: MLflow accepts one value for it, the only atomic operation it offers."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from registry_tools.mlflow_store.client import translate_errors


def write_once(client: MlflowClient, run_id: str, key: str, value: str) -> str:
    """Write a parameter of a run unless it has a value, and return its value.

    If several clients write different values, one succeeds, and all get its value back. If the result
    of a call was lost, the client can repeat the call. `synchronous=True` overrides
    `MLFLOW_ENABLE_ASYNC_LOGGING`, under which a refused write raises no error.

    Raises
    ------
    RegistryToolsError
        If the parameter could not be written and has no value.
    """
    with translate_errors(client.tracking_uri):
        try:
            client.log_param(run_id, key, value, synchronous=True)
        except MlflowException:
            stored: str | None = client.get_run(run_id).data.params.get(key)
            if stored is None:
                raise
            return stored
    return value
