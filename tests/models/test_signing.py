"""Signatures: the stock tool verifies ours, and unsigned models are not loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from sklearn.linear_model import LogisticRegression

from pipeline.params.definitions import TrainParams
from pipeline.training.train import train
from registry_tools import load_model
from registry_tools.cli.main import main
from registry_tools.errors import UnsupportedOperation, VerificationError
from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.client import connect
from registry_tools.models import artifacts, manifest, signing
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.policy.tag_names import DIGEST_TAG
from registry_tools.promotion import history
from registry_tools.refs import ModelRef, parse_ref
from tests.support.registries import GOOD, Place, evidence_folder, renew_manifest
from tests.support.servers import BIN
from tests.support.signing_keys import write_keys


@pytest.fixture
def signed(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A reference to a version that the key `ours.pem` has signed."""
    name = place.model(GOOD)
    write_keys(tmp_path, "ours")
    assert main(["sign", f"{name}/1", "--key", "ours.pem"]) == 0
    assert capsys.readouterr().out.startswith(f"signed  {name} version 1: evidence/manifest.sig")
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
    assert "the signature does not match evidence/manifest.json and the key theirs.pub.pem" in wrong
    bare = f"{place.model(GOOD)}/1"
    # The evidence is the run's, and the runs are shared: the same files are signed.
    assert main([command, bare, *options, "--public-key", "ours.pub.pem"]) == 0
    assert "needs --public-key FILE" in error_of(
        capsys, command, signed, *options, "--require-signature", code=2
    )


def test_a_missing_signature_and_a_changed_byte_are_refused(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(TrainParams(plots=False))
    write_keys(tmp_path, "ours")
    monkeypatch.setenv("REGISTRY_TOOLS_PUBLIC_KEY", "ours.pub.pem")
    with pytest.raises(VerificationError, match="the version has no signature, but one is required"):
        load_model("iris/1")
    assert main(["sign", "iris/1", "--key", "ours.pem"]) == 0
    assert load_model("iris/1").info.version == 1
    assert load_model("iris/1", public_key="ours.pub.pem").info.version == 1
    capsys.readouterr()

    # Whoever may write to the registry may change the files and the digests, but not sign.
    folder = Path(connect(store).get_model_version_download_uri("iris", "1"))
    place = Place(store, tmp_path)
    description = folder / "MLmodel"
    text = description.read_text()
    description.write_text(text + "# changed\n")
    renew_manifest(place, "iris", 1)
    with pytest.raises(VerificationError, match=r"evidence/manifest\.json and the key ours\.pub\.pem"):
        load_model("iris/1")
    description.write_text(text)
    renew_manifest(place, "iris", 1)
    assert load_model("iris/1").info.version == 1
    description.write_text(text + "# changed\n")
    digest = manifest.digest_of(manifest.manifest_of(folder))
    place.client.set_model_version_tag("iris", "1", DIGEST_TAG, digest)
    with pytest.raises(VerificationError, match="MLmodel was changed after registration"):
        load_model("iris/1")


@pytest.mark.slow
def test_the_signature_covers_the_evidence(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(TrainParams(plots=False))
    write_keys(tmp_path, "ours")
    assert main(["sign", "iris/1", "--key", "ours.pem"]) == 0
    verify = ["verify", "iris/1", "--public-key", "ours.pub.pem"]
    assert main(verify) == 0
    place = Place(store, tmp_path)
    path = evidence_folder(place, "iris", 1) / "recorded_predictions.json"
    path.write_text(path.read_text() + " ")
    renew_manifest(place, "iris", 1)
    assert main(verify[:2]) == 0
    capsys.readouterr()
    assert "the signature does not match evidence/manifest.json and the key ours.pub.pem" in error_of(
        capsys, *verify
    )
    assert load_model("iris/1").info.version == 1


def test_a_version_without_a_manifest_can_be_signed(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            LogisticRegression().fit([[0.0], [1.0]], ["no", "yes"]),
            name="model",
            registered_model_name="plain",
            pip_requirements=[],
        )
    write_keys(tmp_path, "ours")
    with pytest.raises(VerificationError, match="the version has no signature, but one is required"):
        load_model("plain/1", public_key="ours.pub.pem")
    assert main(["sign", "plain/1", "--key", "ours.pem"]) == 0
    assert load_model("plain/1", public_key="ours.pub.pem").info.version == 1


def test_the_stock_tool_accepts_what_we_sign(place: Place, signed: str, tmp_path: Path) -> None:
    version = registry.find_version(place.client, ModelRef(signed.partition("/")[0], version=1))
    with artifacts.evidence_files(place.client, version) as folder:
        done = subprocess.run(
            [
                *(BIN / "model_signing", "verify", "key", f"{folder}/manifest.json"),
                *("--signature", f"{folder}/manifest.sig", "--public_key", tmp_path / "ours.pub.pem"),
            ],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr + done.stdout


def test_a_signature_is_checked_without_downloading_the_evidence(
    signed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded = []
    download = mlflow.artifacts.download_artifacts

    def record(*arguments: Any, **options: Any) -> str:
        downloaded.append(options["artifact_uri"].rpartition("/")[2])
        return download(*arguments, **options)

    monkeypatch.setattr(mlflow.artifacts, download.__name__, record)
    assert load_model(signed, public_key="ours.pub.pem").info.version == 1
    assert downloaded[1:] == ["manifest.json", "manifest.sig"]
    downloaded.clear()
    assert load_model(signed).info.version == 1
    assert len(downloaded) == 1


def test_a_server_verifies_the_signature_of_its_cache(place: Place, signed: str, tmp_path: Path) -> None:
    trust_policy = TrustPolicy(public_key=tmp_path / "ours.pub.pem")
    fetcher = ArtifactFetcher(parse_ref(signed), trust_policy, place.uri, tmp_path / "cache")
    fetched = fetcher.fetch(fetcher.resolve())
    assert fetched.recorded_predictions.is_file()
    fetcher.write_cache(fetched)
    assert fetcher.read_cached() is not None
    assert not list(tmp_path.rglob("*.parquet"))
    (kept,) = (tmp_path / "cache").rglob("current/manifest.sig")
    kept.unlink()
    with pytest.raises(VerificationError, match="the version has no signature"):
        fetcher.read_cached()
    fetcher.close()


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
    message = missing if kind == "missing" else "is not an elliptic-curve private key"
    assert f"--key {file}" in err
    assert message in err
    err = error_of(capsys, "predict", ref, "--features", "1,2,3,4", "--public-key", "text.pem")
    assert "--public-key text.pem is not a public key in PEM format" in err
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
        signing.signed_manifest(tmp_path, tmp_path / "key.pem")


def test_verify_reports_the_signature(
    signed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", signed, "--public-key", "ours.pub.pem", "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["gates"][0]["message"].endswith("signed with ours.pub.pem")
