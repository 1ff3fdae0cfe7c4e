"""From a model reference to a loaded model: resolve, download, verify, load."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from registry_tools.errors import VerificationError
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.client import connect
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models import artifacts, manifest, signing
from registry_tools.models.loaded_model import LoadedModel, load_folder
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.refs import ModelRef, parse_ref

if TYPE_CHECKING:
    from mlflow import MlflowClient


def load_model(
    ref: str,
    stage: str | None = None,
    *,
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    allow_code: bool = False,
    public_key: str | None = None,
) -> LoadedModel:
    """Load a version of a registered model: its files are verified first, then its types.

    Parameters
    ----------
    ref
        `iris@production`, `iris/3`, `iris/Production`, or the name alone with `stage`.
    stage
        The stage, when `ref` is a name.
    tracking_uri
        The registry; None takes what MLflow itself takes.
    trust
        Types that a model may contain beyond `trust_policy.TRUSTED_TYPES` and REGISTRY_TOOLS_TRUST.
    allow_code
        Also load formats that run code of their own while they load.
    public_key
        Load only what carries a signature of this key, a PEM file. None takes
        REGISTRY_TOOLS_PUBLIC_KEY; without either, no signature is asked for.

    Raises
    ------
    InvalidReference, NotFound, RegistryUnavailable, AccessDenied
        If the reference means nothing, or the registry cannot say what it means.
    VerificationError
        If the files are not those that were registered or signed, or contain what is not trusted.
    """
    policy = TrustPolicy.from_environment(trust, allow_code, public_key)
    return load(connect(tracking_uri), parse_ref(ref, stage=stage), policy)


def load(client: MlflowClient, ref: ModelRef, policy: TrustPolicy | None = None) -> LoadedModel:
    """Load what a reference means now, as `load_model`, from a client's registry."""
    version = registry.find_version(client, ref)
    policy = policy or TrustPolicy.from_environment()
    with verified_files(client, version, policy) as folder:
        return load_folder(folder, policy, version, ref.stage)


@contextlib.contextmanager
def verified_files(client: MlflowClient, version: VersionInfo, policy: TrustPolicy) -> Iterator[Path]:
    """Yield a folder with a version's files, compared with its digest and, if asked, signature.

    Raises
    ------
    VerificationError
        If a file differs, or the signature is missing or another's; the message says which.
    """
    with artifacts.model_files(client, version.name, version.version) as folder:
        if version.digest is not None:
            try:
                manifest.check_files(folder, version.digest)
            except VerificationError:
                # The manifest is downloaded only now: it is needed to name the file.
                manifest.check_files(folder, version.digest, artifacts.download_manifest(client, version))
                raise
        if policy.public_key is not None:
            name = signing.file_name(manifest.digest_of(manifest.manifest_of(folder)))
            with artifacts.evidence_file(client, version, name) as signature:
                signing.check(folder, signature, policy.public_key)
        yield folder


def sign(client: MlflowClient, version: VersionInfo, key: Path) -> str:
    """Sign a version's files, add the signature to its evidence, and return its path there.

    The files are compared with the digest first: nobody signs what was changed since.

    Raises
    ------
    VerificationError
        If a file differs.
    InputError, UnsupportedOperation
        If the key does not serve, or there is no place for the signature.
    """
    with verified_files(client, version, TrustPolicy()) as folder:
        digest = manifest.digest_of(manifest.manifest_of(folder))
        with tempfile.TemporaryDirectory() as scratch:
            signature = Path(scratch, signing.file_name(digest))
            signing.sign(folder, key, signature)
            artifacts.add_evidence(client, version, signature)
    return f"{manifest.EVIDENCE}/{signature.name}"
