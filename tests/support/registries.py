"""Real registries of three kinds, in which each test registers its own models.

The versions of such a model come from three trainings, which run once: `GOOD` (accuracy 0.97 on the
held-out rows), `EQUAL` (accuracy 1.0, not significantly better on 30 rows) and `POOR` (0.33).
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from mlflow import MlflowClient

from pipeline.params.definitions import TrainParams
from pipeline.training.train import train
from registry_tools.mlflow_store import registry, stages
from registry_tools.models import manifest
from registry_tools.policy.tag_names import DIGEST_TAG, EVIDENCE_DIGEST_TAG
from registry_tools.refs import ModelRef
from tests.support.postgres import Postgres
from tests.support.tracking_servers import account, add_user, guarded_server, server, signed_in

GOOD, EQUAL, POOR = 1, 2, 3
_TRAININGS = (TrainParams(), TrainParams(model="knn"), TrainParams(max_iter=1))
_names = itertools.count(1)
# For a test whose behaviour the other kind of registry would show again.
on_sqlite, on_server = (
    pytest.mark.parametrize("place", [place], indirect=True) for place in ("sqlite_place", "server_place")
)
Change = Callable[[Path, dict[str, Any]], None]  # changes a model folder and the content of its MLmodel


@dataclass(frozen=True)
class Place:
    """A registry, with its URI and the variables that its clients need."""

    uri: str
    files: Path  # a folder that contains the artifacts
    environment: Mapping[str, str] = field(default_factory=dict)  # variables of a user who may write
    reader: Mapping[str, str] = field(default_factory=dict)  # variables of a user who may only read

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def model(self, *versions: int) -> str:
        """Register the trained runs as versions 1, 2, … of a new model; return its name."""
        name = f"iris-{os.getpid()}-{next(_names)}"
        for version in versions or (GOOD, EQUAL, POOR):
            self.add(name, version)
        return name

    def add(self, name: str, version: int) -> int:
        """Register a trained run again, as the next version of a model."""
        trained = self.client.get_model_version("trained", str(version))
        return registry.register(
            self.client,
            name,
            source=trained.source,
            run_id=trained.run_id,
            model_id=trained.source.removeprefix("models:/"),
            description=trained.description,
            tags=trained.tags,
        )

    def holder(self, name: str, stage: str = "production") -> int | None:
        """Return the version in a stage, and check that alias and legacy stage agree."""
        held = stages.stage_holder(self.client, name, stage)
        legacy = [
            int(v.version)
            for v in self.client.search_model_versions(f"name = '{name}'")
            if v.current_stage == stage.title()
        ]
        assert legacy == ([] if held is None else [held])
        return held

    def version(self, name: str, number: int) -> registry.VersionInfo:
        return registry.get_version(self.client, ModelRef(name, version=number))


def crafted(place: Place, change: Change) -> str:
    """Register a version whose files were changed before its digest was computed."""
    name = place.model(GOOD)
    train(TrainParams(name=name, plots=False))
    folder = Path(place.client.get_model_version_download_uri(name, "2"))
    description = folder / "MLmodel"
    content = yaml.safe_load(description.read_text())
    change(folder, content)
    description.write_text(yaml.safe_dump(content))
    renew_manifest(place, name, 2)
    return f"{name}/2"


def evidence_folder(place: Place, name: str, version: int) -> Path:
    """Return the folder where a local store keeps the evidence of a version."""
    run_id = str(place.client.get_model_version(name, str(version)).run_id)
    return Path(place.client.get_run(run_id).info.artifact_uri) / manifest.EVIDENCE


def renew_manifest(place: Place, name: str, version: int) -> None:
    """Recompute manifest and digest of a version from its current files."""
    folder = Path(place.client.get_model_version_download_uri(name, str(version)))
    made = manifest.write_manifest(evidence_folder(place, name, version), manifest.manifest_of(folder))
    for tag, part in ((DIGEST_TAG, made.model), (EVIDENCE_DIGEST_TAG, made.evidence)):
        place.client.set_model_version_tag(name, str(version), tag, manifest.digest_of(part))


def train_all(uri: str, folder: Path) -> None:
    """Train the three runs; a local store keeps their artifacts in the folder."""
    before = Path.cwd()
    os.chdir(folder)
    mlflow.set_tracking_uri(uri)
    try:
        for params in _TRAININGS:
            train(TrainParams(**{**vars(params), "name": "trained", "plots": False}))
    finally:
        mlflow.set_tracking_uri(None)
        os.chdir(before)


def sqlite_place(empty: Path, folder: Path) -> Place:
    shutil.copy(empty, folder / "mlflow.db")
    place = Place(f"sqlite:///{folder}/mlflow.db", folder)
    train_all(place.uri, folder)
    return place


@contextmanager
def server_place(empty: Path, folder: Path) -> Iterator[Place]:
    with server(empty, folder) as uri:
        place = Place(uri, folder / "artifacts")
        train_all(uri, folder)
        yield place


@contextmanager
def guarded_place(empty: Path, folder: Path, database: Postgres | None) -> Iterator[Place]:
    """Run a server for a team: worker processes on PostgreSQL, with MLflow's basic-auth app.

    Every user may read, and only the owner may write. Without PostgreSQL, the server uses SQLite.
    """
    if database is None:
        shutil.copy(empty, folder / "mlflow.db")
        stores = (f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/auth.db")
    else:
        stores = (database.make("mlflow"),) * 2  # one database to back up
    with guarded_server(*stores, folder, "--workers", "1" if database is None else "2") as uri:
        add_user(uri, "reader")
        with signed_in("owner"):
            train_all(uri, folder)
        yield Place(uri, folder / "artifacts", account("owner"), account("reader"))
