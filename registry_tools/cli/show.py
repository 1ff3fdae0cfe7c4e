"""The commands that show the registry: `list`, `show` and `history`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from registry_tools.cli.options import common_options, html_option
from registry_tools.cli.output import echo, print_columns, print_json, utc_now, write_page
from registry_tools.refs import stage_name

if TYPE_CHECKING:
    from registry_tools.api.tables import RegisteredVersion
    from registry_tools.promotion.event import Event


@click.command("list")
@click.argument("model", required=False)
@click.option("--limit", type=click.IntRange(min=1), help="Show only the newest N versions.")
@common_options
def list_command(model: str | None, limit: int | None, as_json: bool, tracking_uri: str | None) -> None:
    """List all models, or the versions of MODEL, newest first."""
    from registry_tools.api import listing

    if model is None:
        models = listing.list_models(limit=limit, tracking_uri=tracking_uri)
        if as_json:
            print_json([m.as_dict() for m in models])
        for m in [] if as_json else models:
            stages = ", ".join(f"{stage} → {v}" for stage, v in sorted(m.stages.items()))
            echo(f"{m.name}  {stages or 'no stage in use'}")
        return
    versions = listing.list_versions(model, limit=limit, tracking_uri=tracking_uri)
    if as_json:
        print_json([v.as_dict() for v in versions])
        return
    names = [_metric_of(v) for v in versions]
    known = {name for name in names if name}
    same = known.pop() if len(known) == 1 else None  # then the header names it
    rows = [("version", "stages", same or "metric", "run", "digest", "last event")]
    for v, name in zip(versions, names, strict=True):
        value = f"{v.metrics[name]:.4f}" if name in v.metrics else "-"
        rows.append(
            (
                str(v.version),
                ", ".join(v.stages) or "-",
                value if same or value == "-" else f"{name} {value}",
                (v.run_id or "-")[:8],
                (v.digest or "-")[:12],
                _event_line(v.last_event),
            )
        )
    print_columns(rows, header=True)


@click.command()
@click.argument("ref")
@common_options
def show(ref: str, as_json: bool, tracking_uri: str | None) -> None:
    """Show a version: stages, metrics, tags and its last event."""
    from registry_tools.api import listing

    version = listing.get_version(ref, tracking_uri=tracking_uri)
    event = version.last_event
    if as_json:
        print_json(version.as_dict())
        return
    rows = [
        ("version", f"{version.name} version {version.version}"),
        ("stages", ", ".join(version.stages) or "-"),
        ("run", version.run_id or "-"),
        ("digest", version.digest or "-"),
    ]
    if event is not None:
        rows.append(("last event", _event_line(event)))
        for gate in event.gates:
            passed = "passed" if gate["passed"] else "REFUSED"
            rows.append((f"gate {gate['gate']}", f"{passed}: {gate['message']}"))
    for title, values in (("metric", version.metrics), ("tag", version.tags)):
        for key, value in sorted(values.items()):
            text = f"{value:.4f}" if isinstance(value, float) else str(value)
            rows.append((f"{title} {key}", text))
    print_columns(rows)
    if version.description:
        for line in ["", *version.description.splitlines()]:
            echo(line)


@click.command()
@click.argument("model")
@click.option("--stage", help="Show only the events on this stage.")
@click.option("--limit", type=click.IntRange(min=1), help="Show only the newest N events.")
@html_option
@common_options
def history(
    model: str,
    stage: str | None,
    limit: int | None,
    html: str | None,
    as_json: bool,
    tracking_uri: str | None,
) -> None:
    """Show the events on the stages of MODEL, newest first."""
    from registry_tools.api import listing

    found = listing.history(model, stage=stage, limit=limit, tracking_uri=tracking_uri)
    if html is not None:
        from registry_tools.reports.history import history_page

        parts = [f"the newest {limit} events"] if limit is not None and len(found) == limit else []
        parts += [f"events on {stage_name(stage)}"] if stage is not None else []
        scope = f"Only {', '.join(parts)}" if parts else ""
        page = history_page(found.name, found, found.stages, found.inconsistencies, utc_now(), scope)
        write_page(html, page)
    if as_json:
        print_json([event.as_dict() for event in found])
    elif html is not None:
        echo(f"{len(found)} events on {found.name} → {html}")
    else:
        from registry_tools.promotion.history import forced_moves

        for text in forced_moves(found):
            echo(text)
        rows = [("at", "action", "outcome", "stage", "version", "before", "actor", "reason")]
        for event in found:
            rows.append(
                (
                    f"{event.at[:19]}Z",
                    event.action,
                    event.outcome_text,
                    event.stage,
                    str(event.version or "-"),
                    str(event.previous_version or "-"),
                    event.actor,
                    event.reason or "-",
                )
            )
        print_columns(rows, header=True)
    for text in found.inconsistencies:
        echo(f"{text}; run: registry-tools repair {found.name}", err=True)


def _metric_of(version: RegisteredVersion) -> str:
    """Return the name of the logged metric that the training chose, else of its task's; "" if none is."""
    from registry_tools.stats.metric import metric_key
    from registry_tools.task import DEFAULT_METRICS

    chosen = metric_key(version.params.get("metric", ""))
    known = (name for name in (chosen, *DEFAULT_METRICS.values()) if name in version.metrics)
    return next(known, "")


def _event_line(event: Event | None) -> str:
    if event is None:
        return "-"
    return f"{event.action} to {event.stage}, {event.outcome_text}, {event.at[:19]}Z"


COMMANDS = (list_command, show, history)
