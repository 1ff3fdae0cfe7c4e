"""The commands on requests for protected stages: `request`, `approve`, `reject` and `requests`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from registry_tools.cli.options import common_options, policy_option
from registry_tools.cli.output import print_columns, print_json
from registry_tools.refs import parse_ref, stage_name

if TYPE_CHECKING:
    from registry_tools.policy.records import Request

stage_option = click.option("--to", "stage", required=True, metavar="STAGE", help="The protected stage.")


@click.command()
@click.argument("ref")
@stage_option
@click.option("--reason", required=True, help="The reason, which approvers and the history show.")
@policy_option
@common_options
def request(ref: str, stage: str, policy_file: str | None, as_json: bool, **options: Any) -> None:
    """Request the promotion of the version REF to a protected stage.

    REF needs a signed verdict (see evaluate). The request is void once the verdict or the stage changes.
    """
    _record("request", "requested", ref, stage, policy_file, as_json, **options)


@click.command()
@click.argument("ref")
@stage_option
@click.option("--reason", default="", help="The reason, which the history shows.")
@policy_option
@common_options
def approve(ref: str, stage: str, policy_file: str | None, as_json: bool, **options: Any) -> None:
    """Approve the requested promotion of REF to a protected stage.

    The policy names the approvers. An approval by the requester, or by the user who registered the version,
    does not count.
    """
    _record("approve", "approved", ref, stage, policy_file, as_json, **options)


@click.command()
@click.argument("ref")
@stage_option
@click.option("--reason", required=True, help="The reason, which the requester and the history show.")
@policy_option
@common_options
def reject(ref: str, stage: str, policy_file: str | None, as_json: bool, **options: Any) -> None:
    """Reject the requested promotion of REF to a protected stage.

    REF cannot enter the stage until you approve it, or it gets another verdict.
    """
    _record("reject", "rejected", ref, stage, policy_file, as_json, **options)


@click.command()
@click.argument("model", required=False)
@policy_option
@common_options
def requests(model: str | None, policy_file: str | None, as_json: bool, tracking_uri: str | None) -> None:
    """List the open requests for protected stages, of MODEL or of all models."""
    from registry_tools.api import approvals

    found = approvals.list_requests(model, policy=policy_file, tracking_uri=tracking_uri)
    if as_json:
        print_json([each.as_dict() for each in found])
        return
    rows = [("at", "model", "version", "stage", "requester", "reason", "missing")]
    for each in found:
        missing = "; ".join(each.missing) or "-"
        row = (f"{each.at[:19]}Z", each.model, str(each.version), each.stage, each.requester, each.reason)
        rows.append((*row, missing))
    print_columns(rows, header=True)


def _record(
    action: str, done: str, ref: str, stage: str, policy_file: str | None, as_json: bool, **options: Any
) -> None:
    """Record a request or a decision, and print the conditions that are not met, if there is a policy."""
    from registry_tools.api import approvals
    from registry_tools.mlflow_store.client import connect
    from registry_tools.policy.policy_file import find_policy
    from registry_tools.promotion.stage_evidence import missing_conditions

    policy = find_policy(policy_file)  # before the record, so that a wrong name leaves nothing half done
    record: Request = getattr(approvals, action)(ref, stage, **options)
    missing = None
    if policy is not None:
        client = connect(options["tracking_uri"])
        missing = missing_conditions(client, parse_ref(ref), stage_name(stage), policy)
    if as_json:
        print_json(dataclasses.asdict(record) | {"missing": missing})
        return
    rows = [(done, f"{ref} for {stage} by {record.by}")]
    rows += [("missing", gap) for gap in missing or []]
    print_columns(rows)


COMMANDS = (request, approve, reject, requests)
