"""The commands on versions: add, compare, verify, sign, copy and delete them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry_tools.cli.options import (
    check_eval_data,
    common_options,
    eval_data_options,
    html_option,
    trust_option,
    trust_options,
)
from registry_tools.cli.output import (
    echo,
    print_columns,
    print_json,
    refused_by,
    utc_now,
    verdict_rows,
    write_page,
)
from registry_tools.refs import parse_ref

if TYPE_CHECKING:
    from registry_tools.evaluation.adopt import Adoption
    from registry_tools.evaluation.comparison import Comparison
    from registry_tools.evaluation.registration import Registration


@click.command()
@click.argument("ref")
@trust_options
@common_options
def verify(ref: str, loading: dict[str, Any], as_json: bool, tracking_uri: str | None) -> None:
    """Check the files, predictions and history of a version.

    The command compares the files of REF with their digests, checks their format, reproduces the
    recorded predictions, and compares the stages of the model with its history.
    """
    from registry_tools.api import versions
    from registry_tools.errors import VerificationError

    verdict = versions.verify(ref, tracking_uri=tracking_uri, **loading)
    if as_json:
        print_json(verdict.as_dict())
    else:
        print_columns(verdict_rows(verdict))
    if not verdict.passed:
        first = verdict.refusals[0]
        raise VerificationError(refused_by(verdict, f"{ref}: {first.gate}: {first.message}"))


@click.command()
@click.argument("first")
@click.argument("second")
@click.option(
    "--metric", metavar="NAME",
    help="The metric to show the difference in, such as balanced_accuracy, recall:CLASS or mae. Default: "
    "accuracy, or the four metrics of a regression.",
)  # fmt: skip
@eval_data_options
@html_option
@trust_options
@common_options
def compare(
    first: str,
    second: str,
    metric: str | None,
    eval_data: str | None,
    target: str | None,
    html: str | None,
    loading: dict[str, Any],
    as_json: bool,
    tracking_uri: str | None,
) -> None:
    """Compare two versions on the same held-out rows.

    The result also shows the parameters, metrics and data of both. The rows are the held-out rows of FIRST,
    unless you give --eval-data. The page of --html also shows the rows on which they disagree, and plots.
    """
    check_eval_data(eval_data, target)
    from registry_tools.api import versions

    result = versions.compare(
        first, second, metric=metric, eval_data=eval_data, target=target, tracking_uri=tracking_uri, **loading
    )
    if html is not None:
        _write_comparison(html, result, tracking_uri)
    if as_json:
        print_json(result.as_dict() | {"report": html})
        return
    _print_comparison(result)
    if html is not None:
        echo(f"report: {html}")


def _write_comparison(html: str, result: Comparison, tracking_uri: str | None) -> None:
    from registry_tools.mlflow_store.client import connect
    from registry_tools.models import artifacts
    from registry_tools.reports.comparison import comparison_page

    client, one, two = connect(tracking_uri), result.first, result.second
    of_one, of_two = artifacts.plots(client, one), artifacts.plots(client, two)
    pictures, left_out = (of_one[0], of_two[0]), [*of_one[1], *of_two[1]]
    compared = result.predictions or str(result.not_paired_because)
    write_page(html, comparison_page(one, two, compared, pictures, utc_now(), left_out))


def _print_comparison(result: Comparison) -> None:
    one, two, compared = result.first, result.second, result.predictions
    rows = [("", f"{one.name} {one.version}", f"{two.name} {two.version}")]
    for kind, name, of_one, of_two in result.values():
        title = f"{kind} {name}".rstrip()
        rows.append((title, _value_text(kind, of_one), _value_text(kind, of_two)))
    print_columns(rows, header=True)
    echo("")
    if compared is None:
        echo(f"not compared on the same rows: {result.not_paired_because}")
        return
    shown = (compared.asked,) if compared.asked else compared.differences
    lines = [paired.summary for paired in shown]
    if len(lines) == 1:
        echo(f"on {compared.rows_phrase}: {lines[0]}")
        return
    for line in (f"on {compared.rows_phrase}:", *lines):
        echo(line)


def _value_text(kind: str, value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if kind == "metric" else str(value)[:12] if kind == "data" else str(value)


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
@trust_options
@common_options
def copy_command(
    ref: str, to_uri: str, name: str | None, loading: dict[str, Any], as_json: bool, tracking_uri: str | None
) -> None:
    """Copy the version REF to another registry.

    The copy is complete, or the command fails and leaves none. No stage of the target is set.
    """
    from registry_tools.api import versions

    key = loading["public_key"]  # a copy loads nothing: it needs no other of these options
    there = versions.copy(ref, to_uri=to_uri, name=name, tracking_uri=tracking_uri, public_key=key)
    if as_json:
        print_json(there.as_dict())
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
@trust_options
@common_options
def adopt_command(
    ref: str, eval_data: str, target: str, loading: dict[str, Any], as_json: bool, tracking_uri: str | None
) -> None:
    """Add evidence to a version that has none.

    A version that MLflow's `log_model` registered has no evidence. The command stores the holdout, the
    recorded predictions and the manifest with its run, and two digests as its tags. The model files do
    not change.
    """
    from registry_tools.api import versions

    done = versions.adopt(ref, eval_data=eval_data, target=target, tracking_uri=tracking_uri, **loading)
    if as_json:
        print_json(done.as_dict())
        return
    what, title = "adopted" if done.made else "exists already", f"{done.name} version {done.version}"
    held_out = f"{done.holdout_rows} held-out rows"
    echo(f"{what}  {title}: {held_out}, {done.recorded_rows} recorded predictions")
    value, baseline = _quality(done)
    echo(f"{done.metric}  {value} on the {held_out}, {baseline}")
    echo(f"unknown  training rows of {title}: no check can show that the held-out rows are not among them")


def _quality(done: Adoption | Registration) -> tuple[str, str]:
    """Return the metric of a version, and that of constant predictions, as text."""
    if done.metric == "accuracy":
        return f"{done.value:.4f}", f"{done.baseline_value:.4f} for always predicting the commonest class"
    return f"{done.value:.5g}", f"{done.baseline_value:.5g} for always predicting the mean"


@click.command("register")
@click.argument("path", metavar="FILE")
@click.option("--name", required=True, metavar="NAME", help="The registered model; it may be new.")
@click.option(
    "--eval-data", required=True, metavar="FILE",
    help="Labelled rows that the model was not trained on: they become the holdout of the version.",
)  # fmt: skip
@click.option("--target", required=True, metavar="COLUMN", help="The label column of --eval-data.")
@click.option(
    "--target-names", metavar="A,B,…", help="The class names, if the model predicts the codes 0, 1, …."
)
@trust_option
@click.option("--allow-code", is_flag=True, help="Read FILE, which runs the code in it.")
@common_options
def register_command(
    path: str, name: str, target_names: str | None, as_json: bool, tracking_uri: str | None, **options: Any
) -> None:
    """Register the model in the joblib file FILE as a new version, in the skops format.

    The version gets evidence from --eval-data, as adopt makes it, and no stage.
    """
    from registry_tools.api import versions

    names = next(csv.reader([target_names])) if target_names is not None else ()
    done = versions.register(path, name, target_names=names, tracking_uri=tracking_uri, **options)
    if as_json:
        print_json(done.as_dict())
        return
    title = f"{done.name} version {done.version}"
    echo(f"registered  {title}: {done.estimator}, {done.recorded_rows} recorded predictions")
    value, baseline = _quality(done)
    echo(f"{done.metric:<10}  {value} on {done.holdout_rows} held-out rows, {baseline}")
    echo(f"unknown     training rows of {title}: no check can show that the held-out rows are not among them")


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


COMMANDS = (register_command, adopt_command, compare, verify, sign, copy_command, delete)
