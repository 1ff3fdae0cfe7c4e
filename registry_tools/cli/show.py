"""The commands that show the registry: `list` and `show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from registry_tools.cli.options import common_options, echo, outcome_of, print_columns, print_json

if TYPE_CHECKING:
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
    rows = [("version", "stages", "accuracy", "run", "digest", "last event")]
    for v in versions:
        accuracy = f"{v.metrics['accuracy']:.4f}" if "accuracy" in v.metrics else "-"
        rows.append(
            (
                str(v.version),
                ", ".join(v.stages) or "-",
                accuracy,
                (v.run_id or "-")[:8],
                (v.digest or "-")[:12],
                _event_line(v.last_event),
            )
        )
    print_columns(rows)


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


def _event_line(event: Event | None) -> str:
    if event is None:
        return "-"
    return f"{event.action} to {event.stage}, {outcome_of(event)}, {event.at[:19]}Z"


COMMANDS = (list_command, show)
