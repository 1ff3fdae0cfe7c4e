"""The command that makes the evidence of a version that was logged without any."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry_tools.cli.options import common_options, echo, loading_options, print_json
from registry_tools.refs import parse_ref

if TYPE_CHECKING:
    from registry_tools.models.trust_policy import TrustPolicy


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
    """Make the evidence of the version REF, which plain `log_model` registered without any.

    Its files stay as they are: holdout, recorded predictions and manifest are stored with its run,
    two digests as its tags.
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
    what, title = "adopted" if done.made else "there already", f"{done.name} version {done.version}"
    held_out = f"{done.holdout_rows} held-out rows"
    echo(f"{what}  {title}: {held_out}, {done.recorded_rows} recorded predictions")
    echo(
        f"accuracy  {done.accuracy:.4f} on the {held_out}, {done.baseline_accuracy:.4f} for always "
        "predicting the commonest class"
    )
    echo(f"unknown  which rows {title} was trained on: no check can show that these are others")


COMMANDS = (adopt_command,)
