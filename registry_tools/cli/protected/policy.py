"""The commands on protected stages: `evaluate`, and the group `policy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from registry_tools.cli.options import (
    OrderedGroup,
    check_eval_data,
    common_options,
    eval_data_options,
    json_option,
    policy_option,
    trust_options,
    verbose_option,
)
from registry_tools.cli.output import echo, print_columns, print_json, refused_by, verdict_rows
from registry_tools.refs import ModelRef, model_name, parse_ref, stage_name

if TYPE_CHECKING:
    from registry_tools.promotion.signed_verdict import SignedVerdict


@click.command("evaluate")
@click.argument("ref")
@click.option("--to", "stage", required=True, metavar="STAGE", help="The protected stage.")
@click.option(
    "--key", required=True, metavar="FILE",
    help="The private key of an evaluator that the policy names for the stage, in PEM format.",
)  # fmt: skip
@policy_option
@click.option(
    "--expires", metavar="TIME",
    help="How long the verdict can move the stage, such as 12h or 7d. Default: the time in the policy.",
)  # fmt: skip
@eval_data_options
@trust_options
@common_options
def evaluate_command(
    ref: str, stage: str, policy_file: str | None, loading: dict[str, Any], as_json: bool, **options: Any
) -> None:
    """Evaluate the version REF for a protected stage, and sign the verdict.

    The gates and their options are those in the policy. If all pass, the command stores the signed verdict
    with the version, which promote then needs; no stage moves. If the key is encrypted, put its password
    into REGISTRY_TOOLS_KEY_PASSWORD.
    """
    check_eval_data(options["eval_data"], options["target"])
    from registry_tools.api import evidence
    from registry_tools.errors import GateRefused

    try:
        result = evidence.evaluate(ref, stage, policy=policy_file, **options, **loading)
    except GateRefused as error:
        _print_verdict(error.promotion, as_json)
        raise GateRefused(refused_by(error.promotion.verdict, str(error)), error.promotion) from error
    _print_verdict(result, as_json)


def _print_verdict(result: SignedVerdict, as_json: bool) -> None:
    if as_json:
        print_json(result.as_dict())
        return
    rows = verdict_rows(result.verdict)
    print_columns(rows)
    title = f"{result.name} version {result.version} for {result.stage}"
    end = f"by {result.evaluator}, valid until {result.expires_at}" if result.evaluator else "no verdict"
    echo(f"{'signed' if result.evaluator else 'refused':<{max(len(row[0]) for row in rows)}}  {title}: {end}")


@click.group("policy", cls=OrderedGroup)
def policy_group() -> None:
    """Check and explain the policy, which protects stages."""


@policy_group.command()
@click.argument("file", required=False)
@json_option
@verbose_option
def check(file: str | None, as_json: bool) -> None:
    """Check the policy FILE, and print a line for each fault.

    Without FILE, the command checks REGISTRY_TOOLS_POLICY, else ./registry.yaml.
    """
    from registry_tools.errors import PolicyError
    from registry_tools.policy.policy_file import require_policy

    try:
        found = require_policy(file)
    except PolicyError as error:
        if as_json:
            print_json({"valid": False, "problems": list(error.problems)})
        elif len(error.problems) > 1:
            for problem in error.problems:
                echo(problem)
        raise
    stages = {pattern: sorted(stages) for pattern, stages in found.models.items()}
    if as_json:
        print_json({"valid": True, "problems": [], "registry": found.registry, "stages": stages})
        return
    echo(f"valid  registry {found.registry}")
    for pattern, names in stages.items():
        for name in names:
            what = "protected" if found.models[pattern][name].protected else "not protected"
            echo(f"{what}  {pattern} {name}")


@policy_group.command()
@click.argument("model")
@click.argument("stage")
@policy_option
@common_options
def explain(model: str, stage: str, policy_file: str | None, as_json: bool, tracking_uri: str | None) -> None:
    """Explain the rules for a STAGE of MODEL.

    If MODEL is a reference to a version, such as iris/3, the command also prints the conditions of a
    promotion that this version does not meet yet.
    """
    where = stage_name(stage)
    ref = parse_ref(model) if any(c in model for c in "/@") else ModelRef(model_name(model))
    from registry_tools.mlflow_store import registry
    from registry_tools.mlflow_store.client import connect
    from registry_tools.policy import explanation
    from registry_tools.policy.policy_file import require_policy
    from registry_tools.promotion.stage_evidence import missing_conditions

    policy = require_policy(policy_file)
    rules = policy.stage(ref.name, where)
    version, gaps = None, None
    if ref.version is not None or ref.stage is not None:
        client = connect(tracking_uri)
        version = registry.find_version(client, ref)
        gaps = missing_conditions(client, ref, where, policy)
    rows = explanation.explain(rules) if rules is not None else []
    if as_json:
        texts = [{"rule": rule, "text": text} for rule, text in rows]
        content = {"model": ref.name, "stage": where, "protected": rules is not None, "rules": texts}
        print_json(content | {"version": version.version if version else None, "missing": gaps})
        return
    rows = rows or [("stage", f"the policy does not protect {where} of {ref.name}")]
    if version is not None and gaps is not None:
        title = f"{ref.name} version {version.version}"
        is_held = where in version.stages
        done = ("held", f"{title} is in {where}") if is_held else ("ready", f"{title} may enter {where}")
        rows += [("missing", f"{title}: {gap}") for gap in gaps] or [done]
    print_columns(rows)


COMMANDS = (evaluate_command, policy_group)
