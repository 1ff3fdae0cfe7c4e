"""The commands that load a version: `predict` and `export`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry_tools.cli.options import common_options, trust_options
from registry_tools.cli.output import echo, print_json, row_count
from registry_tools.errors import InputError
from registry_tools.refs import parse_ref

if TYPE_CHECKING:
    import pandas as pd

    from registry_tools.models.loaded_model import LoadedModel, ModelInfo
    from registry_tools.models.onnx.comparison import OnnxCheck

_MOST_CONTRIBUTIONS = 10  # columns with a line of their own


@click.command()
@click.argument("ref")
@click.option(
    "--features", metavar="A,B,…", help="The values of one row, in the order of the model's columns."
)
@click.option(
    "--input", "input_path", metavar="FILE", help="A CSV, JSON or Parquet file of rows; - reads stdin."
)
@click.option("--proba", is_flag=True, help="Add the probability of each class.")
@click.option("--explain", is_flag=True, help="Add how much each column contributes to the prediction.")
@click.option("--output", metavar="FILE", help="Write the rows and their predictions to this file.")
@trust_options
@common_options
def predict(
    ref: str,
    features: str | None,
    input_path: str | None,
    proba: bool,
    explain: bool,
    output: str | None,
    loading: dict[str, Any],
    as_json: bool,
    tracking_uri: str | None,
) -> None:
    """Predict one row or a file of rows with the version REF."""
    from registry_tools.files.tables import write_table
    from registry_tools.models.loader import load_model

    if (features is None) == (input_path is None):
        raise click.UsageError("give exactly one of --features and --input")
    model = load_model(ref, tracking_uri=tracking_uri, **loading)
    rows = _read_rows(model, features, input_path)
    predictions = _predict_rows(model, rows, proba, explain)
    if output is not None:
        write_table(_add_predictions(rows, predictions), output)
        written = {"name": model.info.name, "version": model.info.version, "output": output}
        if as_json:
            print_json(written | {"rows": len(predictions)})
        else:
            echo(f"{row_count(len(predictions))} → {output}")
    elif as_json:
        print_json(predictions[0] if features is not None else predictions)
    else:
        for prediction in predictions:
            echo(_prediction_line(prediction))
            for line in _contribution_lines(prediction):
                echo(line)


def _read_rows(model: LoadedModel, features: str | None, input_path: str | None) -> pd.DataFrame:
    from registry_tools.data.coercion import coerce, values_from_text
    from registry_tools.files.tables import read_stream, read_table

    columns = model.info.signature
    if features is not None:
        texts = next(csv.reader([" ".join(features.splitlines())]), [])
        return coerce([values_from_text(texts, columns)], columns)
    text_columns = [c.name for c in columns or () if c.type == "string"]
    if input_path == "-":
        return read_stream(sys.stdin.buffer, text_columns=text_columns)
    return read_table(str(input_path), text_columns=text_columns)


def _predict_rows(model: LoadedModel, rows: pd.DataFrame, proba: bool, explain: bool) -> list[dict[str, Any]]:
    # A table without column names, such as a JSON list of lists, is matched by position.
    given = rows if all(isinstance(name, str) for name in rows.columns) else rows.to_numpy()
    predicted = model.predict(given)
    info = model.info
    base = {"name": info.name, "version": info.version, "stage": info.stage}
    predictions = [base | {"prediction": value} for value in predicted.tolist()]
    if info.target_names is not None:
        names = model.names_of(predicted).tolist()
        for prediction, name in zip(predictions, names, strict=True):
            prediction |= {"prediction_index": prediction["prediction"], "prediction": name}
    if proba:
        probabilities = model.predict_proba(given).tolist()
        for prediction, row in zip(predictions, probabilities, strict=True):
            prediction["probabilities"] = dict(zip(model.class_names, row, strict=True))
    if explain:
        found = model.explain(given)
        values = zip(predictions, found.contributions.tolist(), found.base.tolist(), strict=True)
        for prediction, row, start in values:
            prediction["contributions"] = dict(zip(found.columns, row, strict=True))
            prediction |= {"base": start, "scale": found.scale, "note": found.note}
    return predictions


def _add_predictions(rows: pd.DataFrame, predictions: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows as they were read, with columns for the predictions."""
    import pandas as pd

    added = {"prediction": [a["prediction"] for a in predictions]}
    if predictions and "prediction_index" in predictions[0]:
        added["prediction_index"] = [a["prediction_index"] for a in predictions]
    for name in predictions[0].get("probabilities", {}) if predictions else ():
        added[f"probability_{name}"] = [a["probabilities"][name] for a in predictions]
    for name in predictions[0].get("contributions", {}) if predictions else ():
        added[f"contribution_{name}"] = [a["contributions"][name] for a in predictions]
    if predictions and "base" in predictions[0]:
        added["base_score"] = [a["base"] for a in predictions]
    added["model_version"] = [a["version"] for a in predictions]
    named = rows.rename(columns=str)
    taken = sorted(set(added) & set(named.columns))
    if taken:
        raise InputError(
            f"the input already has a column {taken[0]!r}: rename it, or use --json without --output"
        )
    return pd.concat([named, pd.DataFrame(added, index=named.index)], axis=1)


def _prediction_line(prediction: dict[str, Any]) -> str:
    line = str(prediction["prediction"])
    for name, value in prediction.get("probabilities", {}).items():
        line += f"  {name}={value:.4f}"
    return line


def _contribution_lines(prediction: dict[str, Any]) -> list[str]:
    """Return the contributions, largest first, and the score that they add up to."""
    contributions: dict[str, float] = prediction.get("contributions", {})
    if not contributions:
        return []
    largest = sorted(contributions.items(), key=lambda item: -abs(item[1]))
    shown, others = largest[:_MOST_CONTRIBUTIONS], largest[_MOST_CONTRIBUTIONS:]
    if others:
        shown.append((f"{len(others)} other columns", sum(value for _, value in others)))
    total = prediction["base"] + sum(contributions.values())
    shown += [("base", prediction["base"]), ("sum", total)]
    width = max(len(name) for name, _ in shown)
    *lines, last = [f"  {name:<{width}}  {value:+.4f}" for name, value in shown]
    note = f", {prediction['note']}" if prediction["note"] else ""
    return [*lines, f"{last}  {prediction['scale']}{note}"]


@click.command()
@click.argument("ref")
@click.option("--format", "form", type=click.Choice(["joblib", "onnx"]), default="joblib", show_default=True)
@click.option("-o", "--output", required=True, metavar="FILE", help="The file to write.")
@trust_options
@common_options
def export(
    ref: str, form: str, output: str, loading: dict[str, Any], as_json: bool, tracking_uri: str | None
) -> None:
    """Write the estimator of the version REF to a joblib or ONNX file.

    `joblib.load` reads a joblib file without MLflow. ONNX Runtime runs an ONNX file without Python. Before
    the command writes an ONNX file, it compares the file with the version on the held-out rows and at the
    boundaries between the classes.
    """
    if form == "onnx":
        info, compared = _export_onnx(ref, output, loading, tracking_uri)
        size = compared.bytes
    else:
        from registry_tools.models.joblib_file import export_joblib
        from registry_tools.models.loader import load_model

        model = load_model(ref, tracking_uri=tracking_uri, **loading)
        info, compared, size = model.info, None, export_joblib(model, output)
    if as_json:
        written = {"name": info.name, "version": info.version, "format": form, "output": output}
        checked = {"check": compared.as_dict()} if compared is not None else {}
        print_json(written | {"bytes": size} | checked)
        return
    echo(f"{info.name} version {info.version} → {output} ({size:,} bytes)")
    if compared is not None:
        echo(f"the same predictions on {compared.summary}")


def _export_onnx(
    ref: str, output: str, loading: dict[str, Any], tracking_uri: str | None
) -> tuple[ModelInfo, OnnxCheck]:
    from registry_tools.mlflow_store.client import connect
    from registry_tools.models.onnx.export import export_onnx
    from registry_tools.models.trust_policy import TrustPolicy

    model_ref, trust_policy = parse_ref(ref), TrustPolicy.from_environment(**loading)
    model, compared = export_onnx(connect(tracking_uri), model_ref, Path(output), trust_policy)
    return model.info, compared


COMMANDS = (predict, export)
