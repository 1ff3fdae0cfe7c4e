"""The pages to read: models, pending requests, one version for a stage, and the history of a stage."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from registry_tools.console import commands
from registry_tools.console.candidate import open_requests, read_candidate
from registry_tools.console.context import Here, Visitor, show
from registry_tools.console.guard import REPORT_POLICY
from registry_tools.console.problem import Problem
from registry_tools.mlflow_store import registered_models, registry
from registry_tools.policy.definition import Policy
from registry_tools.policy.tag_names import REQUEST, VERDICT
from registry_tools.promotion import history
from registry_tools.promotion.event import APPLIED, Event
from registry_tools.promotion.protected_stage import protected_by
from registry_tools.refs import LEGACY_STAGES, model_name, stage_name

router = APIRouter()
_MODELS, _VERSIONS, _EVENTS, _REQUESTS = 50, 20, 25, 50
_TOKEN = re.compile(r"[\w=+/-]{1,500}", re.ASCII)


@router.get("/")
def models(session: Visitor, after: str = "") -> HTMLResponse:
    """Show the models with the version in each stage."""
    with session.registry() as client:
        found = registered_models.models_page(client, _MODELS, _token(after))
    return show(session, "models.html", models=found.items, following=found.following)


@router.get("/models/{name}")
def model(console: Here, session: Visitor, name: str, after: str = "") -> HTMLResponse:
    """Show the stages of a model, and its newest versions with the stages for which they have evidence."""
    policy = console.policy()
    with session.registry() as client:
        found = registered_models.get_registered_model(client, model_name(name))
        versions = registry.versions_page(client, found, _VERSIONS, _token(after))
    held = registered_models.stages_of(found)
    stages = _stages(policy, name, held)
    rows = [(each, _evidence_stages(each.tags)) for each in versions.items]
    return show(
        session,
        "model.html",
        name=name,
        description=found.description or "",
        stages=[(stage, held.get(stage), _is_protected(policy, name, stage)) for stage in stages],
        versions=rows,
        usual=next((stage for stage in stages if _is_protected(policy, name, stage)), "production"),
        following=versions.following,
    )


@router.get("/requests")
def requests(console: Here, session: Visitor, stage: str = "", after: str = "") -> HTMLResponse:
    """Show the open requests of all models, or a further page of those for one stage."""
    policy, token, pages = console.policy(), _token(after), {}
    if policy is not None:
        with session.registry() as client:
            for each in [stage_name(stage)] if stage else _listed(policy):
                pages[each] = open_requests(client, policy, each, _REQUESTS, token)
    return show(
        session,
        "requests.html",
        has_policy=policy is not None,
        requests=[request for page in pages.values() for request in page.items],
        following={each: page.following for each, page in pages.items() if page.following},
    )


@router.get("/models/{name}/versions/{version}/{stage}")
def candidate(console: Here, session: Visitor, name: str, version: int, stage: str) -> HTMLResponse:
    """Show a version for a stage: verdict, metrics, and the conditions that are not met."""
    with session.registry() as client:
        found = read_candidate(client, console.policy(), model_name(name), version, stage_name(stage))
    return show(session, "candidate.html", name=name, found=found, stage=found.stage)


@router.get("/models/{name}/compare/{first}/{second}")
def compare(console: Here, session: Visitor, name: str, first: int, second: int) -> HTMLResponse:
    """Show the report of `registry-tools compare --html`."""
    refs = f"{model_name(name)}/{first}", f"{name}/{second}"
    page = commands.comparison(session.user, console.registry, *refs)
    return HTMLResponse(page, headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/models/{name}/stages/{stage}")
def timeline(console: Here, session: Visitor, name: str, stage: str, after: str = "") -> HTMLResponse:
    """Show the history of a stage, with the forms to move it."""
    where = stage_name(stage)
    with session.registry() as client:
        found = registered_models.get_registered_model(client, model_name(name))
        events = history.events_page(client, name, where, _EVENTS, _token(after))
    holder, policy = registered_models.stages_of(found).get(where), console.policy()
    return show(
        session,
        "stage.html",
        name=name,
        stage=where,
        holder=holder,
        external=_external(events.items, holder) if not after else None,
        rules=protected_by(policy, name, where),
        events=events.items,
        is_first=not after,
        following=events.following,
    )


def _external(events: Iterable[Event], holder: int | None) -> Event | None:
    """Return the last event that moved the stage, if the stage does not hold its version."""
    moved = max(
        (event for event in events if event.outcome == APPLIED), key=lambda each: each.sequence, default=None
    )
    return moved if moved is not None and moved.version != holder else None


def _token(given: str) -> str | None:
    if given and not _TOKEN.fullmatch(given):
        raise Problem(400, "the address of this page is not complete: begin at the first page")
    return given or None


def _stages(policy: Policy | None, name: str, held: Iterable[str]) -> list[str]:
    """Return the stages of a model: the usual ones, those in use, and those in the policy."""
    listed = _listed(policy) if policy is not None else ()
    return sorted({*LEGACY_STAGES, *held, *(each for each in listed if _is_protected(policy, name, each))})


def _listed(policy: Policy) -> list[str]:
    """Return the stages that a policy lists for any model."""
    return sorted({stage for stages in policy.models.values() for stage in stages})


def _is_protected(policy: Policy | None, name: str, stage: str) -> bool:
    return protected_by(policy, name, stage) is not None


def _evidence_stages(tags: Iterable[str]) -> list[str]:
    """Return the stages for which a version has a verdict or a request."""
    named = (tag.partition(".") for tag in tags)
    return sorted({stage for kind, _, stage in named if kind in {VERDICT, REQUEST} and stage})
