"""Download the files of a version, its evidence and its plots, and upload evidence."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import mlflow
from mlflow import MlflowClient

from registry_tools.errors import NotFound, RegistryToolsError, UnsupportedOperation, VerificationError
from registry_tools.mlflow_store import runs
from registry_tools.mlflow_store.client import translate_errors
from registry_tools.mlflow_store.registry import VersionInfo, find_run
from registry_tools.models import manifest as manifests

_IMAGES = "images"  # MLflow stores the images of a run in this folder of its artifacts
_MOST_PLOT_BYTES = 1 << 20
_MOST_PLOTS = 20
_PNG = b"\x89PNG\r\n\x1a\n"


@contextlib.contextmanager
def model_files(client: MlflowClient, name: str, version: int) -> Iterator[Path]:
    """Yield a folder with a private copy of the files of a version, which no other user can change."""
    with translate_errors(client.tracking_uri):
        # Use MLflow's inner registry client: the public method first checks whether the model is a
        # prompt, for which MLflow reads every version of the model.
        registry_client = getattr(client, "_get_registry_client", lambda: client)()
        uri = registry_client.get_model_version_download_uri(name, str(version))
    with download(client, uri) as folder:
        yield folder


@contextlib.contextmanager
def download(client: MlflowClient, uri: str) -> Iterator[Path]:
    """Download the folder or file at an artifact URI, yield its path, and remove it at the end."""
    with tempfile.TemporaryDirectory() as scratch:
        yield _download(client, uri, scratch)


def _download(client: MlflowClient, uri: str, folder: str) -> Path:
    with translate_errors(client.tracking_uri):
        try:
            path = mlflow.artifacts.download_artifacts(
                artifact_uri=uri, dst_path=folder, tracking_uri=client.tracking_uri
            )
        except OSError as error:  # a local store raises the error of the file system
            raise NotFound(f"no files at {uri}: {error.strerror or error}") from error
    return Path(path)


@contextlib.contextmanager
def evidence_files(
    client: MlflowClient, version: VersionInfo, only: Collection[str] | None = None
) -> Iterator[Path | None]:
    """Yield a folder with the evidence of a version, unverified; None if its run has none.

    Parameters
    ----------
    client, version
        The registry, and the version.
    only
        The names of the files to download, if they exist; None downloads all.
    """
    with translate_errors(client.tracking_uri):
        run = find_run(client, version.run_id) if version.run_id is not None else None
        listed = client.list_artifacts(run.info.run_id, manifests.EVIDENCE) if run is not None else []
    if run is None or not listed:
        yield None
        return
    if only is None:
        with download(client, f"{run.info.artifact_uri}/{manifests.EVIDENCE}") as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted(file.path for file in listed):
            if Path(path).name in only:
                _download(client, f"{run.info.artifact_uri}/{path}", scratch)
        yield Path(scratch)


def plots(client: MlflowClient, version: VersionInfo) -> tuple[dict[str, bytes], list[str]]:
    """Return the images that a version's run logged.

    Any user who may log to the run may put any file there, so the number and the size are limited.

    Returns
    -------
    found
        The content of at most 20 PNG files, by the name of the image.
    left_out
        The names of further files, of files over one mebibyte, and of files that cannot be read.
    """
    found: dict[str, bytes] = {}
    left_out: list[str] = []
    if version.run_id is None or find_run(client, version.run_id) is None:
        return found, left_out
    with translate_errors(client.tracking_uri):
        files = client.list_artifacts(version.run_id, _IMAGES)
    named = [file for file in files if file.path.endswith(".png") and not file.is_dir]
    for file in named:
        content = None
        if len(found) < _MOST_PLOTS and (file.file_size or 0) <= _MOST_PLOT_BYTES:
            content = _read_plot(client, version.run_id, file.path)
        if content is None or len(content) > _MOST_PLOT_BYTES or not content.startswith(_PNG):
            left_out.append(Path(file.path).name)
        else:
            found[Path(file.path).stem.partition("+")[0]] = content  # MLflow appends step and time
    return found, left_out


def _read_plot(client: MlflowClient, run_id: str, path: str) -> bytes | None:
    """Return the content of a file of a run; None if it is missing, or MLflow refuses its name."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with translate_errors(client.tracking_uri):
                return Path(client.download_artifacts(run_id, path, scratch)).read_bytes()
        except (OSError, RegistryToolsError):
            return None


def upload_verified(client: MlflowClient, run_id: str, folder: Path, where: str) -> str:
    """Upload a folder to a run, download it again, compare the files, and return the URI of the folder.

    Raises
    ------
    VerificationError
        If an uploaded file differs from its source.
    """
    address = runs.add_files(client, run_id, folder, where)
    with download(client, address) as downloaded:
        changes = manifests.changes(manifests.manifest_of(folder), manifests.manifest_of(downloaded))
    if changes:
        raise VerificationError(
            f"the uploaded files differ from the source: {changes[0]}; repeat the command"
        )
    return address


def add_evidence(client: MlflowClient, version: VersionInfo, path: Path) -> None:
    """Upload a file to the evidence of a version.

    Raises
    ------
    UnsupportedOperation
        If the version has no run.
    """
    if version.run_id is None:
        raise UnsupportedOperation(
            f"{version.name} version {version.version} has no run that could store its evidence: register "
            "the model from a run"
        )
    with translate_errors(client.tracking_uri):
        client.log_artifact(version.run_id, str(path), manifests.EVIDENCE)


def download_manifest(client: MlflowClient, version: VersionInfo) -> manifests.VersionManifest | None:
    """Return the manifest of a version; None if it is missing or not readable."""
    with evidence_files(client, version, {manifests.MANIFEST_FILE}) as folder:
        return manifests.read_manifest(folder) if folder is not None else None
