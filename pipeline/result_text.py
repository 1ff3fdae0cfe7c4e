"""The results of the pipeline's commands as lines of text and as JSON."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pipeline.params.types import as_text

if TYPE_CHECKING:
    from pipeline.monitoring.monitor import MonitorResult
    from pipeline.sweep.sweep import SweepResult
    from pipeline.training.model_card import Trial
    from pipeline.training.train import TrainResult


def train_lines(result: TrainResult) -> list[str]:
    """Return the run, the metric and the version of a training, and the commands to try next."""
    from pipeline.training.scoring import format_value, mean_key, std_key

    metrics, mean, std = result.metrics, mean_key(result.metric), std_key(result.metric)
    ref = shlex.quote(f"{result.name}@{result.stage}")
    uri = shlex.quote(f"models:/{result.name}@{result.stage}")
    folded = (
        f"; cross-validated {format_value(metrics[mean])} ± {format_value(metrics[std])}"
        if mean in metrics
        else ""
    )
    where = _setting(result.store)
    rows = f"{result.holdout_rows} held-out rows, trained on {result.train_rows}"
    return [
        f"run       {result.run_id}",
        f"{result.metric:<9} {format_value(result.value)} on {rows}{folded}",
        f"version   {result.name} version {result.version}, stage {result.stage}",
        f"next      {where}{_command('registry-tools')} predict {ref} --features {_features(result.example)}",
        f"          {where}{_serve(uri)}",
        f"          {_ui(result.store)}",
    ]


def sweep_json(result: SweepResult) -> dict[str, Any]:
    """Return the result of a sweep as plain values."""
    from pipeline.training.scoring import mean_key, metric_of, std_key
    from registry_tools.stats.metric import metric_key

    winner, best, untuned = result.winner, result.best, result.untuned

    def trial(found: Trial) -> dict[str, Any]:
        names = mean_key(winner.metric), std_key(winner.metric)
        folded = {name: found.metrics[name] for name in names}
        return {"model": found.params.model, "model_params": found.params.model_params, **folded}

    return {
        "run_id": result.run_id,
        "finished": result.finished,
        "failed": len(result.failures),
        "failure": next(iter(result.failures), None),
        "resumed": result.resumed,
        "is_exhausted": result.is_exhausted,
        "is_timed_out": result.is_timed_out,
        "task": winner.task,
        "metric": winner.metric,
        "best": trial(best),
        "untuned": trial(untuned) if untuned else None,
        "beats_untuned": metric_of(best.params).is_better(best.value, untuned.value) if untuned else None,
        "winner": {
            "run_id": winner.run_id,
            "name": winner.name,
            "version": winner.version,
            "stage": winner.stage,
            metric_key(winner.metric): winner.value,
        },
    }


def sweep_lines(result: SweepResult) -> list[str]:
    """Return the counts of the trials, the best of them, and the training of the best."""
    from pipeline.training.model_card import compare_with_untuned

    counts = [f"{result.finished} finished"]
    counts += [f"{result.resumed} of them before"] if result.resumed else []
    failed = result.failures
    counts += [f"{len(failed)} failed, such as: {failed[0]}"] if failed else []
    counts += ["there are no more to try"] if result.is_exhausted else []
    counts += ["the time was over before the others"] if result.is_timed_out else []
    return [
        f"sweep     {result.run_id}",
        f"trials    {', '.join(counts)}",
        f"best      {result.best.summary()}",
        f"untuned   {compare_with_untuned(result.best, result.untuned)}",
        *train_lines(result.winner),
    ]


def monitor_lines(result: MonitorResult) -> list[str]:
    """Return the verdict on each version, the live metric, the actions and the report."""
    from pipeline.training.scoring import format_value

    analysis, params = result.analysis, result.params
    verdict = {"drift": "DRIFT", "none": "ok", "unknown": "unknown"}[analysis.verdict()]
    rows = [(verdict, f"{params.name} version {analysis.version} in {params.stage}: {analysis.summary()}")]
    rows += [("other", f"version {other.version}: {other.summary()}") for other in result.other_versions]
    found = analysis.performance
    if found is not None:
        live = promoted = "undefined"
        if found.live is not None:
            value, low, high = (format_value(v) for v in (found.live.value, found.live.low, found.live.high))
            live = f"{value} [{low}, {high}]"
        if found.promoted is not None:
            promoted = format_value(found.promoted.value)
        before = f"{promoted} on {found.promoted_rows} at promotion"
        rows.append((found.metric, f"{live} on {found.rows} labelled rows, {before}"))
        rows += [("labels", note) for note in found.notes]
    rows += [("note", note) for note in result.notes]
    rows += [(action.action, f"{action.outcome}: {action.message}") for action in result.actions]
    rows += [("report", _short_path(result.report)), ("run", f"{result.run_id} in {result.experiment}")]
    return [f"{label:<9} {text}" for label, text in rows]


def _features(values: tuple[Any, ...]) -> str:
    """Return one row as the value of `--features`, quoted for a shell if necessary."""
    return shlex.quote(as_text(tuple("" if v != v else v for v in values)))


def _setting(store: str) -> str:
    """Return the shell setting that selects the store; empty for the default store."""
    return "" if _is_default(store) else f"MLFLOW_TRACKING_URI={shlex.quote(store)} "


def _serve(uri: str) -> str:
    """Return the command that serves a model with MLflow; it finds MLflow's web server on the PATH."""
    command = _command("mlflow")
    path = "" if command == "mlflow" else f"PATH={Path(command).parent}:$PATH "
    return f"{path}mlflow models serve -m {uri} --env-manager local"


def _ui(store: str) -> str:
    """Return the command that opens the MLflow UI, or the address of a server, which has the UI."""
    if store.startswith("http"):
        return f"open {store}"
    where = "" if _is_default(store) else f" --backend-store-uri {shlex.quote(store)}"
    return f"{_command('mlflow')} ui{where}"


def _is_default(store: str) -> bool:
    # MLflow writes a space in a folder's name as %20.
    return unquote(store) == f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def _command(name: str) -> str:
    """Return the path of a program of this environment, as short as the current folder allows."""
    path = Path(sys.prefix, "bin", name)
    active = os.path.realpath(os.environ.get("VIRTUAL_ENV", os.devnull))  # `make` only extends the PATH
    if not path.exists() or active == os.path.realpath(sys.prefix):
        return name
    short = _short_path(str(path))
    return name if Path(short).is_absolute() else short


def _short_path(path: str) -> str:
    """Return a path below the current folder as a relative path; other paths and addresses unchanged."""
    below = Path(path).is_absolute() and Path(path).is_relative_to(Path.cwd())
    return os.path.relpath(path) if below else path
