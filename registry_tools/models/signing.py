"""Signatures over a model's files, in the OpenSSF format that `model_signing verify` reads.

The digest that a version carries says that nobody changed the files since; whoever may write to the
registry may write both. A signature says who made them. It covers the files, not the version: an
older version that was signed stays signed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature

from registry_tools.errors import InputError, UnsupportedOperation, VerificationError, first_line
from registry_tools.models import manifest

_NO_SIGNATURE = (
    *(InvalidSignature, ValueError, LookupError, TypeError),
    *(AttributeError, OSError, RecursionError),
)
PASSWORD_VARIABLE = "REGISTRY_TOOLS_KEY_PASSWORD"


def file_name(digest: str) -> str:
    """Return the name of the signature file in the evidence of a run."""
    return f"model-{digest[:12]}.sig"


def sign(folder: Path, key: Path, signature: Path) -> None:
    """Sign the files of a model with an elliptic-curve private key, PEM.

    The password of an encrypted key is taken from REGISTRY_TOOLS_KEY_PASSWORD.

    Raises
    ------
    InputError
        If the key is none of that kind, or the password is missing or wrong.
    UnsupportedOperation
        If the extra `signing` is not installed.
    """
    hashing, signing, _ = _library()
    _check_readable("--key", key)
    password = os.environ.get(PASSWORD_VARIABLE)
    files = hashing.Config().set_ignored_paths(paths=sorted(manifest.WRITTEN_ON_LOAD))
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
    signer.set_hashing_config(files).sign(folder, signature)


def check(folder: Path, signature: Path | None, public_key: Path) -> None:
    """Compare the files of a model with their signature.

    Raises
    ------
    VerificationError
        If there is no signature, another key made it, or a file is not as it was signed.
    InputError, UnsupportedOperation
        As `verifier`.
    """
    verifying = verifier(public_key)
    if signature is None:
        raise VerificationError(
            "it has no signature, and one is required: registry-tools sign REF --key KEY makes it"
        )
    try:
        verifying.verify(folder, signature)
    # A file that is no signature is read as JSON without a look at its parts.
    except _NO_SIGNATURE as error:
        # The library adds the digests, as Python writes its own objects.
        reason = first_line(error, 150).partition(": Expected")[0].replace("\\'", "'")
        raise VerificationError(
            f"its signature was not made by {public_key} over these files: {reason}"
        ) from error


def verifier(public_key: Path) -> Any:
    """Return what verifies signatures of a public key.

    Raises
    ------
    InputError
        If it is none.
    UnsupportedOperation
        If the extra `signing` is not installed.
    """
    _, _, verifying = _library()
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


def _library() -> tuple[Any, Any, Any]:
    try:
        from model_signing import hashing, signing, verifying
    except ModuleNotFoundError as error:
        raise UnsupportedOperation(
            f"signatures need the extra `signing` ({error.name} is not installed): "
            "pip install 'registry-pipeline[signing]'"
        ) from error
    return hashing, signing, verifying
