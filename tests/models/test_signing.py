"""Signatures: the stock tool verifies ours, and unsigned models are not loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from registry_tools import load_model
from registry_tools.cli.main import main
from registry_tools.errors import UnsupportedOperation, VerificationError
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.client import connect
from registry_tools.models import artifacts, signing
from registry_tools.promotion import history
from registry_tools.refs import ModelRef
from tests.support.registries import GOOD, Place
from tests.support.servers import BIN
from tests.support.signing_keys import write_keys


@pytest.fixture
def signed(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A reference to a version that the key `ours.pem` has signed."""
    name = place.model(GOOD)
    write_keys(tmp_path, "ours")
    assert main(["sign", f"{name}/1", "--key", "ours.pem"]) == 0
    assert capsys.readouterr().out.startswith(f"signed  {name} version 1: evidence/model-")
    return f"{name}/1"


def error_of(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 1) -> str:
    assert main(argv) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


COMMANDS = {
    "predict": ["--features", "6.0,2.5,4.5,1.5"],
    "export": ["-o", "model.joblib"],
    "promote": ["--to", "production"],
    "verify": [],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_signed_is_taken_by_every_loading_command(
    signed: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--require-signature", "--public-key", "ours.pub.pem"]
    assert main([command, signed, *COMMANDS[command], *asked]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_another_key_and_no_signature_are_refused(
    place: Place, signed: str, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_keys(tmp_path, "theirs")
    code = 3 if command == "promote" else 1
    options = COMMANDS[command]
    wrong = error_of(capsys, command, signed, *options, "--public-key", "theirs.pub.pem", code=code)
    assert "signature was not made by theirs.pub.pem" in wrong
    bare = f"{place.model(GOOD)}/1"
    # The evidence is the run's, and the runs are shared: the same files are signed.
    assert main([command, bare, *options, "--public-key", "ours.pub.pem"]) == 0
    assert "needs --public-key FILE" in error_of(
        capsys, command, signed, *options, "--require-signature", code=2
    )


def test_a_missing_signature_and_a_changed_byte_are_refused(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.params.definitions import TrainParams
    from pipeline.training.train import train

    train(TrainParams(plots=False))
    write_keys(tmp_path, "ours")
    monkeypatch.setenv("REGISTRY_TOOLS_PUBLIC_KEY", "ours.pub.pem")
    with pytest.raises(VerificationError, match="it has no signature, and one is required"):
        load_model("iris/1")
    assert main(["sign", "iris/1", "--key", "ours.pem"]) == 0
    assert load_model("iris/1").info.version == 1
    assert load_model("iris/1", public_key="ours.pub.pem").info.version == 1
    capsys.readouterr()

    # Whoever may write to the registry may change the files and the digest, but not sign.
    client = connect(store)
    folder = Path(client.get_model_version_download_uri("iris", "1"))
    description = folder / "MLmodel"
    text = description.read_text()
    description.write_text(text + "# changed\n")
    from registry_tools.models import manifest

    digest = manifest.digest_of(manifest.manifest_of(folder))
    client.set_model_version_tag("iris", "1", registry.DIGEST_TAG, digest)
    (signature,) = tmp_path.rglob("model-*.sig")
    signature.rename(signature.with_name(signing.file_name(digest)))
    with pytest.raises(VerificationError, match="Hash mismatch for 'MLmodel'"):
        load_model("iris/1")
    description.write_text(text)
    (folder / "more.txt").write_text("more")
    digest = manifest.digest_of(manifest.manifest_of(folder))
    client.set_model_version_tag("iris", "1", registry.DIGEST_TAG, digest)
    with pytest.raises(VerificationError, match="it has no signature"):
        load_model("iris/1")


def test_the_stock_tool_accepts_what_we_sign(place: Place, signed: str, tmp_path: Path) -> None:
    version = registry.find_version(place.client, ModelRef(signed.partition("/")[0], version=1))
    name = signing.file_name(str(version.digest))
    with (
        artifacts.model_files(place.client, version.name, 1) as folder,
        artifacts.evidence_file(place.client, version, name) as signature,
    ):
        done = subprocess.run(
            [
                *(BIN / "model_signing", "verify", "key", folder),
                *("--signature", str(signature), "--public_key", tmp_path / "ours.pub.pem"),
            ],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr + done.stdout


def test_a_signed_version_may_be_served_by_mlflow_and_stays_signed(signed: str) -> None:
    import mlflow

    mlflow.pyfunc.load_model(f"models:/{signed}")  # writes into a local folder
    assert load_model(signed, public_key="ours.pub.pem").info.version == 1


@pytest.mark.parametrize("kind", ["missing", "public", "rsa", "encrypted", "no key"])
def test_a_key_that_does_not_serve_is_named(
    local: Place, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ref = f"{local.model(GOOD)}/1"
    write_keys(tmp_path, "ours")
    write_keys(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    write_keys(tmp_path, "encrypted", password=b"secret")
    (tmp_path / "text.pem").write_text("no key")
    file = {"public": "ours.pub.pem", "no key": "text.pem"}.get(kind, f"{kind}.pem")
    err = error_of(capsys, "sign", ref, "--key", file)
    missing = "No such file or directory"
    message = missing if kind == "missing" else "is no private key on an elliptic curve"
    assert f"--key {file}" in err
    assert message in err
    err = error_of(capsys, "predict", ref, "--features", "1,2,3,4", "--public-key", "text.pem")
    assert "--public-key text.pem is no public key in PEM form" in err
    promote = ["promote", ref, "--to", "production"]
    assert missing in error_of(capsys, *promote, "--public-key", "none.pem")
    assert history.list_events(local.client, ref.partition("/")[0]) == []


def test_an_encrypted_key_is_opened_by_its_password(
    local: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = f"{local.model(GOOD)}/1"
    write_keys(tmp_path, "encrypted", password=b"secret")
    monkeypatch.setenv(signing.PASSWORD_VARIABLE, "secret")
    assert main(["sign", ref, "--key", "encrypted.pem"]) == 0
    assert load_model(ref, public_key="encrypted.pub.pem").info.version == 1


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(UnsupportedOperation, match=r"registry-pipeline\[signing\]"):
        signing.check(tmp_path, None, tmp_path / "key.pem")


def test_verify_reports_the_signature(
    signed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", signed, "--public-key", "ours.pub.pem", "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["gates"][0]["message"].endswith("signed with ours.pub.pem")
