"""Fetch and verify versions from the registry, or from a cache. Its functions block."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from registry_tools.errors import VerificationError
from registry_tools.files.temp_files import locked, make_temp_folder
from registry_tools.inference.model_artifact import Identity, ModelArtifact
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.client import connect
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models import artifacts, loader, manifest
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.refs import ModelRef

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from registry_tools.policy.definition import Policy

_KEPT_VERSIONS = 3
_RECORD = "artifact.json"  # of a version in the cache
_VERDICT = "verdict.json"  # with which the version entered its stage, if one is required
# The rows of a version are not needed to serve it.
_EVIDENCE = ("recorded_predictions.json", manifest.MANIFEST_FILE, manifest.SIGNATURE_FILE)


class ArtifactFetcher:
    """Fetches and verifies the versions of one reference, and keeps them in folders of this process."""

    def __init__(
        self,
        ref: ModelRef,
        trust_policy: TrustPolicy,
        tracking_uri: str | None,
        cache: Path | None,
        policy: Policy | None = None,
    ) -> None:
        """Create a fetcher.

        Parameters
        ----------
        ref, trust_policy, tracking_uri
            The reference, the types and keys to trust, and the registry.
        cache
            A folder for the version that is served; None keeps none.
        policy
            The policy with the keys of the evaluators; with it, each version needs a verdict.
        """
        self.ref = ref
        self._trust_policy = trust_policy
        self._policy = policy
        self._uri = tracking_uri
        self._cache = cache / ref.name / (ref.stage or str(ref.version)) if cache is not None else None
        self._scratch = make_temp_folder("serving")
        self._fetched: dict[Identity, ModelArtifact] = {}
        self._current_folder: str | None = None  # the folder that is not deleted

    def close(self) -> None:
        """Delete the fetched files."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def resolve(self) -> VersionInfo:
        """Return the version that the reference names now.

        Raises
        ------
        NotFound, RegistryUnavailable, AccessDenied
            If the registry has none, or does not say.
        """
        return registry.find_version(self._client, self.ref)

    def fetch(self, version: VersionInfo) -> ModelArtifact:
        """Return a version's files, compared with its digest and, if asked, its signature and verdict.

        Raises
        ------
        VerificationError
            If they differ from the registered files, or the version lacks a required verdict.
        """
        verdict = None
        if self._policy is not None:
            verdict = loader.check_verdict(version, self.ref.stage, self._policy)
        key = (version.version, version.run_id, version.digest)
        artifact = self._fetched.pop(key, None) or self._fetch(version)
        if verdict is not None:
            Path(artifact.folder, _VERDICT).write_text(verdict)
        self._fetched[key] = artifact  # the youngest
        for old in list(self._fetched)[:-_KEPT_VERSIONS]:
            # The served version may be read again: by a worker that starts, for an unusual request.
            if self._fetched[old].folder != self._current_folder:
                shutil.rmtree(self._fetched.pop(old).folder, ignore_errors=True)
        return artifact

    def _fetch(self, version: VersionInfo) -> ModelArtifact:
        with _new_folder(self._scratch, f"{version.version}-") as folder:
            with loader.verified_files(self._client, version, self._trust_policy) as files:
                shutil.copytree(files, folder / "model")
            # The manifest and its signature verify the cache again later.
            with artifacts.evidence_files(self._client, version, _EVIDENCE) as evidence:
                if evidence is not None:  # a version outlives its run
                    loader.check_evidence(evidence, version, self._trust_policy, _EVIDENCE)
                    shutil.copytree(evidence, folder, dirs_exist_ok=True)
            return ModelArtifact(
                str(folder), version.name, version.version, self.ref.stage, version.run_id, version.digest
            )

    def write_cache(self, artifact: ModelArtifact) -> None:
        """Put the version that took over into the cache, in place of the version before.

        Raises
        ------
        OSError
            If it cannot be written; the version before is still in the cache.
        """
        self._current_folder = artifact.folder
        if self._cache is None or artifact.from_cache:
            return
        self._cache.mkdir(parents=True, exist_ok=True)
        with locked(self._cache / "lock"):  # the workers of a server share the cache
            current = self._cache / "current"
            same_verdict = _read_verdict(current) == _read_verdict(Path(artifact.folder))
            if _cached_identity(current) != artifact.identity or not same_verdict:
                _write_cache(artifact, self._cache)

    def read_cached(self) -> ModelArtifact | None:
        """Return a copy of the version in the cache; None if there is none.

        Raises
        ------
        VerificationError
            If its files were changed since, or it lacks a required verdict.
        """
        if self._cache is None:
            return None
        with _new_folder(self._scratch, "cached-") as copy:
            try:
                with locked(self._cache / "lock"):
                    shutil.copytree((self._cache / "current").resolve(), copy, dirs_exist_ok=True)
                record = json.loads((copy / _RECORD).read_text())
                files = str(record.pop("files"))
                artifact = ModelArtifact(**record | {"folder": str(copy), "from_cache": True})
            except (OSError, ValueError, TypeError, KeyError, AttributeError):
                shutil.rmtree(copy, ignore_errors=True)
                return None
            manifest.check_files(artifact.model, artifact.digest or files)
            if self._trust_policy.public_key is not None:
                loader.check_signature(artifact.model, copy, self._trust_policy.public_key)
            if self._policy is not None:
                _check_cached_verdict(artifact, copy, self._policy)
        return artifact

    @functools.cached_property
    def _client(self) -> MlflowClient:
        return connect(self._uri)


@contextlib.contextmanager
def _new_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder, and remove it if the block fails."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write_cache(artifact: ModelArtifact, folder: Path) -> None:
    with _new_folder(folder, "new-") as new:
        shutil.copytree(artifact.folder, new, dirs_exist_ok=True)
        digest = manifest.digest_of(manifest.manifest_of(new / "model"))
        record = json.loads(artifact.to_json()) | {"folder": new.name, "files": digest}
        (new / _RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        # The name in one step: a process that is killed here leaves the version before.
        (new / "current").symlink_to(new.name)
        (new / "current").rename(folder / "current")
    for other in folder.iterdir():
        if other.name not in {"current", "lock", new.name}:
            shutil.rmtree(other, ignore_errors=True)


def _read_verdict(folder: Path) -> str | None:
    """Return the verdict in the folder of a version; None if it has none."""
    try:
        return (folder / _VERDICT).read_text()
    except OSError:
        return None


def _check_cached_verdict(artifact: ModelArtifact, folder: Path, policy: Policy) -> None:
    from registry_tools.policy.stage_entry import check_entry, require_stage

    verdict, found = _read_verdict(folder), manifest.read_manifest(folder)
    if verdict is None:
        raise VerificationError(f"{artifact} in the cache has no verdict, and a verdict is required")
    evidence = manifest.digest_of(found.evidence) if found is not None else None
    digests = {"model": artifact.digest, "evidence": evidence}
    stage = require_stage(artifact.name, artifact.stage)
    check_entry(policy, artifact.name, artifact.version, stage, verdict, digests)


def _cached_identity(folder: Path) -> Identity | None:
    """Return the identity of the version in a folder of the cache; None if there is none."""
    try:
        record = json.loads((folder / _RECORD).read_text())
        return record["version"], record["run_id"], record["digest"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
