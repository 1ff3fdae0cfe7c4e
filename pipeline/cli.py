"""The command line `python -m pipeline`; the entry points of MLproject call it."""

from __future__ import annotations

import csv
import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import click

from pipeline.errors import Interrupted, PipelineError
from pipeline.params.definitions import MonitorParams, SweepParams, TrainParams
from pipeline.params.fields import as_text
from registry_tools.cli import exit_codes, process_setup
from registry_tools.cli.options import echo, print_json, verbose_option
from registry_tools.errors import RegistryToolsError

if TYPE_CHECKING:
    from pipeline.monitoring.monitor import MonitorResult
    from pipeline.sweep.sweep import SweepResult
    from pipeline.training.model_card import EvaluatedTrial
    from pipeline.training.train import TrainResult

_USAGE, _DRIFT = 2, 4  # exit codes


def _parameters(cls: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option for every field of a parameter class; values stay text, which it checks."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for spec in reversed(fields(cls)):
            how = spec.metadata
            made = spec.default_factory
            default = as_text(spec.default if made is MISSING else made())
            function = click.option(
                f"--{spec.name.replace('_', '-')}",
                spec.name,
                metavar="VALUE",
                help=f"{how['help']} {how['bounds'][:1].upper()}{how['bounds'][1:]}. Default: {default}.",
            )(function)
        return function

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Train a classifier, log it to MLflow and register it."""


@cli.command()
@_parameters(TrainParams)
@verbose_option
def train(**texts: str | None) -> None:
    """Train, evaluate, log and register a model; its stage is set last."""
    params = TrainParams.from_text({k: v for k, v in texts.items() if v is not None})
    from pipeline.training.train import train as train_model

    process_setup.imports_done()
    with process_setup.ended_by_signals():
        result = train_model(params)
    _print_lines(_summary(result))


@cli.command()
@_parameters(SweepParams)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@verbose_option
def sweep(as_json: bool, **texts: str | None) -> None:
    """Try many estimators by cross-validation, then train, log and register the best.

    After an interruption or a kill, the same command continues with the rest; with more trials, it extends
    a finished sweep.
    """
    params = SweepParams.from_text({k: v for k, v in texts.items() if v is not None})
    from pipeline.sweep.sweep import sweep as run_sweep

    process_setup.imports_done()
    hidden = not sys.stderr.isatty()
    kept = 0
    bar: Any  # click does not export its type
    with click.progressbar(
        length=params.n_trials, label="trials", file=sys.stderr, hidden=hidden, show_pos=True,
        item_show_func=lambda best: "" if best is None else f"best {best:.4f}",
    ) as bar:  # fmt: skip

        def show(ended: int, of: int, best: float | None) -> None:
            nonlocal kept
            kept = ended
            bar.length = of
            bar.update(ended - bar.pos, best)

        try:
            with process_setup.ended_by_signals():
                result = run_sweep(params, show)
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted: {kept} trials are kept, and the same command goes on with the rest"
            ) from None
    if as_json:
        print_json(_sweep_json(result))
    else:
        _print_lines(_sweep_summary(result))


@cli.command()
@_parameters(MonitorParams)
@verbose_option
def monitor(**texts: str | None) -> int:
    """Compare production data with the training data of the version in a stage.

    Exits with 4 where there is drift.
    """
    params = MonitorParams.from_text({k: v for k, v in texts.items() if v is not None})
    from pipeline.monitoring.monitor import monitor as run_monitor

    process_setup.imports_done()
    with process_setup.ended_by_signals():
        result = run_monitor(params)
    _print_lines(_monitor_summary(result))
    return _DRIFT if result.analysis.has_drift else 0


_folder = click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("mlruns_example"), show_default=True,
    help="Where the example store is.",
)  # fmt: skip


@cli.command("make-example")
@_folder
@verbose_option
def make_example(folder: Path) -> None:
    """Make the example store anew by running this project's own commands."""
    from pipeline.showcase import example_store

    example_store.make(folder)
    echo(f"made      {folder}")


@cli.command("show-example")
@_folder
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@verbose_option
def show_example(folder: Path, port: int) -> None:
    """Open a copy of the example store in the MLflow UI, until interrupted."""
    from pipeline.showcase import example_store

    example_store.show(folder, port, echo)


@cli.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("demo"), show_default=True,
    help="Where its store, log and pages go; that of an earlier run is emptied.",
)  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=5055, show_default=True,
              help="Of the page to watch.")  # fmt: skip
@verbose_option
def demo(folder: Path, port: int) -> None:
    """Show the whole loop: serve, monitor, find drift, retrain, promote, serve the new version."""
    from pipeline.showcase import demo as demonstration

    with process_setup.ended_by_signals():
        demonstration.run(folder, port, echo)


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        echo(line)


def _summary(result: TrainResult) -> list[str]:
    metrics = result.metrics
    ref = shlex.quote(f"{result.name}@{result.stage}")
    uri = shlex.quote(f"models:/{result.name}@{result.stage}")
    folded = (
        f"; cross-validated {metrics['cv_accuracy_mean']:.4f} ± {metrics['cv_accuracy_std']:.4f}"
        if "cv_accuracy_mean" in metrics
        else ""
    )
    where = _setting(result.store)
    rows = f"{result.holdout_rows} held-out rows, trained on {result.train_rows}"
    return [
        f"run       {result.run_id}",
        f"accuracy  {metrics['accuracy']:.4f} on {rows}{folded}",
        f"version   {result.name} version {result.version}, stage {result.stage}",
        f"next      {where}{_command('registry-tools')} predict {ref} --features {_features(result.example)}",
        f"          {where}{_serve(uri)}",
        f"          {_ui(result.store)}",
    ]


def _sweep_json(result: SweepResult) -> dict[str, Any]:
    def trial(found: EvaluatedTrial) -> dict[str, Any]:
        accuracy = {name: found.metrics[name] for name in ("cv_accuracy_mean", "cv_accuracy_std")}
        return {"model": found.params.model, "model_params": found.params.model_params, **accuracy}

    winner = result.winner
    return {
        "run_id": result.run_id,
        "finished": result.finished,
        "failed": result.failed,
        "failure": result.reason or None,
        "resumed": result.resumed,
        "is_exhausted": result.is_exhausted,
        "is_timed_out": result.is_timed_out,
        "best": trial(result.best),
        "untuned": trial(result.untuned) if result.untuned else None,
        "beats_untuned": result.best.accuracy > result.untuned.accuracy if result.untuned else None,
        "winner": {
            "run_id": winner.run_id,
            "name": winner.name,
            "version": winner.version,
            "stage": winner.stage,
            "accuracy": winner.metrics["accuracy"],
        },
    }


def _sweep_summary(result: SweepResult) -> list[str]:
    from pipeline.training.model_card import compare_with_untuned

    counts = [f"{result.finished} finished"]
    counts += [f"{result.resumed} of them before"] if result.resumed else []
    counts += [f"{result.failed} failed, such as: {result.reason}"] if result.failed else []
    counts += ["there are no more to try"] if result.is_exhausted else []
    counts += ["the time was over before the others"] if result.is_timed_out else []
    return [
        f"sweep     {result.run_id}",
        f"trials    {', '.join(counts)}",
        f"best      {result.best.summary()}",
        f"untuned   {compare_with_untuned(result.best, result.untuned)}",
        *_summary(result.winner),
    ]


def _monitor_summary(result: MonitorResult) -> list[str]:
    from pipeline.monitoring.report import summary_sentence

    verdict = {"drift": "DRIFT", "none": "none", "unknown": "unknown"}[result.analysis.verdict()]
    lines = [
        f"{verdict:<9} {result.name} version {result.version} in {result.stage}: "
        f"{summary_sentence(result.analysis)}"
    ]
    for other in result.other_versions:
        lines.append(f"{'beside':<9} version {other.version}: {summary_sentence(other)}")
    accuracy = result.analysis.accuracy
    if accuracy is not None:
        lines.append(
            f"{'accuracy':<9} {accuracy.live.value:.4f} [{accuracy.live.low:.4f}, "
            f"{accuracy.live.high:.4f}] on {accuracy.rows} labelled rows, "
            f"{accuracy.promoted.value:.4f} on {accuracy.promoted_rows} at promotion"
        )
        lines += [f"{'labels':<9} {note}" for note in accuracy.notes]
    lines += [f"{'note':<9} {note}" for note in result.notes]
    lines += [f"{action.action:<9} {action.outcome}: {action.message}" for action in result.actions]
    return [*lines, f"{'run':<9} {result.run_id} in {result.experiment}"]


def _features(values: tuple[Any, ...]) -> str:
    """Write one row so that `--features` reads it, quoted for a shell where it must be."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow("" if v != v else v for v in values)
    return shlex.quote(line.getvalue())


def _setting(store: str) -> str:
    """Return the shell setting of the store, if it is not the default one."""
    return "" if _is_default(store) else f"MLFLOW_TRACKING_URI={shlex.quote(store)} "


def _serve(uri: str) -> str:
    """Return the command that serves a model with MLflow, with its web server on the PATH."""
    command = _command("mlflow")
    path = "" if command == "mlflow" else f"PATH={Path(command).parent}:$PATH "
    return f"{path}mlflow models serve -m {uri} --env-manager local"


def _ui(store: str) -> str:
    """Return how to see the runs of a store: a server has the UI itself."""
    if store.startswith("http"):
        return f"open {store}"
    where = "" if _is_default(store) else f" --backend-store-uri {shlex.quote(store)}"
    return f"{_command('mlflow')} ui{where}"


def _is_default(store: str) -> bool:
    # MLflow writes a space in a folder's name as %20.
    return unquote(store) == f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def _command(name: str) -> str:
    """Return a program of this environment as one types it here."""
    path = Path(sys.prefix, "bin", name)
    if not path.exists():
        return name
    relative = os.path.relpath(path)
    return name if relative.startswith("..") else relative


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    code = exit_codes.run(cli, argv, "pipeline", (PipelineError, RegistryToolsError))
    if code == _USAGE and "MLFLOW_RUN_ID" in os.environ:
        from pipeline.tracking import runs

        runs.delete_empty_run(os.environ["MLFLOW_RUN_ID"])
    return code
