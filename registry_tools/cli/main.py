"""The command line `registry-tools`: each command calls the library and prints its answer."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from registry_tools.cli import (
    history as cli_record,
)
from registry_tools.cli import (
    promotion,
    runner,
    score,
    serve,
)
from registry_tools.cli import (
    versions as cli_versions,
)
from registry_tools.cli.options import (
    common_options,
    loading_options,
    outcome_of,
    print_columns,
    print_json,
)
from registry_tools.errors import InputError
from registry_tools.refs import model_name, parse_ref

if TYPE_CHECKING:
    import pandas as pd

    from registry_tools.models.loaded_model import LoadedModel
    from registry_tools.models.trust_policy import TrustPolicy
    from registry_tools.promotion.events import Event

# MLflow, pandas and scikit-learn take two seconds to import: each command does so for itself.


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="registry-pipeline")
def cli() -> None:
    """Look into a model registry, use what stands there, and move its stages.

    REF is a model reference: iris@production, iris/3 or iris/Production.
    """


@cli.command("list")
@click.argument("model", required=False)
@click.option("--limit", type=click.IntRange(min=1), help="The newest N versions only.")
@common_options
def list_command(
    model: str | None, limit: int | None, as_json: bool, tracking_uri: str | None
) -> None:
    """List the registered models, or the versions of MODEL, newest first."""
    from registry_tools.mlflow_store import registry
    from registry_tools.mlflow_store.client import connect
    from registry_tools.promotion import events

    client = connect(tracking_uri)
    if model is None:
        models = registry.list_models(client)[:limit]
        if as_json:
            print_json([m.as_dict() for m in models])
        for m in [] if as_json else models:
            stages = ", ".join(f"{stage} → {v}" for stage, v in sorted(m.stages.items()))
            click.echo(f"{m.name}  {stages or 'no stage in use'}")
        return
    versions = registry.list_versions(client, model_name(model), limit=limit)
    entries = events.last_events(client, model, [v.version for v in versions])
    if as_json:
        print_json([v.as_dict() | _event_as_dict(entries.get(v.version)) for v in versions])
        return
    rows = [("version", "stages", "accuracy", "run", "digest", "last act")]
    for v in versions:
        accuracy = f"{v.metrics['accuracy']:.4f}" if "accuracy" in v.metrics else "-"
        rows.append(
            (
                str(v.version),
                ", ".join(v.stages) or "-",
                accuracy,
                (v.run_id or "-")[:8],
                (v.digest or "-")[:12],
                _event_line(entries.get(v.version)),
            )
        )
    print_columns(rows)


@cli.command()
@click.argument("ref")
@common_options
def show(ref: str, as_json: bool, tracking_uri: str | None) -> None:
    """Show the version that REF means now."""
    from registry_tools.mlflow_store import registry
    from registry_tools.mlflow_store.client import connect
    from registry_tools.promotion import events

    client = connect(tracking_uri)
    asked = parse_ref(ref)
    version = registry.get_version(client, asked)
    event = None
    if asked.stage is not None:  # the act that put it there, rather than one that came to nothing
        event = events.last_done(client, version.name, asked.stage)
    if event is None or event.version != version.version:
        event = events.last_event(client, version.name, version.version)
    if as_json:
        print_json(version.as_dict() | _event_as_dict(event))
        return
    rows = [
        ("version", f"{version.name} version {version.version}"),
        ("stages", ", ".join(version.stages) or "-"),
        ("run", version.run_id or "-"),
        ("digest", version.digest or "-"),
    ]
    if event is not None:
        rows.append(("last act", _event_line(event)))
        for gate in event.gates:
            passed = "passed" if gate["passed"] else "REFUSED"
            rows.append((f"gate {gate['gate']}", f"{passed}: {gate['message']}"))
    for title, values in (("metric", version.metrics), ("tag", version.tags)):
        for key, value in sorted(values.items()):
            text = f"{value:.4f}" if isinstance(value, float) else str(value)
            rows.append((f"{title} {key}", text))
    print_columns(rows)
    if version.description:
        click.echo(f"\n{version.description}")


def _event_as_dict(event: Event | None) -> dict[str, Any]:
    """Return the last act on a version, and the verdict that it ended in."""
    if event is None:
        return {"last_act": None, "verdict": None}
    passed = all(gate["passed"] for gate in event.gates)
    verdict = {"passed": passed, "gates": list(event.gates)} if event.gates else None
    return {"last_act": event.as_dict(), "verdict": verdict}


def _event_line(event: Event | None) -> str:
    if event is None:
        return "-"
    return f"{event.action} to {event.stage}, {outcome_of(event)}, {event.at[:19]}Z"


@cli.command()
@click.argument("ref")
@click.option("--features", metavar="A,B,…", help="One row, its values in the model's order.")
@click.option(
    "--input", "input_path", metavar="FILE", help="A CSV, JSON or Parquet file; - is stdin."
)
@click.option("--proba", is_flag=True, help="Add the probability of each class.")
@click.option("--output", metavar="FILE", help="Write the rows with their answers there instead.")
@loading_options
@common_options
def predict(
    ref: str,
    features: str | None,
    input_path: str | None,
    proba: bool,
    output: str | None,
    policy: TrustPolicy,
    as_json: bool,
    tracking_uri: str | None,
) -> None:
    """Answer for one row or for a file of rows, with the version that REF means now."""
    from registry_tools.data.tables import write_table
    from registry_tools.mlflow_store.client import connect
    from registry_tools.models import loader

    if (features is None) == (input_path is None):
        raise click.UsageError("give exactly one of --features and --input")
    model = loader.load(connect(tracking_uri), parse_ref(ref), policy)
    rows = _rows(model, features, input_path)
    answers = _answers(model, rows, proba)
    if output is not None:
        write_table(_with_answers(rows, answers), output)
        written = {"name": model.info.name, "version": model.info.version, "output": output}
        if as_json:
            print_json(written | {"rows": len(answers)})
        else:
            click.echo(f"{len(answers)} rows → {output}")
    elif as_json:
        print_json(answers[0] if features is not None else answers)
    else:
        for answer in answers:
            click.echo(_answer_line(answer))


def _rows(model: LoadedModel, features: str | None, input_path: str | None) -> pd.DataFrame:
    from registry_tools.data.coercion import coerce, values_from_text
    from registry_tools.data.tables import read_stream, read_table

    columns = model.info.signature
    if features is not None:
        texts = next(csv.reader([" ".join(features.splitlines())]), [])
        return coerce([values_from_text(texts, columns)], columns)
    text_columns = [c.name for c in columns or () if c.type == "string"]
    if input_path == "-":
        return read_stream(sys.stdin.buffer, text_columns=text_columns)
    return read_table(str(input_path), text_columns=text_columns)


def _answers(model: LoadedModel, rows: pd.DataFrame, proba: bool) -> list[dict[str, Any]]:
    # A table without a header of its own, such as a JSON list of lists, goes by position.
    given = rows if all(isinstance(name, str) for name in rows.columns) else rows.to_numpy()
    predicted = model.predict(given)
    info = model.info
    base = {"name": info.name, "version": info.version, "stage": info.stage}
    answers = [base | {"prediction": value} for value in predicted.tolist()]
    if info.target_names is not None:
        names = model.names_of(predicted).tolist()
        for answer, name in zip(answers, names, strict=True):
            answer |= {"prediction_index": answer["prediction"], "prediction": name}
    if proba:
        probabilities = model.predict_proba(given).tolist()
        for answer, row in zip(answers, probabilities, strict=True):
            answer["probabilities"] = dict(zip(model.class_names, row, strict=True))
    return answers


def _with_answers(rows: pd.DataFrame, answers: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows as they came, with columns for what was answered."""
    import pandas as pd

    added = {"prediction": [a["prediction"] for a in answers]}
    if answers and "prediction_index" in answers[0]:
        added["prediction_index"] = [a["prediction_index"] for a in answers]
    for name in answers[0].get("probabilities", {}) if answers else ():
        added[f"probability_{name}"] = [a["probabilities"][name] for a in answers]
    added["model_version"] = [a["version"] for a in answers]
    named = rows.rename(columns=str)
    taken = sorted(set(added) & set(named.columns))
    if taken:
        raise InputError(
            f"the input already has a column {taken[0]!r}: rename it, or take --json "
            "without --output"
        )
    return pd.concat([named, pd.DataFrame(added, index=named.index)], axis=1)


def _answer_line(answer: dict[str, Any]) -> str:
    line = str(answer["prediction"])
    for name, value in answer.get("probabilities", {}).items():
        line += f"  {name}={value:.4f}"
    return line


@cli.command()
@click.argument("ref")
@click.option(
    "--format", "form", type=click.Choice(["joblib"]), default="joblib", show_default=True
)
@click.option("-o", "--output", required=True, metavar="FILE", help="The file to write.")
@loading_options
@common_options
def export(
    ref: str,
    form: str,
    output: str,
    policy: TrustPolicy,
    as_json: bool,
    tracking_uri: str | None,
) -> None:
    """Write the estimator of REF to a file that `joblib.load` reads without MLflow."""
    from registry_tools.mlflow_store.client import connect
    from registry_tools.models import loader
    from registry_tools.models.export import export_joblib

    model = loader.load(connect(tracking_uri), parse_ref(ref), policy)
    size = export_joblib(model, output)
    answer = {
        "name": model.info.name,
        "version": model.info.version,
        "format": form,
        "output": output,
        "bytes": size,
    }
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{model.info.name} version {model.info.version} → {output} ({size} bytes)")


for _command in (
    *promotion.COMMANDS,
    *cli_record.COMMANDS,
    *score.COMMANDS,
    *serve.COMMANDS,
    *cli_versions.COMMANDS,
):
    cli.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return runner.run(cli, argv, "registry-tools")
