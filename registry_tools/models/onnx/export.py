"""Write a version to an ONNX file that was compared with it first, or store the file with the version."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from registry_tools.errors import UnsupportedOperation, VerificationError
from registry_tools.files.output_file import output_file
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models import artifacts, evidence, manifest
from registry_tools.models.folder_loader import load_folder
from registry_tools.models.loaded_model import LoadedModel
from registry_tools.models.loader import verified_evidence, verified_files
from registry_tools.models.manifest import MANIFEST_FILE, ONNX_FILE
from registry_tools.models.onnx.check import check_onnx
from registry_tools.models.onnx.comparison import OnnxCheck
from registry_tools.models.onnx.convert import to_onnx
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.policy.tag_names import ONNX_DIGEST_TAG
from registry_tools.refs import ModelRef

if TYPE_CHECKING:
    from mlflow import MlflowClient


def export_onnx(
    client: MlflowClient, ref: ModelRef, path: Path, trust_policy: TrustPolicy
) -> tuple[LoadedModel, OnnxCheck]:
    """Write the version of a reference to an ONNX file atomically, if both predict the same.

    Returns
    -------
    tuple
        The loaded version, and the result of the comparison.

    Raises
    ------
    UnsupportedOperation
        If a part of the model has no equivalent in ONNX, the version has no held-out rows, or the extra
        `onnx` is not installed.
    VerificationError
        If a label differs, or the files of the version differ from the registered files.
    InputError
        If the file cannot be written.
    """
    version = registry.find_version(client, ref)
    title = f"{version.name} version {version.version}"
    with verified_evidence(client, version, trust_policy, evidence.HOLDOUT_FILES) as stored:
        holdout = evidence.read_holdout(stored) if stored is not None else None
    if holdout is None:
        raise UnsupportedOperation(
            f"{title} has no held-out rows to check an ONNX file on; add them with: registry-tools adopt "
            f"{version.name}/{version.version} --eval-data FILE --target COLUMN"
        )
    with verified_files(client, version, trust_policy) as folder:
        model = load_folder(folder, trust_policy, version, ref.stage)
    content, check = convert_and_check(model, holdout.rows)
    if check.fault is not None:
        raise VerificationError(f"{title} was not exported to {path}: {check.fault}")
    with output_file(path) as part:
        part.write_bytes(content)
    return model, check


def convert_and_check(model: LoadedModel, holdout: pd.DataFrame) -> tuple[bytes, OnnxCheck]:
    """Return the ONNX file of a loaded version, and the result of its comparison with the version.

    Raises
    ------
    UnsupportedOperation
        If a part of the model has no equivalent in ONNX, or the extra `onnx` is not installed.
    """
    if not hasattr(model.estimator, "get_params"):
        raise UnsupportedOperation(
            f"{model.info.name} version {model.info.version} is a {type(model.estimator).__name__}: the ONNX "
            "export supports scikit-learn estimators only"
        )
    content = to_onnx(model).SerializeToString()
    return content, check_onnx(model, content, holdout)


def store_onnx(client: MlflowClient, version: VersionInfo, file: Path) -> None:
    """Add an ONNX file to the evidence of a version, its digest to the manifest, and a tag.

    Each step leaves a valid version, and a repeated call completes an interrupted one.

    Raises
    ------
    UnsupportedOperation
        If the version has no manifest, because its evidence is missing.
    """
    found = artifacts.download_manifest(client, version)
    if found is None:
        raise UnsupportedOperation(
            f"{version.name} version {version.version} has no manifest to list an ONNX file in; add evidence "
            f"with: registry-tools adopt {version.name}/{version.version} --eval-data FILE --target COLUMN"
        )
    part = {ONNX_FILE: manifest.sha256_of(file)}
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch, MANIFEST_FILE)
        listed.write_text(manifest.manifest_text(replace(found, onnx=part).as_dict()))
        for path in (file, listed):
            artifacts.add_evidence(client, version, path)
    registry.set_tags(client, version, {ONNX_DIGEST_TAG: manifest.digest_of(part)})
