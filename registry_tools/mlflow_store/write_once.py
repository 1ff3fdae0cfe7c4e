"""MLflow's one atomic primitive: a parameter of a run can be written once."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from registry_tools.mlflow_store.client import translate_errors


def write_once(client: MlflowClient, run_id: str, key: str, value: str) -> str:
    """Write a parameter of a run, and return the value that it has then.

    Of several clients that write different values, one succeeds, and each gets the same value
    back. A call whose result is unknown can be repeated. `synchronous` overrides
    `MLFLOW_ENABLE_ASYNC_LOGGING`, with which a refused write would raise nothing.

    Raises
    ------
    RegistryToolsError
        If the parameter could not be written, and has no value.
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
