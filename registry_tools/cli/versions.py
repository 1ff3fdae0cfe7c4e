"""The commands on one or two versions: `verify`, `compare`, `sign`, `copy` and `adopt`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry_tools.cli.options import (
    check_eval_data,
    common_options,
    echo,
    eval_data_options,
    html_option,
    loading_options,
    print_columns,
    print_json,
    utc_now,
    verdict_rows,
    write_page,
)
from registry_tools.refs import model_name, parse_ref

if TYPE_CHECKING:
    from registry_tools.evaluation.comparison import PairedPredictions
    from registry_tools.mlflow_store.registry import VersionInfo
    from registry_tools.models.trust_policy import TrustPolicy


@click.command()
@click.argument("ref")
@loading_options
@common_options
def verify(ref: str, policy: TrustPolicy, as_json: bool, tracking_uri: str | None) -> None:
    """Check the files, predictions and history of a version.

    The command compares the files of REF with their digests, checks their format, reproduces the
    recorded predictions, and compares the stages of the model with its history.
    """
    model_ref = parse_ref(ref)
    from registry_tools.errors import VerificationError
    from registry_tools.mlflow_store.client import connect
    from registry_tools.promotion import recovery

    client = connect(tracking_uri)
    verdict = recovery.verify(client, model_ref, policy)
    if as_json:
        print_json(verdict.as_dict())
    else:
        print_columns(verdict_rows(verdict))
    if not verdict.passed:
        first = verdict.refusals[0]
        raise VerificationError(f"{ref}: {first.gate}: {first.message}")


@click.command()
@click.argument("first")
@click.argument("second")
@eval_data_options
@html_option
@loading_options
@common_options
def compare(
    first: str,
    second: str,
    eval_data: str | None,
    target: str | None,
    html: str | None,
    policy: TrustPolicy,
    as_json: bool,
    tracking_uri: str | None,
) -> None:
    """Compare two versions on the same held-out rows.

    The result also shows the parameters, metrics and data of both. The rows are the held-out rows of FIRST,
    unless you give --eval-data. The page of --html also shows the rows on which they disagree, and plots.
    """
    check_eval_data(eval_data, target)
    refs = parse_ref(first), parse_ref(second)
    from registry_tools.errors import InputError, RegistryToolsError, VerificationError
    from registry_tools.evaluation import comparison
    from registry_tools.evaluation.eval_data import read_eval_data
    from registry_tools.mlflow_store import registry
    from registry_tools.mlflow_store.client import connect

    given = read_eval_data(Path(eval_data), str(target)) if eval_data is not None else None
    client = connect(tracking_uri)
    one, two = (registry.get_version(client, ref) for ref in refs)
    if (one.name, one.version) == (two.name, two.version):
        raise InputError(
            f"{first} and {second} are both {one.name} version {one.version}: `registry-tools "
            f"history {one.name}` shows the earlier versions"
        )
    compared: PairedPredictions | str
    try:
        compared = comparison.compare(client, one, two, policy, given)
    except RegistryToolsError as error:  # such as missing files: the rest can still be shown
        compared = str(error)
        if given is not None:
            raise VerificationError(f"not compared on {eval_data}: {compared}") from error
    if html is not None:
        from registry_tools.models import artifacts
        from registry_tools.reports.comparison import comparison_page

        of_one, of_two = artifacts.plots(client, one), artifacts.plots(client, two)
        pictures, left_out = (of_one[0], of_two[0]), [*of_one[1], *of_two[1]]
        write_page(html, comparison_page(one, two, compared, pictures, utc_now(), left_out))
    if as_json:
        print_json(
            {
                "versions": [one.as_dict(), two.as_dict()],
                "paired": None if isinstance(compared, str) else compared.paired.metrics(),
                "not_paired_because": compared if isinstance(compared, str) else None,
                "eval_data": eval_data,
                "unrecorded_training_rows": [] if isinstance(compared, str) else list(compared.unrecorded),
                "report": html,
            }
        )
        return
    _print_comparison(one, two, compared)
    if html is not None:
        echo(f"report: {html}")


def _print_comparison(one: VersionInfo, two: VersionInfo, compared: PairedPredictions | str) -> None:
    rows = [("", f"{one.name} {one.version}", f"{two.name} {two.version}")]
    data = [version.tags.get("data_digest", "-")[:12] for version in (one, two)]
    rows.append(("data", data[0], data[1]))
    for key in sorted({*one.params, *two.params}):
        rows.append((f"param {key}", one.params.get(key, "-"), two.params.get(key, "-")))
    for key in sorted({*one.metrics, *two.metrics}):
        rows.append((f"metric {key}", _metric_text(one.metrics.get(key)), _metric_text(two.metrics.get(key))))
    print_columns(rows)
    if isinstance(compared, str):
        echo("")
        echo(f"not compared on the same rows: {compared}")
        return
    paired = compared.paired
    echo("")
    echo(
        f"on {compared.rows_phrase}: {paired.candidate_accuracy:.4f} and "
        f"{paired.champion_accuracy:.4f}, difference {paired.difference:+.4f} "
        f"[{paired.low:+.4f}, {paired.high:+.4f}], p(first worse) = {paired.p_worse:.3g}"
    )


def _metric_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


@click.command()
@click.argument("ref")
@click.option("--key", required=True, metavar="FILE", help="An elliptic-curve private key in PEM format.")
@common_options
def sign(ref: str, key: str, as_json: bool, tracking_uri: str | None) -> None:
    """Sign the files and the evidence of the version REF.

    The signature is stored with the evidence. If the key is encrypted, put its password into
    REGISTRY_TOOLS_KEY_PASSWORD.
    """
    model_ref = parse_ref(ref)
    from registry_tools.mlflow_store import registry
    from registry_tools.mlflow_store.client import connect
    from registry_tools.models import loader

    client = connect(tracking_uri)
    version = registry.find_version(client, model_ref)
    where = loader.sign(client, version, Path(key))
    if as_json:
        print_json({"name": version.name, "version": version.version, "signature": where})
    else:
        echo(f"signed  {version.name} version {version.version}: {where}")


@click.command("copy")
@click.argument("ref")
@click.option(
    "--to-uri", required=True, metavar="URI", help="The target registry; a missing SQLite file is created."
)
@click.option("--name", metavar="NAME", help="The model's name in the target. Default: its present name.")
@loading_options
@common_options
def copy_command(
    ref: str, to_uri: str, name: str | None, policy: TrustPolicy, as_json: bool, tracking_uri: str | None
) -> None:
    """Copy the version REF to another registry.

    The copy is complete, or the command fails and leaves none. No stage of the target is set.
    """
    model_ref, new_name = parse_ref(ref), model_name(name) if name is not None else None
    from registry_tools.mlflow_store import registry
    from registry_tools.mlflow_store.client import connect, connect_or_create
    from registry_tools.models import copy

    source = connect(tracking_uri)
    registry.find_version(source, model_ref)  # a wrong REF must not leave a new, empty registry
    there = copy.copy(source, model_ref, connect_or_create(to_uri), new_name, policy)
    if as_json:
        print_json(vars(there))
    else:
        what = "copied" if there.made else "exists already"
        echo(f"{what}  {there.name} version {there.version} in {to_uri}")


@click.command("adopt")
@click.argument("ref")
@click.option(
    "--eval-data", required=True, metavar="FILE",
    help="Labelled rows that the version was not trained on: they become its holdout.",
)  # fmt: skip
@click.option("--target", required=True, metavar="COLUMN", help="The label column of --eval-data.")
@loading_options
@common_options
def adopt_command(
    ref: str, eval_data: str, target: str, policy: TrustPolicy, as_json: bool, tracking_uri: str | None
) -> None:
    """Add evidence to a version that has none.

    A version that MLflow's `log_model` registered has no evidence. The command stores the holdout, the
    recorded predictions and the manifest with its run, and two digests as its tags. The model files do
    not change.
    """
    model_ref = parse_ref(ref)
    from registry_tools.evaluation.adopt import adopt
    from registry_tools.evaluation.eval_data import read_eval_data
    from registry_tools.mlflow_store.client import connect

    rows = read_eval_data(Path(eval_data), target)
    done = adopt(connect(tracking_uri), model_ref, rows, policy)
    if as_json:
        print_json(vars(done) | {"training_rows": None})
        return
    what, title = "adopted" if done.made else "exists already", f"{done.name} version {done.version}"
    held_out = f"{done.holdout_rows} held-out rows"
    echo(f"{what}  {title}: {held_out}, {done.recorded_rows} recorded predictions")
    echo(
        f"accuracy  {done.accuracy:.4f} on the {held_out}, {done.baseline_accuracy:.4f} for always "
        "predicting the commonest class"
    )
    echo(f"unknown  training rows of {title}: no check can show that the held-out rows are not among them")


COMMANDS = (verify, compare, sign, copy_command, adopt_command)
