"""Load a model by its reference: resolve the version, download its files, verify and load them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from registry_tools.errors import UnsupportedOperation, VerificationError
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.client import connect
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models import artifacts, manifest, signing
from registry_tools.models.folder_loader import load_folder
from registry_tools.models.loaded_model import LoadedModel
from registry_tools.models.manifest import EVIDENCE, MANIFEST_FILE, SIGNATURE_FILE
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.policy.tag_names import DIGEST_TAG, EVIDENCE_DIGEST_TAG, ONNX_DIGEST_TAG
from registry_tools.refs import ModelRef, parse_ref

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from registry_tools.policy.definition import Policy


def load_model(
    ref: str,
    stage: str | None = None,
    *,
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    allow_code: bool = False,
    public_key: str | None = None,
    require_verdict: bool = False,
) -> LoadedModel:
    """Load a version of a registered model, after verifying its files and its types.

    Parameters
    ----------
    ref
        A reference such as `iris@production`, `iris/3` or `iris/Production`, or the name of the model
        if you give `stage`.
    stage
        The stage, if `ref` is only a name.
    tracking_uri
        The address of the registry; None uses MLflow's default.
    trust
        Types to trust in the model, in addition to `trust_policy.TRUSTED_TYPES` and
        REGISTRY_TOOLS_TRUST.
    allow_code
        Whether to also load formats that can run code, such as pickle.
    public_key
        A PEM file; load only versions that this key signed. None uses REGISTRY_TOOLS_PUBLIC_KEY, and
        without that variable no signature is needed.
    require_verdict
        Whether to load a version only if it entered the stage with a verdict that an evaluator signed. The
        policy in REGISTRY_TOOLS_POLICY, else `registry.yaml` in your folder, has the keys of the evaluators.

    Returns
    -------
    LoadedModel
        Predicts with `predict`, `predict_names` and `predict_proba`; `info` describes the version.

    Raises
    ------
    InvalidReference, NotFound, RegistryUnavailable, AccessDenied
        If the reference is invalid or names no version, or the registry does not respond or refuses
        access.
    VerificationError
        If the files differ from the registered or signed files, or contain untrusted types, or the version
        has no valid verdict and one is required.
    PolicyError
        If a verdict is required, and there is no valid policy.

    Examples
    --------
    >>> from registry_tools import load_model
    >>> model = load_model("iris", stage="production")  # or "iris@production", "iris/3"  # doctest: +SKIP
    >>> model.predict_names([[6.0, 2.5, 4.5, 1.5]])  # doctest: +SKIP
    array(['versicolor'], dtype='<U10')
    """
    trust_policy = TrustPolicy.from_environment(trust, allow_code, public_key)
    wanted = parse_ref(ref, stage=stage)
    policy = None
    if require_verdict:
        from registry_tools.policy.policy_file import require_policy  # slow to import, and rarely needed

        policy = require_policy()
    return load(connect(tracking_uri), wanted, trust_policy, policy)


def load(
    client: MlflowClient, ref: ModelRef, trust_policy: TrustPolicy | None = None, policy: Policy | None = None
) -> LoadedModel:
    """Load the current version of a reference from a client's registry, as `load_model` does.

    With `policy`, which has the keys of the evaluators, the version needs a verdict.
    """
    version = registry.find_version(client, ref)
    if policy is not None:
        check_verdict(version, ref.stage, policy)
    trust_policy = trust_policy or TrustPolicy.from_environment()
    with verified_files(client, version, trust_policy) as folder:
        return load_folder(folder, trust_policy, version, ref.stage)


def check_verdict(version: VersionInfo, stage: str | None, policy: Policy) -> str:
    """Return the verdict with which a version entered its stage, after verifying it.

    Its digests are those in the tags of the version, with which `verified_files` compares the files.

    Raises
    ------
    VerificationError
        If there is no such verdict, or it does not count.
    InvalidReference
        If there is no stage.
    """
    from registry_tools.policy import stage_entry  # slow to import, and rarely needed

    where = stage_entry.require_stage(version.name, stage)
    digests = {"model": version.digest, "evidence": version.evidence_digest}
    return stage_entry.entry_verdict(policy, version.name, version.version, where, version.tags, digests)


@contextlib.contextmanager
def verified_files(client: MlflowClient, version: VersionInfo, trust_policy: TrustPolicy) -> Iterator[Path]:
    """Yield a folder with the verified files of a version.

    The files are compared with the digest of the version and, if the trust policy has a key, its signature.

    Raises
    ------
    VerificationError
        If a file differs, or the signature is missing or made by another key; the message names it.
    """
    with artifacts.model_files(client, version.name, version.version) as folder:
        if version.digest is not None:
            try:
                manifest.check_files(folder, version.digest)
            except VerificationError:
                # Download the manifest only now, to name the differing file.
                made = artifacts.download_manifest(client, version)
                manifest.check_files(folder, version.digest, made.model if made is not None else None)
                raise
        if trust_policy.public_key is not None:
            with artifacts.evidence_files(client, version, {MANIFEST_FILE, SIGNATURE_FILE}) as evidence:
                check_signature(folder, evidence, trust_policy.public_key)
        # The digest does not cover these files, so remove them.
        for name in manifest.WRITTEN_ON_LOAD:
            (folder / name).unlink(missing_ok=True)
        yield folder


def check_signature(model: Path, evidence: Path | None, public_key: Path) -> None:
    """Compare a model folder with the signed manifest in an evidence folder.

    Raises
    ------
    VerificationError
        If the signature is missing or made by another key, or a file differs from the manifest.
    """
    signed = signing.signed_manifest(evidence, public_key)
    manifest.check_files(model, manifest.digest_of(signed.model), signed.model)


@contextlib.contextmanager
def verified_evidence(
    client: MlflowClient, version: VersionInfo, trust_policy: TrustPolicy, only: Collection[str] | None = None
) -> Iterator[Path | None]:
    """Yield a folder with the verified evidence of a version; None if its run has none.

    The evidence is compared with the digest of the version and, if the trust policy has a key, its
    signature. A version without digests and without a manifest cannot be compared; its evidence is
    yielded unverified.

    Parameters
    ----------
    client, version, trust_policy
        The registry, the version, and the trust policy with the public key, if a signature is required.
    only
        The names of the files to download and compare; None takes all.

    Raises
    ------
    VerificationError
        If a file was changed, added or removed, the version has a manifest but no digests, or the
        signature is missing or made by another key.
    """
    names = {*only, MANIFEST_FILE, SIGNATURE_FILE} if only is not None else None
    with artifacts.evidence_files(client, version, names) as folder:
        check_evidence(folder, version, trust_policy, only)
        yield folder


def check_evidence(
    folder: Path | None, version: VersionInfo, trust_policy: TrustPolicy, only: Collection[str] | None = None
) -> None:
    """Compare an evidence folder, or some of its files, with its manifest, digest and signature.

    Raises
    ------
    VerificationError
        As for `verified_evidence`.
    """
    found = manifest.read_manifest(folder) if folder is not None else None
    if trust_policy.public_key is not None:
        found = signing.signed_manifest(folder, trust_policy.public_key)
    if found is None or folder is None:
        if version.evidence_digest is not None:
            raise VerificationError(
                f"{EVIDENCE}/{MANIFEST_FILE} is missing or not readable: restore it, or register the model "
                "again"
            )
        return
    if version.digest is None or version.evidence_digest is None:
        # Otherwise a user who may write tags could disable these checks.
        raise VerificationError(
            f"the digest tags of the version were removed; restore {DIGEST_TAG} and "
            f"{EVIDENCE_DIGEST_TAG} of {version.name} version {version.version}, which has "
            f"{EVIDENCE}/{MANIFEST_FILE}, or register the model again; if `adopt` was interrupted, repeat it"
        )
    # The manifest may belong to another version. The tag of the ONNX file is set last, so it may be missing.
    parts = (
        (found.model, version.digest),
        (found.evidence, version.evidence_digest),
        (found.onnx, version.tags.get(ONNX_DIGEST_TAG)),
    )
    if any(digest not in (None, manifest.digest_of(part)) for part, digest in parts):
        raise VerificationError(
            f"{EVIDENCE}/{MANIFEST_FILE} was changed: its digests differ from the digests of {version.name} "
            f"version {version.version}; restore it, or register the model again"
        )
    manifest.check_evidence(folder, found, only)


def sign(client: MlflowClient, version: VersionInfo, key: Path) -> str:
    """Sign the manifest of a version, add the signature to its evidence, and return its path.

    The files are compared with the digests first, so that a changed file is never signed. A version
    without a manifest gets a manifest and digests.

    Raises
    ------
    VerificationError
        If a file differs from the digests.
    InputError
        If the key cannot be used.
    UnsupportedOperation
        If the version has no run to store the signature, its run holds the evidence of another model,
        or the extra `signing` is not installed.
    """
    with (
        verified_files(client, version, TrustPolicy()) as folder,
        verified_evidence(client, version, TrustPolicy()) as evidence,
        tempfile.TemporaryDirectory() as scratch,
    ):
        if evidence is not None:
            shutil.copytree(evidence, scratch, dirs_exist_ok=True)
        model = manifest.manifest_of(folder)
        made = manifest.read_manifest(Path(scratch)) or manifest.write_manifest(Path(scratch), model)
        if made.model != model:
            raise UnsupportedOperation(
                f"run {version.run_id} holds the evidence of a model other than {version.name} version "
                f"{version.version}: log each model in a separate run"
            )
        signing.sign(Path(scratch), key)
        for name in (MANIFEST_FILE, SIGNATURE_FILE):
            artifacts.add_evidence(client, version, Path(scratch, name))
        if version.digest is None:
            parts = {DIGEST_TAG: made.model, EVIDENCE_DIGEST_TAG: made.evidence}
            registry.set_tags(client, version, {tag: manifest.digest_of(part) for tag, part in parts.items()})
    return f"{EVIDENCE}/{SIGNATURE_FILE}"
