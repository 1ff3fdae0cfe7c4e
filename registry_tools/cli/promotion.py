"""The commands that move stages: `promote`, `rollback`, `unset` and `repair`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from registry_tools.cli.options import (
    actor_option,
    check_eval_data,
    common_options,
    eval_data_options,
    policy_option,
    trust_options,
)
from registry_tools.cli.output import echo, print_columns, print_json, refused_by, verdict_rows
from registry_tools.refs import model_name, parse_ref, stage_name

if TYPE_CHECKING:
    from registry_tools.promotion.promote import Promotion

F = TypeVar("F", bound=Callable[..., Any])

RULES = ("not-worse", "non-inferior", "better")
# The arguments of `promote` that the policy decides for a stage that it protects.
_GATE_OPTIONS = {
    *("minimum", "maximum", "rule", "metric", "margin", "baseline", "slices", "onnx", "eval_data", "target"),
    *("max_latency_ms", "max_latency_ratio", "max_size_ratio"),
}


def _thresholds(_: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> Any:
    found = {}
    for text in texts:
        name, _equals, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not name.strip() or not math.isfinite(number):
            raise click.BadParameter(f"{text!r}: write METRIC=NUMBER, such as accuracy=0.9")
        found[name.strip()] = number
    return found


_expect_current_option = click.option(
    "--expect-current", type=int, metavar="N", help="Refuse if another version holds the stage."
)


def _reason_option(**options: Any) -> Callable[[F], F]:
    return click.option("--reason", help="The reason, which the history shows.", **options)


@click.command()
@click.argument("ref")
@click.option("--to", "stage", metavar="STAGE", help="The stage to move.")
@click.option("--new-stage", metavar="STAGE", help="Like --to, for a stage that may not exist yet.")
@click.option(
    "--min", "minimum", multiple=True, callback=_thresholds, metavar="METRIC=N",
    help="Require at least this value of a metric on the held-out rows; recall is the lowest of all classes.",
)  # fmt: skip
@click.option(
    "--max", "maximum", multiple=True, callback=_thresholds, metavar="METRIC=N",
    help="Require at most this value of a metric, such as log_loss=0.5 or rmse=60.",
)  # fmt: skip
@click.option(
    "--rule", type=click.Choice(RULES), default="not-worse", show_default=True,
    help="How to compare the candidate with the champion.",
)  # fmt: skip
@click.option(
    "--metric", metavar="NAME", default="auto", show_default=True,
    callback=lambda _context, _option, name: None if name == "auto" else name,
    help="The metric to compare by, such as balanced_accuracy, recall:CLASS, mae or module:function. "
    "auto: the one recorded with the champion, else with the version, else accuracy or rmse.",
)  # fmt: skip
@click.option(
    "--margin", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.01,
    show_default=True,
    help="The negligible difference in the metric; for rmse, mae, median_absolute_error and log_loss, a "
    "share of the champion's value.",
)  # fmt: skip
@click.option(
    "--baseline/--no-baseline", default=True, show_default=True,
    help="Require the model to beat the best constant prediction; --no-baseline needs --reason.",
)  # fmt: skip
@click.option(
    "--slice", "slices", multiple=True, metavar="COLUMN",
    help="Refuse a candidate that is significantly worse in any group of this column.",
)  # fmt: skip
@click.option(
    "--max-latency-ms", type=click.FloatRange(min=0, min_open=True), metavar="MS",
    help="The longest median time to predict one row.",
)  # fmt: skip
@click.option(
    "--max-latency-ratio", type=click.FloatRange(min=0, min_open=True), metavar="N",
    help="The largest ratio of that time to the champion's.",
)  # fmt: skip
@click.option(
    "--max-size-ratio", type=click.FloatRange(min=0, min_open=True), metavar="N",
    help="The largest ratio of the size of the model files to the champion's.",
)  # fmt: skip
@click.option(
    "--onnx", is_flag=True,
    help="Require an ONNX file that predicts the same, and store it with the version; needs the extra onnx.",
)  # fmt: skip
@eval_data_options
@_expect_current_option
@click.option("--dry-run", is_flag=True, help="Evaluate the gates only; record and move nothing.")
@click.option("--force", is_flag=True, help="Move the stage even if a gate refuses; needs --reason.")
@policy_option
@_reason_option(default="")
@actor_option
@trust_options
@common_options
def promote(
    ref: str,
    stage: str | None,
    new_stage: str | None,
    dry_run: bool,
    force: bool,
    reason: str,
    policy_file: str | None,
    loading: dict[str, Any],
    as_json: bool,
    **options: Any,  # the other arguments of the public `promote`
) -> None:
    """Move a stage to the version REF if every gate passes.

    The gates check REF and compare it with the champion, the version that holds the stage. If a gate
    refuses, the command records the refusal and exits with code 3. For a stage that the policy
    protects, no gates run: the signed verdict and the approvals of REF decide.
    """
    check_eval_data(options["eval_data"], options["target"])
    for option, needs_reason in (("--force", force), ("--no-baseline", not options["baseline"])):
        if needs_reason and not reason.strip():
            raise click.UsageError(f"{option} needs --reason: the history shows it")
    if (stage is None) == (new_stage is None):
        raise click.UsageError("give either --to STAGE or --new-stage STAGE")
    new, to = new_stage is not None, stage or new_stage or ""
    _check_gate_options(ref, to, policy_file)
    from registry_tools.api import stages
    from registry_tools.errors import GateRefused
    from registry_tools.promotion.promote import refusal

    try:
        result = stages.promote(
            ref,
            to,
            new_stage=new,
            dry_run=dry_run,
            force=force,
            reason=reason,
            policy=policy_file,
            **options,
            **loading,
        )
    except GateRefused as error:
        _print_promotion(error.promotion, as_json, "refused")
        raise GateRefused(refused_by(error.promotion.verdict, str(error)), error.promotion) from error
    what = "moved"
    if dry_run:
        what = "would move" if result.verdict.passed or force else "would be refused"
    _print_promotion(result, as_json, what)
    if what == "would be refused":
        raise GateRefused(refused_by(result.verdict, refusal(result)), result)


def _check_gate_options(ref: str, stage: str, policy: str | None) -> None:
    """Refuse options of the gates for a stage that the policy protects."""
    context = click.get_current_context()
    given = [
        each.opts[0]
        for each in context.command.params
        if each.name in _GATE_OPTIONS
        and context.get_parameter_source(each.name) is ParameterSource.COMMANDLINE
    ]
    if not given:
        return
    from registry_tools.policy.policy_file import find_policy

    found = find_policy(policy)
    if found is not None and found.stage(parse_ref(ref).name, stage_name(stage)) is not None:
        raise click.UsageError(
            f"the policy of {found.registry} decides the gates of {stage}: leave out {', '.join(given)}"
        )


@click.command()
@click.argument("model")
@click.option("--stage", default="production", show_default=True, help="The stage to roll back.")
@click.option(
    "--to", type=int, metavar="N", help="Roll back to this version, which must have held the stage."
)
@_expect_current_option
@_reason_option(required=True)
@actor_option
@trust_options
@common_options
def rollback(model: str, stage: str, loading: dict[str, Any], as_json: bool, **options: Any) -> None:
    """Roll a stage of MODEL back to its previous version."""
    from registry_tools.api import stages

    result = stages.rollback(model, stage, **options, **loading)
    _print_promotion(result, as_json, "rolled back")


@click.command()
@click.argument("model")
@click.option("--stage", required=True, help="The stage to empty.")
@click.option("--force", is_flag=True, help="Empty the stage even if the policy of the registry protects it.")
@_reason_option(required=True)
@actor_option
@common_options
def unset(model: str, stage: str, as_json: bool, **options: Any) -> None:
    """Empty a stage of MODEL; a rollback restores its version."""
    from registry_tools.api import stages

    event = stages.unset(model, stage, **options)
    if as_json:
        print_json({"name": model, "stage": event.stage, "event": event.as_dict()})
    else:
        echo(f"unset  {model} {event.stage}: version {event.previous_version} → none")


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


def _print_promotion(result: Promotion, as_json: bool, what: str) -> None:
    if as_json:
        print_json(result.as_dict())
        return
    rows = verdict_rows(result.verdict)
    rows += [("note", note, "") for note in result.notes]
    if rows:
        print_columns(rows)
    width = max((len(row[0]) for row in rows), default=0)
    held = result.previous_version
    if what in {"refused", "would be refused"}:
        stays = "stays empty" if held is None else f"stays at version {held}"
        change = f"{stays}, version {result.version} was not promoted"
    else:
        change = f"version {held or 'none'} → {result.version}"
    echo(f"{what:<{width}}  {result.name} {result.stage}: {change}")


COMMANDS = (promote, rollback, unset, repair)
