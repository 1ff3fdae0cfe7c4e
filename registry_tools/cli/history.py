"""The commands `history`, `repair` and `delete`."""

from __future__ import annotations

import click

from registry_tools.cli.options import (
    actor_option,
    common_options,
    echo,
    html_option,
    outcome_of,
    print_columns,
    print_json,
    utc_now,
    write_page,
)
from registry_tools.refs import model_name, parse_ref, stage_name


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
        rows = [("at", "action", "outcome", "stage", "version", "before", "actor", "reason")]
        for event in found:
            rows.append(
                (
                    f"{event.at[:19]}Z",
                    event.action,
                    outcome_of(event),
                    event.stage,
                    str(event.version or "-"),
                    str(event.previous_version or "-"),
                    event.actor,
                    event.reason or "-",
                )
            )
        print_columns(rows)
    for text in found.inconsistencies:
        echo(f"{text}; run: registry-tools repair {found.name}", err=True)


@click.command()
@click.argument("model")
@click.option(
    "--new-chain", is_flag=True,
    help="Start a new chain of events for a stage whose history was removed and cannot be restored.",
)  # fmt: skip
@actor_option
@common_options
def repair(model: str, new_chain: bool, actor: str | None, as_json: bool, tracking_uri: str | None) -> None:
    """Finish interrupted events and record external changes.

    A crash can leave an event of MODEL open: the command applies or closes it. It also records the
    stages that another tool has moved.
    """
    name = model_name(model)
    from registry_tools.mlflow_store.client import connect
    from registry_tools.promotion import recovery

    done = recovery.repair(connect(tracking_uri), name, actor=actor, new_chain=new_chain)
    if as_json:
        print_json(done)
    else:
        for line in done or ["nothing to repair"]:
            echo(line)


@click.command()
@click.argument("ref")
@common_options
def delete(ref: str, as_json: bool, tracking_uri: str | None) -> None:
    """Delete the version REF, unless a stage or a rollback needs it."""
    model_ref = parse_ref(ref)
    from registry_tools.mlflow_store.client import connect
    from registry_tools.promotion import deletion

    deleted = deletion.delete(connect(tracking_uri), model_ref)
    if as_json:
        print_json({"name": deleted.name, "version": deleted.version, "deleted": True})
    else:
        echo(f"deleted  {deleted.name} version {deleted.version}")


COMMANDS = (history, repair, delete)
