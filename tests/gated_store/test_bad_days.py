"""Random requests to all routes of MLflow's server move a protected stage on evidence only.

The routes come from MLflow itself, so that a route of a new release is tried too. After each request the
test compares the database with the state before it, and judges each move by the evidence that the test
itself has issued.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from registry_tools.policy.records import Force, verdict_digest
from registry_tools.policy.tag_names import APPROVAL, approval_tag, approver_id
from tests.support.constants import IS_LONG
from tests.support.gated import USERS, Gated, digest_of, gated_server, send, write_policy
from tests.support.mlflow_routes import Route, all_routes, fill, random_body
from tests.support.tracking_servers import add_user

RIGHTS = {"guest": "DENY", "reader": "READ", "editor": "EDIT", **dict.fromkeys(USERS, "MANAGE")}
ACTORS = (*RIGHTS, "owner")
APPROVERS = ("ana", "ben")
APPROVALS = {"count": 1, "by": list(APPROVERS)}
# MLflow's demo writes thousands of rows, its assistant writes into the home folder, a webhook opens
# connections for each later request, and the list of supported models comes from the network.
LEFT_OUT = ("/demo/", "/assistant/", "/webhooks", "/gateway/supported-models")
BURST = 25
_numbers = itertools.count(1)


def _random_route(random: Random) -> Route:
    """Return a route; most of them write to the registry."""
    kind = random.random()
    routes = [route for route in all_routes() if kind > 0.8 or route.is_of_registry]
    return random.choice([route for route in routes if kind > 0.65 or route.method != "GET"])


@dataclass(frozen=True)
class Snapshot:
    """The stages of all protected models as the database has them."""

    aliases: dict[str, dict[str, int]]  # production in any spelling, by model
    legacy: dict[str, set[int]]
    heads: dict[str, str]
    tags: dict[tuple[str, int], dict[str, str]]

    def holder(self, name: str) -> int | None:
        return self.aliases.get(name, {}).get("production")

    def head(self, name: str) -> int:
        return int(self.heads.get(name, 0))


def read_stages(database: Path, prefix: str) -> Snapshot:
    """Read the stages of the models whose names begin with a prefix, past the server."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60) as connection:

        def rows(columns: str, table: str) -> Iterator[Any]:
            return connection.execute(f"select {columns} from {table} where name like ?", (f"{prefix}%",))

        found = Snapshot({}, {}, {}, {})
        for name, alias, version in rows("name, alias, version", "registered_model_aliases"):
            if alias.lower() == "production":
                found.aliases.setdefault(name, {})[alias] = version
        for name, version, stage in rows("name, version, current_stage", "model_versions"):
            found.tags[name, version] = {}
            if stage == "Production":
                found.legacy.setdefault(name, set()).add(version)
        for name, key, value in rows("name, key, value", "registered_model_tags"):
            if key == "head.production":
                found.heads[name] = value
        for name, version, key, value in rows("name, version, key, value", "model_version_tags"):
            found.tags[name, version][key] = value
    connection.close()
    return found


class BadDays(RuleBasedStateMachine):
    """Users with every kind of right send requests, and some of them issue real evidence."""

    gated: Gated  # set by the test

    @initialize()
    def register(self) -> None:
        number = next(_numbers)
        self.prefix = f"iris-{os.getpid()}-{number}-"
        self.plain = f"plain-{os.getpid()}-{number}"
        self.names = [f"{self.prefix}a", f"{self.prefix}b", self.plain]
        self.broken = False
        write_policy(self.gated.folder, approvals=APPROVALS)
        self.gated.cache.clear()  # a run that a request deleted
        for name in self.names:
            self.gated.model("one", "two", "three", name=name)
        # The verdict and the digest of the files, by model, version, head and champion.
        self.issued: dict[tuple[str, int, int, int | None], tuple[str, str]] = {}
        self.writers: dict[tuple[str, int, str], tuple[str, dict[str, Any]]] = {}  # who wrote which evidence
        self.held: set[tuple[str, int]] = set()
        self.texts = ["x", "1", digest_of("one"), "{}"]  # values for tags, with all evidence so far
        self.before = read_stages(self.database, self.prefix)
        self.gated.move("trainer", self.plain, 1)
        for version in (1, 2):
            self.evaluate(self.names[0], version)
            self.evidence("request", "trainer", self.names[0], version)
            self.evidence("decide", "ben", self.names[0], version)
            self.move("trainer", self.names[0], version)
        assert self.before.head(self.names[0]) == 2

    @property
    def database(self) -> Path:
        return self.gated.folder / "mlflow.db"

    def pools(self) -> dict[str, list[Any]]:
        """Return the values from which the fields of a request are drawn, by name."""
        keys = ["production", "staging"]
        keys = [
            f"{kind}.{stage}" for kind in ("verdict", "request", "force", "held", "head") for stage in keys
        ]
        keys += [approval_tag("production", user) for user in ACTORS]
        keys += ["artifact_digest", "evidence_digest", "registered_by", "mlflow.prompt.is_prompt"]
        names = [*self.names, f"{self.prefix}new", f"{self.plain}-new"]
        run = self.gated.run()
        return {
            "name": names,
            "new_name": names,
            "alias": ["production", "Production", "PRODUCTION", "staging"],
            "version": ["1", "2", "3", "4"],
            "stage": ["Production", "production", "Archived", "Staging", "None"],
            "archive_existing_versions": [True, False],
            "key": keys,
            "value": self.texts,
            "source": [f"{run['artifact_uri']}/one", f"models:/{self.names[1]}/1"],
            "run_id": [run["run_id"]],
            "experiment_id": ["1"],
            "username": ["nobody", "x"],
            "workspace_name": ["default"],
            "path": ["one", "mlflow.db", "../mlflow.db"],
            "artifact_path": ["one", "../mlflow.db"],
        }

    @rule(seed=st.integers(0, 2**16))
    def send_requests(self, seed: int) -> None:
        # Hypothesis draws only the seed: the values of a request would use up its budget after a few steps.
        random = Random(seed)
        for _ in range(BURST):
            route, user = _random_route(random), random.choice(ACTORS)
            if not any(part in route.path for part in LEFT_OUT):
                body = random_body(route, self.pools(), random)
                response = self.send(route.method, fill(route.path, body), user, body)
                if response.status_code == 200:
                    self.note(route, user, body, response)
                self.judge(user)

    def send(self, method: str, path: str, user: str, body: dict[str, Any]) -> httpx.Response:
        sent: dict[str, Any] = {"params": body} if method == "GET" else {"json": body}
        return send(method, self.gated.uri + path, user, **sent)

    def note(self, route: Route, user: str, body: dict[str, Any], response: httpx.Response) -> None:
        """Remember who wrote evidence through a route, and who registered a version."""
        if route.path.endswith("/model-versions/set-tag"):
            self.wrote(user, body["name"], int(body["version"]), body["key"], body["value"])
        elif route.path.endswith("/model-versions/delete-tag"):
            self.writers.pop((body["name"], int(body["version"]), body["key"]), None)
        elif route.path.endswith("/model-versions/create"):
            made = response.json()["model_version"]
            self.wrote(user, made["name"], int(made["version"]), "registered_by", "{}")
        elif route.path.endswith("/registered-models/rename") and body["name"] != body["new_name"]:
            for name, version, key in list(self.writers):
                if name == body["name"]:
                    self.writers[body["new_name"], version, key] = self.writers.pop((name, version, key))
        elif route.path.endswith("/registered-models/delete"):
            self.writers = {key: value for key, value in self.writers.items() if key[0] != body["name"]}

    def wrote(self, user: str, name: str, version: int, key: str, text: str) -> None:
        try:
            value = json.loads(text)
        except ValueError:
            value = {}
        self.writers[name, version, key] = user, value if isinstance(value, dict) else {}

    actors, approvers = st.sampled_from(ACTORS), st.sampled_from(APPROVERS)
    kinds = st.sampled_from(["request", "decide", "decide", "force"])
    models = st.integers(0, 1)
    versions = st.integers(1, 5)

    def exists(self, name: str, version: int) -> bool:
        return (
            self.gated.call("owner", "GET", "model-versions/get", name=name, version=version).status_code
            == 200
        )

    @rule(index=models, version=versions)
    def evaluate_one(self, index: int, version: int) -> None:
        self.evaluate(self.names[index], version)

    def evaluate(self, name: str, version: int) -> None:
        """Let the evaluator issue a real verdict."""
        tags = self.before.tags.get((name, version), {})
        if self.broken or "artifact_digest" not in tags or not self.exists(name, version):
            return
        digests = {"model_digest": tags["artifact_digest"], "evidence_digest": tags.get("evidence_digest")}
        if any(value is not None and len(value) != 64 for value in digests.values()):
            return
        envelope = self.gated.evaluate(name, version)
        self.issued[name, version, self.before.head(name), self.before.holder(name)] = (
            envelope,
            tags["artifact_digest"],
        )
        self.texts.append(envelope)
        self.judge("trainer")

    @rule(kind=kinds, user=actors, claimed=actors, index=models, version=versions)
    def write_one(self, kind: str, user: str, claimed: str, index: int, version: int) -> None:
        """Request, approve or force, and claim to be another user."""
        self.evidence(kind, user, self.names[index], version, by=claimed)

    def evidence(self, kind: str, user: str, name: str, version: int, **changes: Any) -> None:
        tags = self.before.tags.get((name, version), {})
        if "artifact_digest" not in tags or not self.exists(name, version):
            return
        key = {"decide": approval_tag("production", user)}.get(kind, f"{kind}.production")
        if getattr(self.gated, kind)(user, name, version, **changes).status_code == 200:
            text = read_stages(self.database, self.prefix).tags[name, version][key]
            self.texts.append(text)
            self.wrote(user, name, version, key, text)
        self.judge(user)

    @rule(users=st.tuples(actors, actors, approvers, actors), index=models, version=versions)
    def try_to_promote(self, users: tuple[str, str, str, str], index: int, version: int) -> None:
        """Take all steps of a promotion, in which one user may play several parts."""
        requester, claimed, approver, mover = users
        name = self.names[index]
        self.evaluate(name, version)
        self.evidence("request", requester, name, version, by=claimed)
        self.evidence("decide", approver, name, version)
        self.move(mover, name, version)

    @rule(user=actors, claimed=actors, index=models)
    def register_with_forged_evidence(self, user: str, claimed: str, index: int) -> None:
        """Register a version with tags that would move the stage, if they counted."""
        name, run = self.names[index], self.gated.run()
        head, at = self.before.head(name), "2026-01-01T00:00:00+00:00"
        forged = {
            "artifact_digest": digest_of("one"),
            "force.production": Force("night", head, by="ana", at=at).to_text(),
            "registered_by": claimed,
        }
        tags = [{"key": key, "value": value} for key, value in forged.items()]
        body = {"name": name, "source": f"{run['artifact_uri']}/one", "run_id": run["run_id"], "tags": tags}
        response = self.gated.call(user, "POST", "model-versions/create", **body)
        if response.status_code == 200:
            number = int(response.json()["model_version"]["version"])
            self.wrote(user, name, number, "registered_by", "{}")
            self.judge(user)
            self.move(user, name, number)
            self.evaluate(name, number)

    @rule(user=actors, index=models, version=versions)
    def move_one(self, user: str, index: int, version: int) -> None:
        self.move(user, self.names[index], version)

    def move(self, user: str, name: str, version: int) -> None:
        self.gated.move(user, name, version)
        self.judge(user)

    @rule(broken=st.booleans())
    def change_policy(self, broken: bool) -> None:
        self.broken = broken
        if broken:
            self.gated.policy.write_text("registry: [")
        else:
            write_policy(self.gated.folder, approvals=APPROVALS)

    def judge(self, user: str) -> None:
        """Compare the stages with those before the request, and judge each difference."""
        before, after = self.before, read_stages(self.database, self.prefix)
        for name in {*before.aliases, *after.aliases, *before.heads, *after.heads}:
            old, new = before.holder(name), after.holder(name)
            assert set(after.aliases.get(name, {})) <= {"production"}
            assert after.legacy.get(name, set()) <= {new}
            if old == new:
                assert after.heads.get(name) == before.heads.get(name)
                assert after.legacy.get(name) == before.legacy.get(name)
                continue
            assert not self.broken
            assert after.head(name) == before.head(name) + 1
            assert self.is_allowed(user, name, old, new), (name, old, new)
            if new is not None:
                self.held.add((name, new))
        self.before = after

    def is_allowed(self, user: str, name: str, old: int | None, new: int | None) -> bool:
        """Judge a move by the evidence of the test, not by what the store says about it."""
        version, head = new or old, self.before.head(name)
        assert version is not None
        tags = self.before.tags[name, version]
        force = self.writers.get((name, version, "force.production"))
        if force is not None and force[0] == "ana" and force[1].get("head") == head:
            return True
        if new is None:
            return False
        if user == "oncall" and (name, new) in self.held:
            return True
        envelope = tags.get("verdict.production")
        digest = tags.get("artifact_digest")
        if envelope is None or self.issued.get((name, new, head, old)) != (envelope, digest):
            return False
        bound = {"digest": digest, "head": head, "verdict": verdict_digest(envelope)}
        decisions = {
            writer: value["decision"]
            for (model, number, key), (writer, value) in self.writers.items()
            if (model, number, key) == (name, new, f"{APPROVAL}.production.{approver_id(writer)}")
            and bound.items() <= value.items()
        }
        requester, request = self.writers.get((name, new, "request.production"), ("", {}))
        registrar, _ = self.writers.get((name, new, "registered_by"), ("trainer", {}))
        approvers = {each for each in APPROVERS if decisions.get(each) == "approve"} - {requester, registrar}
        return bool(approvers) and bound.items() <= request.items() and "reject" not in decisions.values()

    @invariant()
    def a_plain_name_is_no_detour(self) -> None:
        for name in getattr(self, "before", Snapshot({}, {}, {}, {})).aliases:
            assert name.startswith(self.prefix)


@pytest.fixture(scope="module")
def server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    # A grant only adds to the default permission.
    folder = tmp_path_factory.mktemp("bad-days")
    with gated_server(empty_database, folder, permission="READ") as running:
        for user, right in RIGHTS.items():
            add_user(running.uri, user)
            for kind in ("registered_model", "experiment"):
                body = {"username": user, "resource_type": kind, "resource_id": "*", "permission": right}
                url = f"{running.uri}/api/3.0/mlflow/users/permissions/grant"
                answer = send("POST", url, "owner", json=body)
                assert answer.status_code == 200, answer.text
        yield running


@pytest.mark.slow(minutes=3)
def test_no_sequence_of_requests_moves_a_protected_stage_without_evidence(server: Gated) -> None:
    machine = type("Machine", (BadDays,), {"gated": server})
    bounds = settings(
        max_examples=60 if IS_LONG else 10,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],  # on a real server, making a failing sequence shorter would take an hour
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=bounds)


@pytest.mark.slow(minutes=2)
def test_no_route_moves_a_protected_stage_for_any_user(server: Gated) -> None:
    machine = type("Machine", (BadDays,), {"gated": server})()
    machine.register()
    body = {"name": machine.names[0], "alias": "production", "version": "3", "stage": "Production"}
    body |= {"new_name": f"{machine.prefix}new", "key": "head.production", "value": "0"}
    for route in all_routes():
        if any(part in route.path for part in LEFT_OUT):
            continue
        for user in ("owner", "trainer") if route.method != "GET" else ("owner",):
            fields = {field.name for field in route.message.fields} if route.message else set(body)
            sent = {name: value for name, value in body.items() if name in fields}
            machine.send(route.method, fill(route.path, sent), user, sent)
            machine.judge(user)
    assert machine.before.holder(machine.names[0]) == 2
