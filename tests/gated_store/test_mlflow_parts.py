"""The parts of MLflow that the gated store depends on; a new MLflow that lacks one fails here by name."""

from __future__ import annotations

import ast
import importlib
import inspect
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.server.constants import READ_REPLICA_BACKEND_STORE_URI_ENV_VAR
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore
from sqlalchemy import event

import registry_tools.gated_store
from registry_tools.gated_store.builder import build_store
from registry_tools.gated_store.store import GatedStore
from registry_tools.gated_store.workspace_store import GUARDS, GatedWorkspaceStore

FOLDER = Path(registry_tools.gated_store.__file__).parent
IMPORTS = {
    "mlflow.entities.model_registry.ModelVersion",
    "mlflow.entities.model_registry.ModelVersionTag",
    "mlflow.entities.model_registry.RegisteredModelTag",
    "mlflow.entities.model_registry.model_version_stages.STAGE_ARCHIVED",
    "mlflow.entities.model_registry.model_version_stages.get_canonical_stage",
    "mlflow.environment_variables.MLFLOW_ENABLE_WORKSPACES",
    "mlflow.exceptions.MlflowException",
    "mlflow.protos.databricks_pb2.PERMISSION_DENIED",
    "mlflow.server.constants.READ_REPLICA_BACKEND_STORE_URI_ENV_VAR",
    "mlflow.store.model_registry.dbmodels.models.SqlModelVersion",
    "mlflow.store.model_registry.dbmodels.models.SqlModelVersionTag",
    "mlflow.store.model_registry.dbmodels.models.SqlRegisteredModel",
    "mlflow.store.model_registry.dbmodels.models.SqlRegisteredModelAlias",
    "mlflow.store.model_registry.dbmodels.models.SqlRegisteredModelTag",
    "mlflow.store.model_registry.sqlalchemy_store.SqlAlchemyStore",
    "mlflow.store.model_registry.sqlalchemy_workspace_store.WorkspaceAwareSqlAlchemyStore",
}
PRIVATE = {"_get_active_workspace", "_get_registered_model", "_get_sql_model_version", "ManagedSessionMaker"}
GUARDED = {
    "create_model_version",
    "create_registered_model",
    "delete_model_version",
    "delete_model_version_tag",
    "delete_registered_model",
    "delete_registered_model_alias",
    "delete_registered_model_tag",
    "rename_registered_model",
    "set_model_version_tag",
    "set_registered_model_alias",
    "set_registered_model_tag",
    "transition_model_version_stage",
}
# They write descriptions and webhooks, on which no stage depends.
HARMLESS = {
    "create_webhook",
    "delete_webhook",
    "update_model_version",
    "update_registered_model",
    "update_webhook",
}
COLUMNS = {
    "SqlModelVersion": {"workspace", "name", "version", "current_stage"},
    "SqlModelVersionTag": {"workspace", "name", "version", "key", "value"},
    "SqlRegisteredModel": {"workspace", "name", "last_updated_time"},
    "SqlRegisteredModelAlias": {"workspace", "name", "alias", "version"},
    "SqlRegisteredModelTag": {"workspace", "name", "key", "value"},
}


def trees() -> Iterator[ast.AST]:
    for path in FOLDER.glob("*.py"):
        yield from ast.walk(ast.parse(path.read_text()))


def test_the_imports_from_mlflow_are_those_listed_and_exist() -> None:
    found = set()
    for node in trees():
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mlflow":
            found |= {f"{node.module}.{each.name}" for each in node.names}
        assert not (
            isinstance(node, ast.Import) and any(each.name.startswith("mlflow") for each in node.names)
        )
    assert found == IMPORTS
    for name in IMPORTS:
        module, _, part = name.rpartition(".")
        assert hasattr(importlib.import_module(module), part)


def test_the_private_methods_of_mlflow_are_those_listed_and_exist(store: str) -> None:
    used = {
        node.attr
        for node in trees()
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    built = build_store(f"gated+{store}")
    own = {name for each in (GatedStore, GatedWorkspaceStore) for name in vars(each)}
    of_mlflow = {name for name in used - own if hasattr(SqlAlchemyStore, name) or name in vars(built)}
    assert of_mlflow == PRIVATE
    assert list(inspect.signature(SqlAlchemyStore._get_sql_model_version).parameters)[1:4] == [
        "session",
        "name",
        "version",
    ]
    built._dispose_engine()


def test_every_method_of_mlflow_that_writes_is_guarded_or_harmless() -> None:
    writing = {
        name
        for name, method in inspect.getmembers(SqlAlchemyStore, inspect.isfunction)
        if "read_only=False" in inspect.getsource(method)
    }
    assert writing == GUARDED | HARMLESS
    for store in (GatedStore, GatedWorkspaceStore):
        for name in GUARDED:
            assert getattr(store, name) is vars(GatedStore)[name]


def test_a_guard_takes_the_arguments_of_the_method_that_it_guards() -> None:
    for name in GUARDED:
        own = inspect.signature(vars(GatedStore)[name]).parameters.values()
        named = [each.name for each in own if each.kind is each.POSITIONAL_OR_KEYWORD]
        theirs = list(inspect.signature(getattr(SqlAlchemyStore, name)).parameters)
        assert named == theirs[: len(named)]
        assert len(named) == len(theirs) or any(each.kind is each.VAR_KEYWORD for each in own)


@pytest.mark.parametrize("table", sorted(COLUMNS))
def test_the_tables_have_the_columns_that_the_store_reads(table: str) -> None:
    models = importlib.import_module("mlflow.store.model_registry.dbmodels.models")
    assert COLUMNS[table] <= set(getattr(models, table).__table__.columns.keys())


def test_a_lock_column_has_no_value_that_an_update_would_change() -> None:
    models = importlib.import_module("mlflow.store.model_registry.dbmodels.models")
    assert models.SqlRegisteredModel.__table__.columns["last_updated_time"].onupdate is None


@pytest.mark.parametrize("workspaces", [True, False])
@pytest.mark.parametrize("replica", [True, False])
def test_the_store_is_built_as_mlflow_builds_its_own(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workspaces: bool, replica: bool
) -> None:
    from mlflow.server.handlers import ModelRegistryStoreRegistryWrapper

    registry = ModelRegistryStoreRegistryWrapper()
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", str(workspaces).lower())
    if replica:
        shutil.copy(tmp_path / "mlflow.db", tmp_path / "replica.db")
        monkeypatch.setenv(READ_REPLICA_BACKEND_STORE_URI_ENV_VAR, f"sqlite:///{tmp_path}/replica.db")
    ours, theirs = registry.get_store(f"gated+{store}"), registry.get_store(store)
    assert isinstance(ours, GatedStore)
    assert type(theirs) is (WorkspaceAwareSqlAlchemyStore if workspaces else SqlAlchemyStore)
    assert isinstance(ours, type(theirs))
    assert ours.supports_workspaces == theirs.supports_workspaces == workspaces
    assert ours.db_uri == theirs.db_uri
    assert (ours.read_engine is None) == (theirs.read_engine is None) == (not replica)
    for each in (ours, theirs):
        each._dispose_engine()
    for table, guard in GUARDS.items():  # other tests use plain stores in this process
        if event.contains(table, "before_delete", guard):
            event.remove(table, "before_delete", guard)


@pytest.mark.parametrize(
    "scheme", ["gated+sqlite", "gated+postgresql", "gated+postgresql+psycopg2", "gated+postgresql+psycopg"]
)
def test_mlflow_finds_the_store_by_its_scheme(scheme: str) -> None:
    from mlflow.server.handlers import ModelRegistryStoreRegistryWrapper

    registry = ModelRegistryStoreRegistryWrapper()
    assert registry.get_store_builder(f"{scheme}://user@host/database") is build_store


@pytest.mark.slow
def test_a_client_of_mlflow_does_not_import_the_store(store: str) -> None:
    code = (
        f"import sys, mlflow; mlflow.MlflowClient({store!r}).search_registered_models();"
        "print(*(f'registry_tools.gated_store.{each}' in sys.modules for each in ('builder', 'store')))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "True False"
