"""Envelopes: which keys sign and verify, and that no text causes another error."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from registry_tools.attestation import envelope as envelopes
from registry_tools.attestation.envelope import PAYLOAD_TYPE, sign_envelope, verify_envelope
from registry_tools.errors import InputError, UnsupportedOperation, VerificationError
from tests.support.policies import keys
from tests.support.signing_keys import write_keys

PUBLIC = {name: pem for name, (_, pem) in keys().items()}
PAYLOAD = b'{"a": 1}'
SIGNED = sign_envelope(PAYLOAD, PAYLOAD_TYPE, keys()["ci"][0])


def only(*names: str) -> dict[str, str]:
    return {name: PUBLIC[name] for name in names}


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-256", "P-384", "P-521", "Ed25519"],
)
def test_each_supported_key_signs_and_verifies(tmp_path: Path, key: Any) -> None:
    text = sign_envelope(PAYLOAD, PAYLOAD_TYPE, write_keys(tmp_path, "key", key))
    public = (tmp_path / "key.pub.pem").read_text()
    assert verify_envelope(text, {"other": PUBLIC["ci"], "mine": public}) == (PAYLOAD, "mine")


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256K1())],
    ids=["RSA", "secp256k1"],
)
def test_other_kinds_of_keys_are_refused(tmp_path: Path, key: Any) -> None:
    private = write_keys(tmp_path, "key", key)
    with pytest.raises(InputError, match=r"key\.pem is of an unsupported kind; create a key with: openssl"):
        sign_envelope(PAYLOAD, PAYLOAD_TYPE, private)
    with pytest.raises(ValueError, match="not an elliptic-curve key"):
        envelopes.load_public_key((tmp_path / "key.pub.pem").read_text())


def test_a_key_file_that_does_not_serve_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pem: No such file"):
        sign_envelope(PAYLOAD, PAYLOAD_TYPE, tmp_path / "none.pem")
    (tmp_path / "text.pem").write_text("no key")
    with pytest.raises(InputError, match=r"text\.pem is not a private key in PEM format"):
        sign_envelope(PAYLOAD, PAYLOAD_TYPE, tmp_path / "text.pem")
    encrypted = write_keys(tmp_path, "encrypted", password=b"secret")
    for wrong in (None, "other"):
        with pytest.raises(InputError, match="its password is missing or wrong"):
            sign_envelope(PAYLOAD, PAYLOAD_TYPE, encrypted, wrong)
    text = sign_envelope(PAYLOAD, PAYLOAD_TYPE, encrypted, "secret")
    assert verify_envelope(text, {"key": (tmp_path / "encrypted.pub.pem").read_text()}) == (PAYLOAD, "key")


def test_the_name_of_the_key_that_signed_is_returned() -> None:
    assert verify_envelope(SIGNED, PUBLIC) == (PAYLOAD, "ci")
    assert verify_envelope(SIGNED, only("nightly", "ci")) == (PAYLOAD, "ci")


def test_a_signature_by_another_key_is_refused() -> None:
    with pytest.raises(VerificationError, match="the evaluators are: nightly, stranger"):
        verify_envelope(SIGNED, only("nightly", "stranger"))
    with pytest.raises(VerificationError, match="the evaluators are: none"):
        verify_envelope(SIGNED, {})


def test_one_of_two_signatures_is_enough_in_any_order() -> None:
    theirs = json.loads(sign_envelope(PAYLOAD, PAYLOAD_TYPE, keys()["stranger"][0]))["signatures"]
    both = json.loads(SIGNED)
    for signatures in ([*theirs, *both["signatures"]], [*both["signatures"], *theirs]):
        text = json.dumps(both | {"signatures": signatures})
        assert verify_envelope(text, only("ci")) == (PAYLOAD, "ci")
        with pytest.raises(VerificationError, match="no key of the evaluators"):
            verify_envelope(text, only("nightly"))


def test_the_key_id_is_ignored_because_it_is_not_signed() -> None:
    content = json.loads(SIGNED)
    content["signatures"][0]["keyid"] = "another"
    assert verify_envelope(json.dumps(content), only("ci")) == (PAYLOAD, "ci")
    del content["signatures"][0]["keyid"]
    assert verify_envelope(json.dumps(content), only("ci")) == (PAYLOAD, "ci")


def test_the_base64_of_urls_is_read_too() -> None:
    payload = bytes(range(256))  # its base64 contains + and /
    content = json.loads(sign_envelope(payload, PAYLOAD_TYPE, keys()["ci"][0]))
    content["payload"] = content["payload"].replace("+", "-").replace("/", "_")
    assert verify_envelope(json.dumps(content), only("ci")) == (payload, "ci")


def test_an_edited_payload_or_type_is_refused() -> None:
    content = json.loads(SIGNED)
    edited = content | {"payload": base64.b64encode(PAYLOAD + b" ").decode()}
    with pytest.raises(VerificationError, match="no key of the evaluators signed"):
        verify_envelope(json.dumps(edited), PUBLIC)
    with pytest.raises(VerificationError, match="has the type 'text/plain', not application/vnd"):
        verify_envelope(json.dumps(content | {"payloadType": "text/plain"}), PUBLIC)
    with pytest.raises(VerificationError, match="no key of the evaluators signed"):
        verify_envelope(json.dumps(content | {"payloadType": "text/plain"}), PUBLIC, "text/plain")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
like_envelopes = st.fixed_dictionaries(
    {},
    optional={
        "payload": json_values | st.just(json.loads(SIGNED)["payload"]),
        "payloadType": json_values | st.just(PAYLOAD_TYPE),
        "signatures": json_values
        | st.lists(st.fixed_dictionaries({}, optional={"sig": json_values | st.just("AAAA")}), max_size=12),
    },
)


@given(st.text() | json_values.map(json.dumps) | like_envelopes.map(json.dumps))
def test_any_other_text_is_one_verification_error(text: str) -> None:
    with pytest.raises(VerificationError) as caught:
        verify_envelope(text, PUBLIC)
    assert "\n" not in str(caught.value)


@given(st.integers(0, len(SIGNED) - 1), st.characters())
def test_an_envelope_with_one_other_character_returns_nothing_else(place: int, character: str) -> None:
    text = SIGNED[:place] + character + SIGNED[place + 1 :]
    try:
        found = verify_envelope(text, PUBLIC)
    except VerificationError:
        return
    assert found == (PAYLOAD, "ci")  # for example, the change was in the key id


@pytest.mark.parametrize("text", ["[" * 100_000, '{"payload":' * 100_000, "9" * 5_000, "\ud800"])
def test_text_that_breaks_parsers_is_one_verification_error(text: str) -> None:
    with pytest.raises(VerificationError, match="the text is not a DSSE envelope"):
        verify_envelope(text, PUBLIC)


def test_many_signatures_are_refused_before_any_is_verified() -> None:
    content = json.loads(SIGNED)
    content["signatures"] *= 11
    with pytest.raises(VerificationError, match="must have 1 to 10 signatures"):
        verify_envelope(json.dumps(content), PUBLIC)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "securesystemslib", None)
    for use in (
        lambda: verify_envelope(SIGNED, PUBLIC),
        lambda: sign_envelope(PAYLOAD, PAYLOAD_TYPE, keys()["ci"][0]),
    ):
        with pytest.raises(
            UnsupportedOperation, match=r"need the extra `signing` .*registry-pipeline\[signing\]"
        ):
            use()


def test_a_policy_is_read_without_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['securesystemslib'] = None\n"
        "import registry_tools.policy.decision, registry_tools.policy.policy_file\n"
        "assert 'mlflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
