"""The error with which the store refuses a request: 403 with one line."""

from __future__ import annotations

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from registry_tools.policy.decision import REFUSED_PREFIX


def refused(reason: object) -> MlflowException:
    """Return the error for a request that the policy does not allow."""
    return MlflowException(f"{REFUSED_PREFIX}{reason}", error_code=PERMISSION_DENIED)
