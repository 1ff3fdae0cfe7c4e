"""Run a registry that moves protected stages only on evidence, and write that evidence."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import yaml

from registry_tools.attestation.envelope import sign_envelope
from registry_tools.attestation.statement import VerdictStatement
from registry_tools.policy import tag_names
from registry_tools.policy.policy_file import POLICY_VARIABLE, load_policy
from registry_tools.policy.records import Approval, Force, Request, verdict_digest
from tests.support.signing_keys import write_keys
from tests.support.tracking_servers import account, add_user, guarded_server, server_over

USERS = ("trainer", "ana", "ben", "oncall")  # ana and ben approve; ana may force; oncall may roll back
PAYLOAD = "application/vnd.in-toto+json"
_names = itertools.count(1)


# One client, because each new one takes 20 ms to read the certificates of the system.
_CLIENT = httpx.Client(timeout=120)


def send(method: str, url: str, user: str, **options: Any) -> httpx.Response:
    """Send a request as a user."""
    return _CLIENT.request(method, url, auth=tuple(account(user).values()), **options)


def digest_of(text: str) -> str:
    """Return a digest for files that a test only names."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_policy(folder: Path, others: Mapping[str, Any] | None = None, **rules: Any) -> Path:
    """Write a key pair, and a policy that protects production of each model `iris*`; return its path."""
    if not (folder / "ci.pem").exists():
        write_keys(folder, "ci")
    production = {"evaluators": ["ci"], "rollback": ["oncall"], "force": ["ana"], **rules}
    content = {
        "registry": "team-registry",
        "evaluators": {"ci": (folder / "ci.pub.pem").read_text()},
        "models": {"iris*": {"production": production}, **(others or {})},
    }
    path = folder / "registry.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@dataclasses.dataclass(frozen=True)
class Gated:
    """A running server with a gated store, and the folder of its policy and its key."""

    uri: str
    folder: Path
    cache: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def policy(self) -> Path:
        return self.folder / "registry.yaml"

    def call(self, user: str, method: str, path: str, api: str = "api", **body: Any) -> httpx.Response:
        """Send a request of MLflow's own API as a user."""
        query = {"params": body} if method == "GET" else {"json": body}
        url = f"{self.uri}/{api}/2.0/mlflow/{path}"
        return send(method, url, user, **query)

    def done(self, user: str, method: str, path: str, **body: Any) -> Any:
        """Send a request that must succeed, and return its response."""
        response = self.call(user, method, path, **body)
        assert response.status_code == 200, response.text
        return response.json()

    def model(self, *digests: str, name: str | None = None) -> str:
        """Register a new model by the user trainer, with a version for each digest; return its name."""
        name = name or f"iris-{os.getpid()}-{next(_names)}"
        self.done("trainer", "POST", "registered-models/create", name=name)
        for digest in digests or ("one", "two"):
            self.version(name, digest)
        return name

    def version(self, name: str, digest: str, **tags: str) -> int:
        """Register a version with a digest and more tags."""
        sent = [{"key": key, "value": value} for key, value in self._digests(digest, tags).items()]
        run = self.run()
        source = f"{run['artifact_uri']}/{digest}"
        body = {"name": name, "source": source, "run_id": run["run_id"], "tags": sent}
        return int(self.done("trainer", "POST", "model-versions/create", **body)["model_version"]["version"])

    def run(self) -> dict[str, str]:
        """Return a run that owns the files of all versions."""
        if "run" not in self.cache:
            made = self.done("trainer", "POST", "runs/create", experiment_id="0")
            self.cache["run"] = made["run"]["info"]
        return self.cache["run"]

    @staticmethod
    def _digests(digest: str, tags: Mapping[str, str]) -> dict[str, str]:
        return {"artifact_digest": digest_of(digest), **tags}

    def move(self, user: str, name: str, version: int | str, alias: str = "production") -> httpx.Response:
        """Set an alias, which asks for the move of the stage."""
        return self.call(
            user, "POST", "registered-models/alias", name=name, alias=alias, version=str(version)
        )

    def aliases(self, name: str) -> dict[str, int]:
        model = self.done("owner", "GET", "registered-models/get", name=name)["registered_model"]
        return {each["alias"]: int(each["version"]) for each in model.get("aliases", [])}

    def head(self, name: str, stage: str = "production") -> int:
        model = self.done("owner", "GET", "registered-models/get", name=name)["registered_model"]
        tags = {tag["key"]: tag["value"] for tag in model.get("tags", [])}
        return int(tags.get(tag_names.head_tag(stage), 0))

    def get(self, name: str, version: int) -> dict[str, Any]:
        """Return a version with its tags as a dictionary."""
        query = {"name": name, "version": str(version)}
        found = self.done("owner", "GET", "model-versions/get", **query)["model_version"]
        return {**found, "tags": {tag["key"]: tag.get("value", "") for tag in found.get("tags", [])}}

    def legacy(self, name: str, stage: str = "Production") -> list[int]:
        """Return the versions with a legacy stage."""
        found = self.done("owner", "GET", "model-versions/search", filter=f"name = '{name}'")
        versions = found.get("model_versions", [])
        return [int(each["version"]) for each in versions if each["current_stage"] == stage]

    def tag(self, user: str, name: str, version: int, key: str, value: str) -> httpx.Response:
        body = {"name": name, "version": str(version), "key": key, "value": value}
        return self.call(user, "POST", "model-versions/set-tag", **body)

    def untag(self, user: str, name: str, version: int, key: str) -> httpx.Response:
        body = {"name": name, "version": str(version), "key": key}
        return self.call(user, "DELETE", "model-versions/delete-tag", **body)

    def verdict(self, name: str, version: int, /, key: str = "ci", **changes: Any) -> str:
        """Return a signed verdict on a version for the next move of production."""
        stage = changes.get("stage", "production")
        rules = load_policy(self.policy).stage(name, stage)
        assert rules is not None
        now = datetime.now(timezone.utc)
        tags = self.get(name, version)["tags"]
        statement = VerdictStatement(
            registry=rules.registry,
            model=name,
            version=version,
            stage=stage,
            head=self.head(name, stage),
            champion=self.aliases(name).get(stage),
            policy=rules.digest,
            passed=True,
            gates=({"gate": "integrity", "passed": True, "message": "", "metrics": {}},),
            rule=rules.gates.rule,
            margin=rules.gates.margin,
            metric="accuracy",
            evaluator="ci",
            evaluated_at=now,
            expires_at=now + timedelta(days=1),
            model_digest=tags["artifact_digest"],
            evidence_digest=tags.get("evidence_digest"),
        )
        statement = dataclasses.replace(statement, **changes)
        return sign_envelope(statement.to_bytes(), PAYLOAD, self.folder / f"{key}.pem")

    def evaluate(self, name: str, version: int, /, **changes: Any) -> str:
        """Set a signed verdict as the tag of a version, and return it."""
        envelope = self.verdict(name, version, **changes)
        key = tag_names.verdict_tag(changes.get("stage", "production"))
        assert self.tag("trainer", name, version, key, envelope).status_code == 200
        return envelope

    def bound(self, name: str, version: int) -> dict[str, Any]:
        """Return the fields that bind a request or an approval to the present state."""
        tags = self.get(name, version)["tags"]
        envelope = tags.get(tag_names.verdict_tag("production"))
        verdict = verdict_digest(envelope) if envelope else None
        return {"digest": tags["artifact_digest"], "head": self.head(name), "verdict": verdict}

    def request(self, user: str, name: str, version: int, **changes: Any) -> httpx.Response:
        record = Request(**{"reason": "better", **self.bound(name, version), **changes})
        return self.tag(user, name, version, tag_names.request_tag("production"), record.to_text())

    def decide(
        self, user: str, name: str, version: int, decision: str = "approve", **changes: Any
    ) -> httpx.Response:
        """Approve or reject a version."""
        fields = {"reason": "read", "decision": decision, **self.bound(name, version), **changes}
        key = tag_names.approval_tag("production", user)
        return self.tag(user, name, version, key, Approval(**fields).to_text())

    def force(self, user: str, name: str, version: int, **changes: Any) -> httpx.Response:
        record = Force(**{"reason": "the night", "head": self.head(name), **changes})
        return self.tag(user, name, version, tag_names.force_tag("production"), record.to_text())

    def run_as(self, user: str, *command: str) -> None:
        """Run `python -m` with a command of this project as a user, in the folder of the policy."""
        variables = {**os.environ, **account(user), "MLFLOW_TRACKING_URI": self.uri}
        subprocess.run(
            [sys.executable, "-m", *command], env=variables, cwd=self.folder, check=True, capture_output=True
        )

    def train(self, *options: str) -> None:
        """Train and register a version of iris as the user trainer."""
        self.run_as("trainer", "pipeline", "train", "--plots", "false", *options)

    def promote(self, name: str, version: int) -> None:
        """Evaluate a version, and move production to it; for a policy without approvals."""
        self.evaluate(name, version)
        assert self.move("trainer", name, version).status_code == 200


def refusal(response: httpx.Response) -> str:
    """Return the message of a refused request without its prefix."""
    assert response.status_code == 403
    message = str(response.json()["message"])
    assert message.startswith("stage refused: ")
    assert "\n" not in message
    return message.removeprefix("stage refused: ")


@contextmanager
def gated_server(
    empty: Path,
    folder: Path,
    *options: str,
    store: str | None = None,
    users: str | None = None,
    with_users: bool = True,
    with_policy: bool = True,
    permission: str = "MANAGE",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Gated]:
    """Run `mlflow server` with the gated store over SQLite or another database.

    Every user has at least the `permission` on each model. Without `with_users`, the server has no
    basic-auth app; without `with_policy`, it is told of no policy.
    """
    if store is None:
        if not (folder / "mlflow.db").exists():
            shutil.copy(empty, folder / "mlflow.db")
        store, options = f"sqlite:///{folder}/mlflow.db", ("--workers", "1", *options)
    if not (folder / "registry.yaml").exists():
        write_policy(folder)
    options = ("--registry-store-uri", f"gated+{store}", *options)
    variables = {POLICY_VARIABLE: str(folder / "registry.yaml") if with_policy else "", **(environment or {})}
    if with_users:
        users = users or f"sqlite:///{folder}/auth.db"
        started = guarded_server(store, users, folder, *options, permission=permission, environment=variables)
    else:
        started = server_over(store, folder, *options, environment=variables)
    with started as uri:
        yield Gated(uri, folder)


def add_users(uri: str) -> None:
    """Create the users that the policy names, once."""
    for user in USERS:
        add_user(uri, user)
