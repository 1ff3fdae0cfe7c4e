"""Load and serve only versions that entered their stage with a verdict, and verify how they did."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from registry_tools import evaluate, load_model, verify
from registry_tools.errors import InvalidReference, PolicyError, VerificationError
from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.mlflow_store import stages
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.policy.policy_file import load_policy
from registry_tools.policy.records import Held
from registry_tools.policy.tag_names import head_tag, verdict_tag
from registry_tools.refs import parse_ref
from tests.support.commands import error_of
from tests.support.constants import LONG
from tests.support.policies import NOW, keys, signed, statement_for, write_policy
from tests.support.registries import EQUAL, GOOD, Place
from tests.support.servers import BIN, eventually, metric
from tests.support.serving import Serve

STAGE = "production"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "registry.yaml", approvals={"count": 0})


def verdict(place: Place, policy: Path, name: str, version: int, key: str = "ci", /, **changes: Any) -> str:
    """Return a signed verdict about a version, which expired long ago."""
    info = place.version(name, version)
    long_ago = NOW - timedelta(days=900)
    fields = {"model": name, "version": version, "model_digest": info.digest} | changes
    fields |= {"evidence_digest": info.evidence_digest, "evaluated_at": long_ago, "expires_at": long_ago}
    return signed(statement_for(load_policy(policy), **fields), key)


def put(place: Place, name: str, version: int, **tags: str) -> None:
    for kind, text in tags.items():
        place.client.set_model_version_tag(name, str(version), f"{kind}.{STAGE}", text)


def held(envelope: str | None, **changes: Any) -> str:
    record = Held(3, envelope, None, "ana", "then", "promote", "")
    return dataclasses.replace(record, **changes).to_text()


def load_refusal(ref: str) -> str:
    with pytest.raises(VerificationError) as caught:
        load_model(ref, require_verdict=True)
    return str(caught.value)


def test_a_version_is_loaded_with_an_expired_verdict_and_not_without(
    model: str, local: Place, policy: Path
) -> None:
    ref = f"{model}@{STAGE}"
    assert load_model(ref).info.version == 1
    assert f"{model} version 1 has no verdict for production, and a verdict is required" in load_refusal(ref)
    put(local, model, 1, verdict=verdict(local, policy, model, 1))
    assert load_model(ref, require_verdict=True).info.version == 1
    assert load_model(model, stage=STAGE, require_verdict=True).info.version == 1
    put(local, model, 1, verdict=verdict(local, policy, model, 1, "stranger"))
    assert "does not count: no key of the evaluators signed the envelope" in load_refusal(ref)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "it is about the version 2, not 1"),
        ({"stage": "staging"}, "it is about the stage staging"),
        ({"model_digest": "c" * 64}, "it is about the model digest ccc"),
        ({"passed": False}, "a gate refused the version"),
    ],
)
def test_a_verdict_about_something_else_is_refused(
    model: str, local: Place, policy: Path, changes: dict[str, Any], message: str
) -> None:
    put(local, model, 1, verdict=verdict(local, policy, model, 1, **changes))
    assert message in load_refusal(f"{model}@{STAGE}")


def test_the_record_of_a_gated_registry_decides(model: str, local: Place, policy: Path) -> None:
    ref, good = f"{model}@{STAGE}", verdict(local, policy, model, 1)
    put(local, model, 1, held=held(good), verdict="{}")
    assert load_model(ref, require_verdict=True).info.version == 1
    put(local, model, 1, held=held(None, action="force"), verdict=good)
    assert "version 1 was forced into production, and a verdict is required" in load_refusal(ref)
    put(local, model, 1, held="{}")
    assert "the tag held is not valid" in load_refusal(ref)


def test_changed_files_are_refused_although_the_verdict_is_good(local: Place, policy: Path) -> None:
    from tests.support.registries import crafted

    ref = crafted(local, lambda folder, content: None)
    name = ref.partition("/")[0]
    put(local, name, 2, verdict=verdict(local, policy, name, 2))
    stages.move_alias(local.client, name, STAGE, 2)
    assert load_model(f"{name}@{STAGE}", require_verdict=True).info.version == 2
    folder = Path(local.client.get_model_version_download_uri(name, "2"))
    (folder / "MLmodel").write_text((folder / "MLmodel").read_text() + "# changed\n")
    assert "MLmodel was changed after registration" in load_refusal(f"{name}@{STAGE}")


def test_a_stage_and_a_policy_are_needed(
    model: str, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidReference, match=f"a verdict is for a stage.*: write {model}@production"):
        load_model(f"{model}/1", require_verdict=True)
    serve = ["serve", f"{model}/1", "--require-verdict"]
    assert "a verdict is for a stage" in error_of(capsys, *serve, code=2)
    assert "--policy needs --require-verdict" in error_of(
        capsys, "serve", f"{model}@staging", "--policy", "x", code=2
    )
    stage = f"{model}@staging"
    stages_of_model = ["serve", stage, "--require-verdict", "--policy", "none.yaml"]
    assert "policy none.yaml: No such file" in error_of(capsys, *stages_of_model)
    policy.unlink()
    with pytest.raises(PolicyError, match="there is no policy"):
        load_model(f"{model}@{STAGE}", require_verdict=True)


def test_a_stage_that_the_policy_does_not_protect_is_refused(model: str, local: Place, policy: Path) -> None:
    stages.move_alias(local.client, model, "canary", 1)
    put(local, model, 1, verdict="{}")
    local.client.set_model_version_tag(model, "1", verdict_tag("canary"), "{}")
    assert "the policy does not protect canary" in load_refusal(f"{model}@canary")


def test_a_server_swaps_in_only_versions_with_a_verdict(
    serve: Serve, model: str, local: Place, policy: Path
) -> None:
    put(local, model, 1, verdict=verdict(local, policy, model, 1))
    client = serve(f"{model}@{STAGE}", "--require-verdict", "--policy", str(policy))
    stages.move_alias(local.client, model, STAGE, 2)
    eventually(lambda: client.get("/model").json()["candidate"] is not None)
    candidate = client.get("/model").json()["candidate"]
    assert "version 2 has no verdict for production, and a verdict is required" in candidate["error"]
    assert client.get("/model").json()["version"] == 1
    assert metric(client, "serving_failed_rollouts_total", reason="verification") >= 1
    put(local, model, 2, verdict=verdict(local, policy, model, 2))
    client.post("/-/refresh")
    eventually(lambda: client.get("/model").json()["version"] == 2)


@pytest.mark.slow
def test_a_server_does_not_start_without_a_verdict(model: str, policy: Path) -> None:
    command = [BIN / "registry-tools", "serve", f"{model}@{STAGE}", "--require-verdict", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "version 1 has no verdict for production, and a verdict is required" in done.stderr


@pytest.mark.slow
def test_the_verdict_is_kept_with_the_cached_version(local: Place, policy: Path, tmp_path: Path) -> None:
    name = local.model(GOOD, EQUAL)
    stages.move_alias(local.client, name, STAGE, 1)
    put(local, name, 1, verdict=verdict(local, policy, name, 1))
    rules, cache, ref = load_policy(policy), tmp_path / "cache", parse_ref(f"{name}@{STAGE}")
    trusting = ArtifactFetcher(ref, TrustPolicy(), local.uri, cache)
    trusting.write_cache(trusting.fetch(trusting.resolve()))
    strict = ArtifactFetcher(ref, TrustPolicy(), local.uri, cache, rules)
    with pytest.raises(VerificationError, match="version 1 in the cache has no verdict"):
        strict.read_cached()
    strict.write_cache(strict.fetch(strict.resolve()))
    cached = strict.read_cached()
    assert cached is not None
    assert cached.version == 1
    shutil.rmtree(cached.folder)
    (kept,) = cache.rglob("current/verdict.json")
    kept.write_text(verdict(local, policy, name, 2))
    with pytest.raises(VerificationError, match="it is about the version 2, not 1"):
        strict.read_cached()
    for fetcher in (trusting, strict):
        fetcher.close()


def verdicts_of(ref: str) -> list[tuple[bool, str]]:
    return [(gate.passed, gate.message) for gate in verify(ref).gates if gate.gate == "verdict"]


@LONG
@pytest.mark.slow
def test_verify_reports_the_verdicts_and_checks_them_by_the_policy(
    model: str, local: Place, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((passed, message),) = verdicts_of(f"{model}/1")
    assert (passed, message) == (False, "production: the policy protects it, and the version has no verdict")
    assert verdicts_of(f"{model}/2") == []
    evaluate(f"{model}/2", to=STAGE, key=keys()["ci"][0])
    ((passed, message),) = verdicts_of(f"{model}/2")
    assert passed
    assert message.startswith("production: signed by ci at 20")
    put(local, model, 2, verdict="{}")
    ((passed, message),) = verdicts_of(f"{model}/2")
    assert passed  # the version does not hold the stage
    assert "the text is not a DSSE envelope" in message
    put(local, model, 1, held=held(verdict(local, policy, model, 1)))
    ((passed, message),) = verdicts_of(f"{model}/1")
    assert not passed
    assert "the registry counts None: the alias was changed in the database" in message
    local.client.set_registered_model_tag(model, head_tag(STAGE), "3")
    assert verdicts_of(f"{model}/1")[0][0]
    put(local, model, 1, held=held(None, action="force", reason="outage"))
    assert verdicts_of(f"{model}/1") == [(True, "production: forced by ana: outage")]
    local.client.set_registered_model_tag(model, head_tag(STAGE), "4")
    assert not verdicts_of(f"{model}/1")[0][0]
    policy.unlink()
    assert verdicts_of(f"{model}/2") == [(True, "production: not checked, because there is no policy")]
