"""Sign a payload, and verify signed payloads, in DSSE envelopes.

DSSE (Dead Simple Signing Envelope) is the format of in-toto, Sigstore and SLSA. The signature covers the
payload and its type, and the envelope is JSON text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from registry_tools.errors import InputError, UnsupportedOperation, VerificationError

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_MAX_SIGNATURES = 10  # bounds the time that an envelope from an untrusted user can take
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_KEY_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm)
_CREATE_KEY = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem"


def sign_envelope(payload: bytes, payload_type: str, private_key: Path, password: str | None = None) -> str:
    """Sign a payload, and return the envelope as JSON text.

    Parameters
    ----------
    payload, payload_type
        The signed bytes, and their media type.
    private_key
        A file with an elliptic-curve or Ed25519 private key in PEM format.
    password
        The password of an encrypted key.

    Raises
    ------
    InputError
        If the key is of another kind, or the password is missing or wrong.
    UnsupportedOperation
        If the extra `signing` is not installed.
    """
    dsse, signer = _import_securesystemslib()
    secret = password.encode() if password else None
    try:
        key = serialization.load_pem_private_key(private_key.read_bytes(), secret)
    except OSError as error:
        raise InputError(f"--key {private_key}: {error.strerror}") from error
    except _KEY_ERRORS as error:
        raise InputError(
            f"--key {private_key} is not a private key in PEM format, or its password is missing or wrong; "
            f"create a key with: {_CREATE_KEY}"
        ) from error
    if not _is_supported(key.public_key()):
        raise InputError(f"--key {private_key} is of an unsupported kind; create a key with: {_CREATE_KEY}")
    envelope = dsse.Envelope(payload, payload_type, {})
    envelope.sign(signer.CryptoSigner(key))
    return json.dumps(envelope.to_dict())


def verify_envelope(
    text: str, keys: Mapping[str, str], payload_type: str = PAYLOAD_TYPE
) -> tuple[bytes, str]:
    """Return the payload of an envelope and the name of the key that signed it.

    Parameters
    ----------
    text
        The envelope as JSON text, from an untrusted user.
    keys
        Public keys in PEM format, by name. The name decides, not the key id in the envelope, because the
        signature does not cover that id.
    payload_type
        The media type that the payload must have.

    Raises
    ------
    VerificationError
        If the text is not an envelope of this type, or none of the keys signed it.
    PolicyError
        If a key is not an elliptic-curve or Ed25519 public key in PEM format.
    UnsupportedOperation
        If the extra `signing` is not installed.
    """
    dsse, signer = _import_securesystemslib()
    from securesystemslib.exceptions import UnverifiedSignatureError

    envelope = _parse(text, dsse, signer)
    if envelope.payload_type != payload_type:
        raise VerificationError(
            f"the envelope has the type {envelope.payload_type[:60]!r}, not {payload_type}"
        )
    signed = envelope.pae()
    for name, pem in keys.items():
        public = load_public_key(pem)
        for signature in envelope.signatures.values():
            key = signer.SSlibKey.from_crypto(public, signature.keyid)
            try:
                key.verify_signature(signature, signed)
            except UnverifiedSignatureError:
                continue
            return envelope.payload, name
    names = ", ".join(keys) or "none"
    raise VerificationError(f"no key of the evaluators signed the envelope; the evaluators are: {names}")


def load_public_key(pem: str) -> Any:
    """Return an elliptic-curve or Ed25519 public key.

    Raises
    ------
    ValueError
        If the text is not such a key in PEM format.
    """
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except _KEY_ERRORS as error:
        raise ValueError(
            "not a public key in PEM format; create it with: openssl pkey -in key.pem -pubout"
        ) from error
    if not _is_supported(key):
        raise ValueError("not an elliptic-curve key (P-256, P-384 or P-521) or an Ed25519 key")
    return key


def _is_supported(key: Any) -> bool:
    on_curve = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)
    return on_curve or isinstance(key, ed25519.Ed25519PublicKey)


def _parse(text: str, dsse: Any, signer: Any) -> Envelope:
    """Read an envelope. Its signatures get numbers as key ids, because their own ids are optional."""
    try:
        content = json.loads(text)
        found = content["signatures"]
        if not isinstance(found, list) or not 0 < len(found) <= _MAX_SIGNATURES:
            raise ValueError(f"it must have 1 to {_MAX_SIGNATURES} signatures")
        signatures = {
            str(number): signer.Signature(str(number), _decode(each["sig"]).hex())
            for number, each in enumerate(found)
        }
        envelope = dsse.Envelope(_decode(content["payload"]), content["payloadType"], signatures)
        envelope.pae()  # refuses a type that is not UTF-8 text
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise VerificationError(
            f"the text is not a DSSE envelope: {' '.join(str(error).split())[:100]}"
        ) from error
    return envelope


def _decode(text: str) -> bytes:
    """Decode one of the two alphabets of base64, which DSSE allows."""
    return base64.b64decode(text.translate({ord("-"): "+", ord("_"): "/"}), validate=True)


def _import_securesystemslib() -> tuple[Any, Any]:
    try:
        from securesystemslib import dsse, signer
    except ModuleNotFoundError as error:
        raise UnsupportedOperation(
            f"signed verdicts need the extra `signing` ({error.name} is not installed): "
            "pip install 'registry-pipeline[signing]'"
        ) from error
    return dsse, signer
