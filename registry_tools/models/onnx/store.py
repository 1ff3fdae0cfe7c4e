"""Store the ONNX file of a version with its evidence."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from registry_tools.errors import UnsupportedOperation
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models import artifacts, manifest
from registry_tools.models.manifest import MANIFEST_FILE, ONNX_FILE

if TYPE_CHECKING:
    from mlflow import MlflowClient


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
    registry.set_tags(client, version, {registry.ONNX_DIGEST_TAG: manifest.digest_of(part)})
