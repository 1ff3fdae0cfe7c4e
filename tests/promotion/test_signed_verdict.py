"""Evaluate a version for a protected stage: which verdict is stored, and when none is."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from registry_tools import evaluate
from registry_tools.attestation.envelope import verify_envelope
from registry_tools.attestation.statement import VerdictStatement
from registry_tools.cli.main import main
from registry_tools.errors import (
    GateRefused,
    InputError,
    PolicyError,
    PromotionError,
    RegistryToolsError,
    UnsupportedOperation,
)
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.mlflow_store import stages
from registry_tools.models.signing import PASSWORD_VARIABLE
from registry_tools.policy.decision import decide
from registry_tools.policy.policy_file import load_policy
from registry_tools.promotion import promote, signed_verdict
from registry_tools.promotion.stage_evidence import read_move, stage_head
from tests.support.commands import error_of, run
from tests.support.policies import keys, policy_content, write_policy
from tests.support.registries import EQUAL, GOOD, POOR, Place
from tests.support.signing_keys import write_keys

OPTIONS: dict[str, Any] = {"key": keys()["ci"][0]}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """The policy in the current folder, without approvals."""
    return write_policy(tmp_path / "registry.yaml", approvals={"count": 0})


def tag_of(place: Place, name: str, version: int) -> str | None:
    return place.version(name, version).tags.get("verdict.production")


def test_the_stored_verdict_allows_the_promotion(model: str, local: Place, policy: Path) -> None:
    result = evaluate(f"{model}/2", to="Production", **OPTIONS)
    assert (result.champion, result.evaluator, result.verdict.passed) == (1, "ci", True)
    assert result.envelope == tag_of(local, model, 2)
    assert stages.stage_holder(local.client, model, "production") == 1
    payload, _ = verify_envelope(str(result.envelope), {"ci": keys()["ci"][1]})
    statement = VerdictStatement.from_bytes(payload)
    assert (statement.rule, statement.margin, statement.metric) == ("not-worse", 0.01, "auto")
    assert {gate["gate"] for gate in statement.gates} >= {"integrity", "thresholds", "champion"}
    assert statement.model_digest == local.version(model, 2).digest
    assert statement.expires_at - statement.evaluated_at == timedelta(days=7)
    move = read_move(local.client, local.version(model, 2), "production")
    assert decide(load_policy(policy), move).action == "promote"


def test_a_refusing_gate_stores_nothing(local: Place, policy: Path) -> None:
    name = local.model(GOOD, POOR)
    with pytest.raises(GateRefused, match="version 2 gets no verdict for production: ") as caught:
        evaluate(f"{name}/2", to="production", **OPTIONS)
    assert isinstance(caught.value.promotion, signed_verdict.SignedVerdict)
    assert caught.value.promotion.envelope is None
    assert tag_of(local, name, 2) is None


def test_the_gates_are_those_of_the_policy(model: str, local: Place, policy: Path) -> None:
    write_policy(policy, gates={"rule": "better", "metric": "log_loss", "baseline": False})
    with pytest.raises(GateRefused) as caught:
        evaluate(f"{model}/2", to="production", **OPTIONS)
    gates = {gate.gate: gate.message for gate in caught.value.promotion.verdict.gates}
    assert gates["champion"].startswith("better: log_loss ")
    assert gates["baseline"] == "skipped (--no-baseline)"
    write_policy(policy, gates={"min": {"accuracy": 1.01}})
    with pytest.raises(GateRefused, match="thresholds"):
        evaluate(f"{model}/2", to="production", **OPTIONS)


def test_the_head_is_the_number_of_events_without_a_gated_registry(local: Place, policy: Path) -> None:
    name = local.model(GOOD, EQUAL)
    assert stage_head(local.client, name, "production") == 0
    promote.register(local.client, name, 1, "production")
    assert stage_head(local.client, name, "production") == 1
    evaluate(f"{name}/2", to="production", **OPTIONS)
    rules = load_policy(policy)

    def action() -> str:
        return decide(rules, read_move(local.client, local.version(name, 2), "production")).action

    assert action() == "promote"
    promote.register(local.client, name, 2, "production")
    promote.register(local.client, name, 1, "production")
    with pytest.raises(PromotionError, match="its verdict is for move 2 of the stage, and the next is 4"):
        action()
    local.client.set_registered_model_tag(name, "head.production", "1")
    assert action() == "promote"
    local.client.set_registered_model_tag(name, "head.production", "x")
    with pytest.raises(RegistryToolsError, match=r"the tag head\.production of .* is 'x', not a number"):
        action()


@pytest.mark.slow
def test_an_empty_stage_is_compared_with_its_last_version(local: Place, policy: Path) -> None:
    name = local.model(GOOD, EQUAL)
    promote.register(local.client, name, 1, "production")
    assert main(["unset", name, "--stage", "production", "--reason", "test"]) == 0
    result = evaluate(f"{name}/2", to="production", **OPTIONS)
    assert result.champion is None
    assert "no champion" not in {gate.gate: gate.message for gate in result.verdict.gates}["champion"]


@pytest.mark.slow
def test_a_shorter_time_is_signed_and_a_longer_one_refused(model: str, local: Place, policy: Path) -> None:
    result = evaluate(f"{model}/2", to="production", expires="12h", **OPTIONS)
    end = datetime.fromisoformat(str(result.expires_at))
    assert timedelta(hours=11.9) < end - datetime.now(timezone.utc) <= timedelta(hours=12)
    for wrong in ("8d", timedelta(days=8), timedelta(), timedelta(-1)):
        with pytest.raises(InputError, match=r"--expires .*: give a time of at most 7 days"):
            evaluate(f"{model}/2", to="production", expires=wrong, **OPTIONS)
    with pytest.raises(InputError, match="--expires: 'soon' is not a time"):
        evaluate(f"{model}/2", to="production", expires="soon", **OPTIONS)


def test_what_cannot_get_a_verdict_is_told_before_the_gates_run(
    model: str, local: Place, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signed_verdict, signed_verdict.evaluate.__name__, None)  # calling it is an error
    cases: list[tuple[str, dict[str, Any], type[Exception], str]] = [
        (f"{model}/2", {"key": keys()["nightly"][0]}, InputError, "to no evaluator of production; .* ci"),
        (f"{model}/2", {"key": "none.pem"}, InputError, "none.pem: No such file"),
        (f"{model}/2", {"to": "staging"}, PolicyError, "does not protect staging of iris"),
        (f"{model}/2", {"policy": "none.yaml"}, PolicyError, "policy none.yaml: No such file"),
        (f"{model}/1", {}, PromotionError, "stage production already holds iris-.* version 1"),
    ]
    for ref, changes, error, message in cases:
        with pytest.raises(error, match=message):
            evaluate(ref, **{"to": "production", **OPTIONS, **changes})
    policy.unlink()
    with pytest.raises(PolicyError, match=r"there is no policy: write registry\.yaml, or name the file with"):
        evaluate(f"{model}/2", to="production", **OPTIONS)


def test_a_version_without_a_digest_gets_no_verdict(local: Place, policy: Path) -> None:
    name = local.model(GOOD)
    local.client.delete_model_version_tag(name, "1", "artifact_digest")
    with pytest.raises(PromotionError, match=r"no digest of its files.*registry-tools adopt"):
        evaluate(f"{name}/1", to="production", **OPTIONS)


def test_an_encrypted_key_needs_its_password(
    model: str, tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = write_keys(tmp_path, "own", password=b"secret")
    content = policy_content()
    content["evaluators"]["ci"] = (tmp_path / "own.pub.pem").read_text()
    policy.write_text(json.dumps(content))
    with pytest.raises(InputError, match="its password is missing or wrong"):
        evaluate(f"{model}/2", to="production", key=key)
    monkeypatch.setenv(PASSWORD_VARIABLE, "secret")
    assert evaluate(f"{model}/2", to="production", key=key).evaluator == "ci"


@pytest.mark.slow
def test_long_messages_are_shortened_to_fit_a_tag(model: str, local: Place, policy: Path) -> None:
    rules = load_policy(policy).stage(model, "production")
    assert rules is not None
    gates = tuple(
        GateResult(f"slice {i}", True, "x" * 5_000, {"m": float("nan"), "n": 1.0}) for i in range(60)
    )
    evaluator = signed_verdict.Evaluator.of(rules, keys()["ci"][0], None)
    move = read_move(local.client, local.version(model, 2), "production")
    statement, envelope = signed_verdict._sign(move, rules, Verdict(gates), evaluator, rules.expires)
    assert len(envelope) <= 30_000
    assert len(statement.gates) == 60
    assert statement.gates[0]["metrics"] == {"n": 1.0}


def test_the_command_prints_the_gates_and_the_verdict(
    local: Place, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = local.model(EQUAL, POOR)
    command = ["evaluate", f"{name}/1", "--to", "production", "--key", str(keys()["ci"][0])]
    assert main([*command, "--expires", "1h"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("passed  integrity")
    assert out[-1].startswith(f"signed  {name} version 1 for production: by ci, valid until 20")
    found = run(capsys, *command)
    assert found["envelope"] == tag_of(local, name, 1)
    assert found["verdict"]["passed"]
    assert main([command[0], f"{name}/2", *command[2:]]) == 3
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == f"refused  {name} version 2 for production: no verdict"
    assert f"error: {name} version 2 gets no verdict for production: thresholds" in captured.err


def test_without_the_extra_the_command_names_it(
    model: str, policy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "securesystemslib", None)
    command = ["evaluate", f"{model}/2", "--to", "production", "--key", str(keys()["ci"][0])]
    assert "pip install 'registry-pipeline[signing]'" in error_of(capsys, *command)
    with pytest.raises(UnsupportedOperation):
        evaluate(f"{model}/2", to="production", **OPTIONS)


def test_a_read_of_the_head_leaves_no_trace(local: Place) -> None:
    name = local.model(GOOD)
    assert stage_head(local.client, name, "production") == 0
    assert local.client.get_registered_model(name).tags == {}
