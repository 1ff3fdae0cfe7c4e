"""Measure how much longer a request takes with the gated store than with MLflow's own, on SQLite.

python benchmarks/gated_store.py [REPEATS]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from pairs import machine

from registry_tools.attestation.envelope import sign_envelope
from registry_tools.attestation.statement import VerdictStatement
from registry_tools.gated_store.builder import build_store
from registry_tools.policy.definition import StagePolicy
from registry_tools.policy.policy_file import POLICY_VARIABLE, load_policy

DIGEST = "0" * 64
LIMIT = 8.0  # a promotion is refused or granted on a signature, and writes five rows instead of one


def main(repeats: int) -> int:
    """Print the medians for few and many versions, and return 1 if a ratio exceeds its limit."""
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rules = write_policy(folder)
        plain, gated = (
            SqlAlchemyStore(f"sqlite:///{folder}/m.db"),
            build_store(f"gated+sqlite:///{folder}/m.db"),
        )
        met = True
        for versions in (10, 2_000):
            register(gated, f"iris-{versions}", versions)
            for title, alias, limit in (
                ("another alias", "canary", 2.0),
                ("a promotion", "production", LIMIT),
            ):
                met &= compare(plain, gated, rules, (f"iris-{versions}", alias), repeats, title, limit)
    return 0 if met else 1


def compare(
    plain: Any, gated: Any, rules: StagePolicy, place: tuple[str, str], repeats: int, title: str, limit: float
) -> bool:
    """Set an alias of a model in both stores in turn, and print the medians."""
    (name, alias), times = place, ([], [])
    for number in range(repeats):
        version = str(number % 2 + 1)
        if alias == "production":
            sign(gated, rules, name, int(version), number)
        times[0].append(seconds(plain.set_registered_model_alias, name, "plain", version))
        times[1].append(seconds(gated.set_registered_model_alias, name, alias, version))
    usual, ours = map(median, times)
    print(
        f"{title} of {name}: {1000 * usual:.1f} ms, gated {1000 * ours:.1f} ms; "
        f"ratio {ours / usual:.1f}, wanted at most {limit}"
    )
    return ours / usual <= limit


def write_policy(folder: Path) -> StagePolicy:
    key = ec.generate_private_key(ec.SECP256R1())
    encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "ci.pem").write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_password)
    )
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    models = {"iris*": {"production": {"evaluators": ["ci"]}}}
    path = folder / "registry.yaml"
    path.write_text(
        yaml.safe_dump({"registry": "r", "evaluators": {"ci": public.decode()}, "models": models})
    )
    os.environ[POLICY_VARIABLE] = str(path)
    rules = load_policy(path).stage("iris-10", "production")
    assert rules is not None
    return rules


def register(store: Any, name: str, versions: int) -> None:
    store.create_registered_model(name)
    for _ in range(versions):
        store.create_model_version(name, "files", tags=[ModelVersionTag("artifact_digest", DIGEST)])


def sign(store: Any, rules: StagePolicy, name: str, version: int, head: int) -> None:
    key = Path(os.environ[POLICY_VARIABLE]).with_name("ci.pem")
    now = datetime.now(timezone.utc)
    statement = VerdictStatement(
        registry=rules.registry, model=name, version=version, stage="production", head=head,
        champion=3 - version if head else None, policy=rules.digest, passed=True,
        gates=({"gate": "integrity", "passed": True, "message": "", "metrics": {}},),
        rule=rules.gates.rule, margin=rules.gates.margin, metric="accuracy", evaluator="ci",
        evaluated_at=now, expires_at=now + timedelta(days=1), model_digest=DIGEST,
    )  # fmt: skip
    envelope = sign_envelope(statement.to_bytes(), "application/vnd.in-toto+json", key)
    store.set_model_version_tag(name, version, ModelVersionTag("verdict.production", envelope))


def seconds(request: Callable[..., object], *arguments: str) -> float:
    started = time.perf_counter()
    request(*arguments)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 60))
