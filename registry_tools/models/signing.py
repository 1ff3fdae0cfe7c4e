"""Sign the manifest of a version, and verify signatures, in the OpenSSF format of `model_signing`.

The digests of a version show that its files did not change after the registration. But a user who may
write to the registry can change both. A signature also proves the owner of the key. The manifest
lists each file of the model and of the evidence, so that verifying a model needs the manifest and its
signature only. A signature covers the files, not the version number: an older signed version stays
valid.
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
    """Sign the manifest in an evidence folder, and write the signature to the same folder.

    The key is an elliptic-curve private key in PEM format. The password of an encrypted key comes from
    REGISTRY_TOOLS_KEY_PASSWORD.

    Raises
    ------
    InputError
        If the key is of another kind, or the password is missing or wrong.
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
    # For an RSA key, the library raises AttributeError, because the key has no curve.
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"--key {key} is not an elliptic-curve private key in PEM format, or "
            f"{PASSWORD_VARIABLE} has the wrong password; create a key with: "
            "openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
        ) from error
    signer.sign(folder / MANIFEST_FILE, folder / SIGNATURE_FILE)


def signed_manifest(folder: Path | None, public_key: Path) -> VersionManifest:
    """Return the manifest in an evidence folder, after verifying its signature.

    Raises
    ------
    VerificationError
        If the signature is missing, was made by another key, or does not match the manifest.
    InputError, UnsupportedOperation
        As for `verifier`.
    """
    verifying = verifier(public_key)
    if folder is None or not (folder / SIGNATURE_FILE).is_file():
        raise VerificationError(
            "the version has no signature, but one is required; run: registry-tools sign REF --key KEY"
        )
    try:
        verifying.verify(folder / MANIFEST_FILE, folder / SIGNATURE_FILE)
    # The library parses any file as JSON without checks, so it may raise many errors.
    except _VERIFY_ERRORS as error:
        # Remove the digests, which the library appends in Python's notation.
        reason = first_line(error, 150).partition(": Expected")[0].replace("\\'", "'")
        raise VerificationError(
            f"the signature does not match {EVIDENCE}/{MANIFEST_FILE} and the key {public_key}: {reason}"
        ) from error
    found = read_manifest(folder)
    if found is None:
        raise VerificationError(f"{EVIDENCE}/{MANIFEST_FILE} is signed, but it is not a valid manifest")
    return found


def verifier(public_key: Path) -> Any:
    """Return a verifier for the signatures of a public key.

    Raises
    ------
    InputError
        If the file is not a public key.
    UnsupportedOperation
        If the extra `signing` is not installed.
    """
    _, verifying = _import_model_signing()
    _check_readable("--public-key", public_key)
    try:
        return verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"--public-key {public_key} is not a public key in PEM format; create it with: "
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
