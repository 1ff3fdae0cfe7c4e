"""Evaluate a version for a protected stage, and store the verdict with it, signed by an evaluator."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from registry_tools.attestation.envelope import PAYLOAD_TYPE, sign_envelope, verify_envelope
from registry_tools.attestation.statement import Gate, VerdictStatement
from registry_tools.errors import GateRefused, InputError, PolicyError, PromotionError, VerificationError
from registry_tools.evaluation.eval_data import EvalData
from registry_tools.evaluation.evaluate import evaluate
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import Verdict
from registry_tools.mlflow_store import registry
from registry_tools.models.manifest import ONNX_FILE
from registry_tools.models.onnx.export import store_onnx
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.policy.decision import Move
from registry_tools.policy.definition import GateRules, Policy, StagePolicy
from registry_tools.policy.tag_names import verdict_tag
from registry_tools.promotion.moves import read_stage
from registry_tools.promotion.stage_evidence import read_move
from registry_tools.refs import ModelRef

_LONGEST_ENVELOPE = 30_000  # characters; MLflow stores tags of up to 100,000


@dataclass(frozen=True)
class SignedVerdict:
    """The verdict of the gates for a stage; `evaluator` and the fields after it are None if one refused."""

    name: str
    version: int
    stage: str
    champion: int | None
    verdict: Verdict
    evaluator: str | None = None
    expires_at: str | None = None  # ISO 8601, UTC
    envelope: str | None = None  # the signed statement, which the version has as a tag

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return vars(self) | {"verdict": self.verdict.as_dict()}


@dataclass(frozen=True)
class Evaluator:
    """The key that signs verdicts, with its name in the policy."""

    name: str
    key: Path
    password: str | None

    @classmethod
    def of(cls, rules: StagePolicy, key: Path, password: str | None) -> Evaluator:
        """Find a private key among the evaluators of a stage.

        Raises
        ------
        InputError
            If the key cannot be used, or none of the evaluators has it.
        UnsupportedOperation
            If the extra `signing` is not installed.
        """
        try:
            _, name = verify_envelope(sign_envelope(b"", PAYLOAD_TYPE, key, password), rules.evaluators)
        except VerificationError as error:
            names = ", ".join(rules.evaluators)
            raise InputError(
                f"--key {key} belongs to no evaluator of {rules.stage}; the policy names {names}"
            ) from error
        return cls(name, key, password)


def evaluate_for_stage(
    client: MlflowClient,
    ref: ModelRef,
    stage: str,
    policy: Policy,
    key: Path,
    *,
    password: str | None = None,
    expires: timedelta | None = None,
    eval_data: EvalData | None = None,
    trust_policy: TrustPolicy | None = None,
) -> SignedVerdict:
    """Run the gates that the policy names, and store the signed verdict with the version if all pass.

    Parameters
    ----------
    client, ref, stage, policy
        The registry, the candidate, the stage in lower case, and the policy that protects it.
    key, password
        The private key of an evaluator, and its password.
    expires
        How long the verdict can move the stage; None takes the time in the policy.
    eval_data, trust_policy
        Rows to evaluate on instead of the held-out rows, and the types that the models may contain.

    Raises
    ------
    GateRefused
        If a gate refused; the error has the `SignedVerdict`, and nothing is stored.
    PolicyError
        If the policy does not protect the stage.
    InputError
        If the key belongs to no evaluator, or `expires` is longer than the policy allows.
    PromotionError
        If the stage already holds the version, or the version has no digest.
    """
    rules = policy.stage(ref.name, stage)
    if rules is None:
        raise PolicyError(f"the policy does not protect {stage} of {ref.name}; run: registry-tools promote")
    evaluator = Evaluator.of(rules, key, password)
    lifetime = rules.expires if expires is None else expires
    if not timedelta() < lifetime <= rules.expires:
        raise InputError(f"--expires {lifetime}: give a time of at most {rules.expires}, as the policy says")
    candidate = registry.find_version(client, ref)
    move = read_move(client, candidate, stage)
    _check_evaluable(move)
    # As `promote`, so that emptying the stage does not save a candidate from the comparison.
    last = move.holder or read_stage(client, candidate.name, stage).last_holder()
    champion = registry.existing_version(client, candidate.name, last)
    with tempfile.TemporaryDirectory() as scratch:
        onnx_file = Path(scratch, ONNX_FILE)
        options = gate_options(rules.gates, eval_data, trust_policy or TrustPolicy())
        verdict = evaluate(client, candidate, champion, options, onnx_file)
        if verdict.passed and onnx_file.exists():
            store_onnx(client, candidate, onnx_file)
    result = SignedVerdict(candidate.name, candidate.version, stage, move.holder, verdict)
    if not verdict.passed:
        first = verdict.refusals[0]
        title = f"{candidate.name} version {candidate.version}"
        raise GateRefused(f"{title} gets no verdict for {stage}: {first.gate}: {first.message}", result)
    statement, envelope = _sign(move, rules, verdict, evaluator, lifetime)
    registry.set_tags(client, candidate, {verdict_tag(stage): envelope})
    expires_at = statement.expires_at.isoformat()
    return replace(result, evaluator=evaluator.name, expires_at=expires_at, envelope=envelope)


def _check_evaluable(move: Move) -> None:
    title = f"{move.model} version {move.version}"
    if move.holder == move.version:
        raise PromotionError(f"stage {move.stage} already holds {title}")
    if move.digests["model"] is None:
        command = f"registry-tools adopt {move.model}/{move.version}"
        raise PromotionError(f"{title} has no digest of its files, which a verdict names; run: {command}")


def gate_options(rules: GateRules, eval_data: EvalData | None, trust_policy: TrustPolicy) -> GateOptions:
    """Return the options of the gates that a policy names."""
    return GateOptions(
        minimum=rules.min,
        maximum=rules.max,
        rule=rules.rule,
        metric=None if rules.metric == "auto" else rules.metric,
        margin=rules.margin,
        baseline=rules.baseline,
        slices=tuple(rules.slices),
        max_latency_ms=rules.max_latency_ms,
        max_latency_ratio=rules.max_latency_ratio,
        max_size_ratio=rules.max_size_ratio,
        onnx=rules.onnx,
        eval_data=eval_data,
        trust_policy=trust_policy,
    )


def _sign(
    move: Move, rules: StagePolicy, verdict: Verdict, evaluator: Evaluator, lifetime: timedelta
) -> tuple[VerdictStatement, str]:
    """Return the statement and its envelope; long messages of gates are shortened until it fits a tag."""
    now = datetime.now(timezone.utc).replace(microsecond=0)
    assert move.digests["model"] is not None
    for gates in _gates(verdict):
        statement = VerdictStatement(
            registry=rules.registry,
            model=move.model,
            version=move.version,
            stage=move.stage,
            head=move.head,
            champion=move.holder,
            policy=rules.digest,
            passed=True,
            gates=gates,
            rule=rules.gates.rule,
            margin=rules.gates.margin,
            metric=rules.gates.metric,
            evaluator=evaluator.name,
            evaluated_at=now,
            expires_at=now + lifetime,
            model_digest=move.digests["model"],
            evidence_digest=move.digests["evidence"],
        )
        envelope = sign_envelope(statement.to_bytes(), PAYLOAD_TYPE, evaluator.key, evaluator.password)
        if len(envelope) <= _LONGEST_ENVELOPE:
            break
    return statement, envelope


def _gates(verdict: Verdict) -> Iterator[tuple[Gate, ...]]:
    """Yield the gates of a verdict with ever shorter messages, at last without metrics."""
    for longest in (500, 200, 50, 0):
        yield tuple(
            {
                "gate": gate.gate,
                "passed": gate.passed,
                "message": gate.message[:longest],
                "metrics": {k: v for k, v in gate.metrics.items() if longest and math.isfinite(v)},
            }
            for gate in verdict.gates
        )
