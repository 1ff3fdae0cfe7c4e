"""Adopt a version that was registered without evidence: make evidence from labelled rows."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry_tools.errors import UnsupportedOperation
from registry_tools.evaluation.eval_data import EvalData
from registry_tools.evaluation.make_evidence import MadeEvidence, make_evidence
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models import artifacts, evidence, manifest
from registry_tools.models.formats import describe
from registry_tools.models.loader import verified_evidence, verified_files
from registry_tools.models.manifest import MANIFEST_FILE
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.policy.tag_names import DIGEST_TAG
from registry_tools.refs import ModelRef

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True, kw_only=True)
class Adoption(MadeEvidence):
    """An adopted version; `made` is False if it had this evidence already."""

    name: str
    version: int
    made: bool


def adopt(
    client: MlflowClient, ref: ModelRef, eval_data: EvalData, trust_policy: TrustPolicy | None = None
) -> Adoption:
    """Make evidence for a version from labelled rows that it was not trained on.

    The rows become the holdout of the version, and its predictions for some of them are recorded. The
    model files do not change. Nothing is written unless the version predicts these labels better than
    chance. No record shows the training rows, so the caller vouches that the holdout has none of them.

    Raises
    ------
    UnsupportedOperation
        If the version has no run or no signature, or already has other evidence.
    VerificationError
        If the files differ from their digest, or the version is not significantly better than always
        predicting the commonest label or, for numbers, their mean.
    InputError
        If there are too few rows, or JSON cannot represent their values.
    """
    trust_policy = trust_policy or TrustPolicy.from_environment()
    version = _version_with_run(client, ref)
    with (
        verified_files(client, version, trust_policy) as model,
        # Not verified here: `_check_existing` compares the files with the new evidence.
        artifacts.evidence_files(client, version) as existing,
        tempfile.TemporaryDirectory() as scratch,
    ):
        folder = Path(scratch)
        _check_model(version, model, existing)
        made = make_evidence(_title(version), model, eval_data, trust_policy, folder)
        if existing is not None:
            _check_existing(existing, folder, version)
        is_new = not made.tags.items() <= version.tags.items()
        if is_new:
            _store(client, version, folder, made.tags)
    return Adoption(name=version.name, version=version.version, made=is_new, **vars(made))


def _version_with_run(client: MlflowClient, ref: ModelRef) -> VersionInfo:
    version = registry.find_version(client, ref)
    if version.run_id is None or registry.find_run(client, version.run_id) is None:
        raise UnsupportedOperation(
            f"{_title(version)} has no run that could store its evidence: log the model within "
            "mlflow.start_run(), register it from there, and adopt that version"
        )
    return version


def _check_model(version: VersionInfo, model: Path, existing: Path | None) -> None:
    """Refuse a version that cannot be promoted, or that has evidence from its training."""
    if existing is not None and evidence.read_training_rows(existing) is not None:
        raise UnsupportedOperation(
            f"{_title(version)} already has evidence from its training: there is nothing to adopt"
        )
    if describe(model).inputs is None:
        raise UnsupportedOperation(
            f"{_title(version)} has no signature with the names and types of its columns, which a promotion "
            "needs: log the model again with signature=mlflow.models.infer_signature(X), and adopt that "
            "version"
        )


def _check_existing(existing: Path, folder: Path, version: VersionInfo) -> None:
    """Refuse a run that holds other evidence than the new folder, or the evidence of another model."""
    known, made = manifest.read_manifest(existing), manifest.read_manifest(folder)
    assert made is not None
    if known is not None and known.model != made.model:
        raise UnsupportedOperation(
            f"run {version.run_id} holds the evidence of a model other than {_title(version)}: log each "
            "model in a separate run"
        )
    there = manifest.evidence_of(existing)
    if not there.items() <= made.evidence.items():
        other = sorted(name for name in there if there[name] != made.evidence.get(name))
        raise UnsupportedOperation(
            f"{_title(version)} already has evidence, with another {other[0]}: evidence is written once; "
            "give the same rows, or log the model in a new run and adopt that version"
        )


def _store(client: MlflowClient, version: VersionInfo, folder: Path, tags: dict[str, str]) -> None:
    """Upload the evidence with the manifest last, verify the uploaded files, then set the tags."""
    for path in sorted(folder.iterdir(), key=lambda path: (path.name == MANIFEST_FILE, path.name)):
        artifacts.add_evidence(client, version, path)
    arrived = replace(version, digest=tags[DIGEST_TAG], tags={**version.tags, **tags})
    with verified_evidence(client, arrived, TrustPolicy()):
        registry.set_tags(client, version, tags)


def _title(version: VersionInfo) -> str:
    return f"{version.name} version {version.version}"
