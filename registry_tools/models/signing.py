"""Signatures over a version's manifest, in the OpenSSF format that `model_signing verify` reads.

The digests of a version show that its files were not changed since; a user who may write to
the registry may write both. A signature shows who made them. The manifest lists each file of the
model and of the evidence: to check a model takes the manifest and its signature, and no evidence.
It covers the files, not the version: an older version that was signed stays signed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature

from registry_tools.errors import InputError, UnsupportedOperation, VerificationError, first_line
from registry_tools.models.manifest import (
    EVIDENCE,
    MANIFEST_FILE,
    SIGNATURE_FILE,
    VersionManifest,
    read_manifest,
)

_VERIFY_ERRORS = (
    *(InvalidSignature, ValueError, LookupError, TypeError),
    *(AttributeError, OSError, RecursionError),
)
PASSWORD_VARIABLE = "REGISTRY_TOOLS_KEY_PASSWORD"


def sign(folder: Path, key: Path) -> None:
    """Sign the manifest in an evidence folder with an elliptic-curve private key, PEM.

    The signature is written to the same folder. The password of an encrypted key is taken from
    REGISTRY_TOOLS_KEY_PASSWORD.

    Raises
    ------
    InputError
        If the key is none of that kind, or the password is missing or wrong.
    UnsupportedOperation
        If the extra `signing` is not installed.
    """
    signing, _ = _import_model_signing()
    _check_readable("--key", key)
    password = os.environ.get(PASSWORD_VARIABLE)
    try:
        signer = signing.Config().use_elliptic_key_signer(
            private_key=key, password=password.encode() if password else None
        )
    # An RSA key has no curve, and the library looks for one.
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"--key {key} is no private key on an elliptic curve in PEM form, or "
            f"{PASSWORD_VARIABLE} does not open it; make one with: "
            "openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
        ) from error
    signer.sign(folder / MANIFEST_FILE, folder / SIGNATURE_FILE)


def signed_manifest(folder: Path | None, public_key: Path) -> VersionManifest:
    """Return the manifest in an evidence folder, compared with its signature.

    Raises
    ------
    VerificationError
        If there is no signature, another key made it, or the manifest differs from the signed one.
    InputError, UnsupportedOperation
        As `verifier`.
    """
    verifying = verifier(public_key)
    if folder is None or not (folder / SIGNATURE_FILE).is_file():
        raise VerificationError(
            "it has no signature, and one is required: registry-tools sign REF --key KEY makes it"
        )
    try:
        verifying.verify(folder / MANIFEST_FILE, folder / SIGNATURE_FILE)
    # The library reads any file as JSON, and does not check its parts.
    except _VERIFY_ERRORS as error:
        # The library adds the digests, as Python writes its own objects.
        reason = first_line(error, 150).partition(": Expected")[0].replace("\\'", "'")
        raise VerificationError(
            f"its signature was not made by {public_key} over {EVIDENCE}/{MANIFEST_FILE}: {reason}"
        ) from error
    found = read_manifest(folder)
    if found is None:
        raise VerificationError(f"{EVIDENCE}/{MANIFEST_FILE} is signed, but it is no manifest")
    return found


def verifier(public_key: Path) -> Any:
    """Return the verifier for signatures of a public key.

    Raises
    ------
    InputError
        If it is none.
    UnsupportedOperation
        If the extra `signing` is not installed.
    """
    _, verifying = _import_model_signing()
    _check_readable("--public-key", public_key)
    try:
        return verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"--public-key {public_key} is no public key in PEM form; make it with: "
            "openssl ec -in key.pem -pubout -out key.pub.pem"
        ) from error


def _check_readable(option: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise InputError(f"{option} {path}: {error.strerror}") from error


def _import_model_signing() -> tuple[Any, Any]:
    try:
        from model_signing import signing, verifying
    except ModuleNotFoundError as error:
        raise UnsupportedOperation(
            f"signatures need the extra `signing` ({error.name} is not installed): "
            "pip install 'registry-pipeline[signing]'"
        ) from error
    return signing, verifying
