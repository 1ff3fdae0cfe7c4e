"""The gated store for a server with workspaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelAlias, SqlRegisteredModelTag
from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore
from sqlalchemy import event

from registry_tools.gated_store.refusal import refused
from registry_tools.gated_store.server_policy import server_policy
from registry_tools.gated_store.store import GatedStore
from registry_tools.gated_store.transaction import is_shared
from registry_tools.policy.tag_names import HEAD


class GatedWorkspaceStore(GatedStore, WorkspaceAwareSqlAlchemyStore):
    """The same store for a server with workspaces.

    MLflow deletes a workspace together with its models past this store, in another part of the same
    process. So the class also refuses there to delete the alias of a protected stage, and the number of
    moves of a stage.
    """

    def __init__(self, db_uri: str, read_db_uri: str | None = None) -> None:
        super().__init__(db_uri, read_db_uri=read_db_uri)
        for table, guard in GUARDS.items():  # once for all stores of this process
            if not event.contains(table, "before_delete", guard):
                event.listen(table, "before_delete", guard)


def _keep_moves(mapper: Any, connection: Any, tag: SqlRegisteredModelTag) -> None:
    if str(tag.key).startswith(f"{HEAD}."):
        raise _refused(tag)


def _keep_stage(mapper: Any, connection: Any, alias: SqlRegisteredModelAlias) -> None:
    name, stage = str(alias.name), str(alias.alias).lower()
    if not is_shared() and server_policy().stage(name, stage) is not None:
        raise _refused(alias)


def _refused(row: SqlRegisteredModelTag | SqlRegisteredModelAlias) -> MlflowException:
    return refused(
        f"{row.name} in workspace {row.workspace} has a protected stage and cannot be deleted with it"
    )


GUARDS: Mapping[Any, Callable[..., None]] = {
    SqlRegisteredModelTag: _keep_moves,
    SqlRegisteredModelAlias: _keep_stage,
}
