"""The entry point that MLflow loads for the schemes `gated+sqlite` and `gated+postgresql`.

MLflow loads it in every process that imports mlflow, so this module imports nothing before it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry_tools.gated_store.store import GatedStore

PREFIX = "gated+"


def build_store(store_uri: str) -> GatedStore:
    """Build the gated store as MLflow builds its own, with its workspaces and its read replica.

    Parameters
    ----------
    store_uri
        The address of the database after the prefix `gated+`, such as `gated+sqlite:///mlflow.db`.
    """
    import os

    from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES
    from mlflow.server.constants import READ_REPLICA_BACKEND_STORE_URI_ENV_VAR

    from registry_tools.gated_store.store import GatedStore
    from registry_tools.gated_store.workspace_store import GatedWorkspaceStore

    store = GatedWorkspaceStore if MLFLOW_ENABLE_WORKSPACES.get() else GatedStore
    replica = os.environ.get(READ_REPLICA_BACKEND_STORE_URI_ENV_VAR)
    return store(store_uri.removeprefix(PREFIX), read_db_uri=replica)
