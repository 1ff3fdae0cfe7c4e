"""Copy a version from one registry to another, completely or not at all."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from registry_tools.errors import PromotionError, UnsupportedOperation
from registry_tools.mlflow_store import heartbeat, registry, runs
from registry_tools.mlflow_store.client import registry_address
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models import artifacts, manifest
from registry_tools.models.loader import verified_evidence, verified_files
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.policy.tag_names import is_of_registry
from registry_tools.refs import ModelRef

if TYPE_CHECKING:
    from mlflow import MlflowClient

ORIGIN_TAG = "origin"
_RUN_TAG = "copy_of"


@dataclass(frozen=True)
class CopiedVersion:
    """A version in the target registry; `made` is False if it existed already."""

    name: str
    version: int
    origin: str
    made: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def copy(
    source: MlflowClient,
    ref: ModelRef,
    target: MlflowClient,
    name: str | None = None,
    trust_policy: TrustPolicy | None = None,
) -> CopiedVersion:
    """Copy a version with its files, metrics, tags, evidence and signature to another registry.

    The function downloads the uploaded files again and compares them before it registers the copy as
    the last step. It sets no stage. An interrupted copy leaves a run without a version, which the next
    copy removes.

    Parameters
    ----------
    source, ref
        The registry and the version to copy.
    target, name
        The target registry, and the name of the model in it; None keeps the name.
    trust_policy
        The policy whose `public_key` must verify the files before the copy.

    Raises
    ------
    VerificationError
        If the files differ from the registered files, or changed during the copy.
    PromotionError
        If source and target are the same registry and the name is the same.
    UnsupportedOperation
        If the version has no run.
    """
    version = registry.get_version(source, ref)
    name = name or version.name
    if name == version.name and _address(source) == _address(target):
        raise PromotionError(f"{ref} already is in {_address(target)}: give another --name")
    if version.run_id is None:
        raise UnsupportedOperation(
            f"{version.name} version {version.version} has no run, so it has no metrics and no evidence "
            "to copy: register it from a run"
        )
    with verified_files(source, version, trust_policy or TrustPolicy.from_environment()) as folder:
        digest = manifest.digest_of(manifest.manifest_of(folder))
        origin = version.tags.get(ORIGIN_TAG, f"{_address(source)} {version.name}/{version.version} {digest}")
        existing = _find_copy(target, name, origin)
        if existing is not None:
            run_id = registry.find_version(target, ModelRef(name, version=existing)).run_id
            runs.finish_if_expired(target, str(run_id))
            return CopiedVersion(name, existing, origin, made=False)
        number = _copy_version(source, version, folder, target, name, origin)
    return CopiedVersion(name, number, origin, made=True)


def _copy_version(
    source: MlflowClient, version: VersionInfo, folder: Path, target: MlflowClient, name: str, origin: str
) -> int:
    assert version.run_id is not None
    mark = hashlib.sha256(f"{origin} {name}".encode()).hexdigest()
    runs.delete_expired(target, name, _RUN_TAG, mark)
    run_id = runs.copy_run(source, version.run_id, target, name, {_RUN_TAG: mark})
    with heartbeat.keep_alive(target, run_id):
        with tempfile.TemporaryDirectory() as scratch:
            model = Path(scratch, "model")
            shutil.copytree(folder, model)
            for file in manifest.WRITTEN_ON_LOAD:  # at the top level only
                (model / file).unlink(missing_ok=True)
            address = artifacts.upload_verified(target, run_id, model, "model")
        with verified_evidence(source, version, TrustPolicy()) as evidence:
            if evidence is not None:
                artifacts.upload_verified(target, run_id, evidence, manifest.EVIDENCE)
        number = registry.register(
            target,
            name,
            source=address,
            run_id=run_id,
            description=version.description,
            tags=_tags_to_copy(version) | {ORIGIN_TAG: origin},
        )
    # Two simultaneous copies both find no version in the target, so the later one is deleted.
    first = _find_copy(target, name, origin)
    if first is not None and first != number:
        registry.delete_version(target, name, number)
        runs.delete(target, run_id)
        return first
    runs.finish(target, run_id)
    return number


def _tags_to_copy(version: VersionInfo) -> dict[str, str]:
    return {key: text for key, text in version.tags.items() if not is_of_registry(key)}


def _find_copy(target: MlflowClient, name: str, origin: str) -> int | None:
    """Return the first version in the target with this origin; None if there is none."""
    return registry.version_with_tag(target, name, ORIGIN_TAG, origin)


def _address(client: MlflowClient) -> str:
    """Return the address of a registry in a canonical form, without a password."""
    uri = registry_address(client)
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}"
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
