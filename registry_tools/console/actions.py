"""The forms that change the registry, each with the rights of the user who is signed in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response

from registry_tools.console import commands
from registry_tools.console.candidate import read_candidate
from registry_tools.console.context import Console, Form, Here, Visitor
from registry_tools.console.problem import Problem
from registry_tools.console.sessions import Session
from registry_tools.mlflow_store.client import RegistryClient
from registry_tools.promotion import approvals
from registry_tools.refs import ModelRef, model_name, stage_name

router = APIRouter()
_LONGEST_REASON = 1_000  # characters


@router.post("/models/{name}/stages/{stage}/promote")
def promote(console: Here, session: Visitor, form: Form, name: str, stage: str) -> Response:
    """Promote a version as `registry-tools promote` does."""
    version, where = _number(form, "version"), stage_name(stage)
    options = [f"--to={where}", f"--reason={_reason(form)}"]
    if form.get("holder"):
        options.append(f"--expect-current={_number(form, 'holder')}")
    ref = f"{model_name(name)}/{version}"
    result = commands.run(session.user, console.registry, "promote", *options, "--", ref)
    session.notice = f"{where} of {name} is now version {result['version']}."
    return _to_stage(name, where)


@router.post("/models/{name}/stages/{stage}/rollback")
def roll_back(console: Here, session: Visitor, form: Form, name: str, stage: str) -> Response:
    """Roll back a stage as `registry-tools rollback` does."""
    where, reason = stage_name(stage), _reason(form)
    if not reason:
        raise Problem(400, "a rollback needs a reason: the history shows it")
    options = [f"--stage={where}", f"--reason={reason}", f"--expect-current={_number(form, 'holder')}"]
    result = commands.run(session.user, console.registry, "rollback", *options, "--", name)
    notes = "".join(f" {note}." for note in result["notes"])
    session.notice = f"{where} of {name} is back at version {result['version']}.{notes}"
    return _to_stage(name, where)


@router.post("/models/{name}/versions/{version}/{stage}/request")
def request(console: Here, session: Visitor, form: Form, name: str, version: int, stage: str) -> Response:
    """Request the promotion of a version as `registry-tools request` does."""
    with _as_seen(console, session, form, name, version, stage) as (client, ref, where):
        approvals.request(client, ref, where, _reason(form))
    session.notice = f"You requested {where} for version {version} of {name}."
    return _to_candidate(name, version, where)


@router.post("/models/{name}/versions/{version}/{stage}/decide")
def decide(console: Here, session: Visitor, form: Form, name: str, version: int, stage: str) -> Response:
    """Approve or reject a request as `registry-tools approve` and `reject` do."""
    functions = {"approve": approvals.approve, "reject": approvals.reject}
    function = functions.get(form.get("decision", ""))
    if function is None:
        raise Problem(400, "the form is not complete: open the page again and repeat it")
    with _as_seen(console, session, form, name, version, stage) as (client, ref, where):
        function(client, ref, where, _reason(form))
    done = "approved" if function is approvals.approve else "rejected"
    session.notice = f"You {done} version {version} of {name} for {where}."
    return _to_candidate(name, version, where)


@contextlib.contextmanager
def _as_seen(
    console: Console, session: Session, form: dict[str, str], name: str, version: int, stage: str
) -> Iterator[tuple[RegistryClient, ModelRef, str]]:
    """Yield the registry, the version and the stage, if the evidence is the one that the page showed."""
    where = stage_name(stage)
    with session.registry() as client:
        found = read_candidate(client, console.policy(), model_name(name), version, where)
        if found.seen != form.get("seen"):
            raise Problem(
                409, f"the evidence of version {version} changed since you opened the page: look at it again"
            )
        yield client, ModelRef(name, version=version), where


def _to_candidate(name: str, version: int, stage: str) -> Response:
    return RedirectResponse(f"/models/{quote(name, safe='')}/versions/{version}/{stage}", 303)


def _to_stage(name: str, stage: str) -> Response:
    return RedirectResponse(f"/models/{quote(name, safe='')}/stages/{stage}", 303)


def _reason(form: dict[str, str]) -> str:
    reason = " ".join(form.get("reason", "").split())
    if len(reason) > _LONGEST_REASON:
        raise Problem(400, f"the reason has {len(reason):,} characters: shorten it to {_LONGEST_REASON:,}")
    return reason


def _number(form: dict[str, str], field: str) -> int:
    text = form.get(field, "")
    if not text.isdecimal() or len(text) > 9:
        raise Problem(400, f"{text[:20]!r} is not the number of a version: write a number such as 3")
    return int(text)
