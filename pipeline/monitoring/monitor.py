"""One look at what is served: rows of now against the reference, and what follows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.errors import DataError, PipelineError
from pipeline.monitoring import actions, analysis, labels, readers, report
from pipeline.monitoring.actions import ActionResult
from pipeline.monitoring.analysis import Analysis
from pipeline.monitoring.production_rows import Rows
from pipeline.monitoring.run_log import MonitoringRun
from pipeline.monitoring.window import Window
from pipeline.params.definitions import MonitorParams, TrainParams
from pipeline.tracking import store
from pipeline.training import baseline
from pipeline.training.baseline import Categories, TrainingBaseline
from registry_tools.data.schema import quoted_names
from registry_tools.errors import InputError, NotFound, RegistryToolsError, VerificationError
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.client import connect
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models import artifacts, loader
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.refs import ModelRef

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MonitorResult:
    """What was found of the version in the stage, and what followed."""

    name: str
    stage: str
    version: int
    analysis: Analysis
    others: tuple[Analysis, ...]  # of versions that answered as well
    notes: tuple[str, ...]
    entries: tuple[ActionResult, ...]
    experiment: str
    run_id: str


@dataclass(frozen=True)
class _Look:
    """What is looked at, and for what."""

    client: MlflowClient
    params: MonitorParams
    watched: VersionInfo  # the version in the stage
    baseline: TrainingBaseline  # its own
    rows: Rows
    labels: pd.DataFrame | None
    training: TrainParams | str | None  # of a candidate, or why there can be none


@dataclass(frozen=True)
class _Seen:
    """What was found of one version."""

    analysis: Analysis
    baseline: TrainingBaseline
    window: Window
    labels_notes: tuple[str, ...]  # where there is no accuracy to say them with


def monitor(params: MonitorParams) -> MonitorResult:
    """Compare the rows of now with the reference of each version that answered them.

    The version that is in the stage decides; what others answered is told of.

    Raises
    ------
    PipelineError, RegistryToolsError
        If the rows, the labels or the reference cannot be read. Nothing follows then.
    """
    look = _prepared(params)
    record = MonitoringRun(look.client, params.name, _tags(params, look.watched))
    try:
        result = _result(look, record)
    except BaseException as error:
        killed = isinstance(error, (KeyboardInterrupt, SystemExit))
        said = "interrupted" if killed else f"{type(error).__name__}: {error}"
        record.end("KILLED" if killed else "FAILED", {"error": said, "mlflow.note.content": said})
        raise
    record.link_entry_run()
    return result


def _prepared(params: MonitorParams) -> _Look:
    """Read all that was given, before a run tells of it."""
    assert params.current is not None
    client = connect(store.address())
    watched = registry.get_version(client, ModelRef(params.name, stage=params.stage))
    own = _baseline(client, watched)
    training: TrainParams | str | None = None
    if params.retrain is not None:
        try:
            training = actions.training_params(watched, own, params.name, params.retrain)
        except (PipelineError, RegistryToolsError) as error:
            training = str(error)  # what is served is watched all the same
            _log.warning("there can be no retraining: %s", training)
    since = datetime.now(timezone.utc) - params.since if params.since is not None else None
    path = Path(params.current)
    rows = readers.read(path, params.name, list(own.columns), own.text_columns, since)
    known = labels.read(Path(params.labels), own.target) if params.labels is not None else None
    return _Look(client, params, watched, own, rows, known, training)


def _result(look: _Look, record: MonitoringRun) -> MonitorResult:
    """Look at each version, tell of it, and do what follows."""
    params, watched = look.params, look.watched.version
    seen, notes = _all_seen(look)
    for each in seen:
        record.tag_version(each.analysis)
        notes += _notes(each)
    main = seen[0].analysis
    record.log(main)
    entries = tuple(_follow(look, main, record))
    head = {
        "name": params.name,
        "stage": params.stage,
        "version": watched,
        "current": str(params.current),
        "run_id": record.run_id,
        "alpha": params.alpha,
        "notes": notes,
    }
    told = [(each.analysis, each.baseline, each.window) for each in seen]
    record.log_files(lambda folder: report.write(folder, head, told, entries))
    record.end("FINISHED", _verdict_tags(main, entries))
    return MonitorResult(
        params.name,
        params.stage,
        watched,
        main,
        tuple(each.analysis for each in seen[1:]),
        tuple(notes),
        entries,
        record.experiment,
        record.run_id,
    )


def _all_seen(look: _Look) -> tuple[list[_Seen], list[str]]:
    """Return what is found of each version, the one in the stage first, and what was left out."""
    seen: list[_Seen] = []
    notes = list(look.rows.notes)
    watched = look.watched.version
    for version, part in _by_version(look.rows, watched).items():
        try:
            seen.append(_seen(look, version, part))
        except (DataError, NotFound, VerificationError) as error:
            if version == watched:
                raise
            notes.append(f"{part.count} rows of version {version}: {error}")
    seen.sort(key=lambda each: (each.analysis.version != watched, -each.analysis.version))
    return seen, notes


def _notes(seen: _Seen) -> list[str]:
    """Return what was not looked at of a version."""
    notes = [
        f"{name} has more than {len(profile.counts)} categories: how often each comes is not tested"
        for name, profile in seen.baseline.columns.items()
        if isinstance(profile, Categories) and profile.others
    ]
    return notes + list(seen.labels_notes)


def _by_version(rows: Rows, watched: int) -> dict[int, Rows]:
    """Return rows by version; those that name none are for the one in the stage to answer."""
    found = rows.by_version()
    own = [*found.pop(watched, Rows(())).tables, *found.pop(None, Rows(())).tables]
    others = {version: part for version, part in found.items() if version is not None}
    return {watched: Rows(tuple(own)), **others}


def _baseline(client: MlflowClient, version: VersionInfo) -> TrainingBaseline:
    """Return what a version was trained on.

    Raises
    ------
    DataError
        If it does not have it.
    """
    with artifacts.evidence_files(client, version) as folder:
        found = baseline.read(folder) if folder is not None else None
    if found is None:
        raise DataError(
            f"{version.name} version {version.version} has no reference to compare with: it was "
            "not trained by this pipeline, or by an older one; train it anew"
        )
    return found


def _seen(look: _Look, version: int, rows: Rows) -> _Seen:
    """Look at the rows of one version."""
    own = look.baseline
    if version != look.watched.version:
        ref = ModelRef(look.params.name, version=version)
        own = _baseline(look.client, registry.find_version(look.client, ref))
    part = rows.window(list(own.columns))
    if part.predictions is None and part.rows >= look.params.min_rows:
        part = _answered(look.client, look.params.name, version, part)
    _check_predictions(version, part, own)
    live = None
    if look.labels is not None and part.rows and part.predictions is not None:
        live = labels.join(look.labels, part, own)
    found = analysis.analyse(version, own, part, live, look.params.min_rows, look.params.alpha)
    return _Seen(found, own, part, live.notes if live is not None and not live.rows else ())


def _check_predictions(version: int, part: Window, own: TrainingBaseline) -> None:
    """Refuse answers in other words than the reference's: all would be drift."""
    if part.predictions is None or not part.rows:
        return
    said = set(part.predictions.unique().drop_null().to_pylist())
    if said and not said & set(own.predictions):
        raise DataError(
            f"the rows say that version {version} answered {quoted_names(sorted(said)[:5])}, and "
            f"it answers {quoted_names(sorted(own.predictions)[:5])}: none of them is the same"
        )


def _answered(client: MlflowClient, name: str, version: int, part: Window) -> Window:
    """Have a version answer rows that nobody has answered; those with holes stay without."""
    model = loader.load(client, ModelRef(name, version=version), TrustPolicy.from_environment())
    required = [column.name for column in model.info.signature or () if column.required]
    table = part.table.to_pandas()
    whole = table[required].notna().all(axis=1).to_numpy()
    numbers = table[required].select_dtypes("number")
    whole = whole & np.isfinite(numbers.to_numpy(float, na_value=np.nan)).all(axis=1)
    predictions = pd.Series([None] * len(table), dtype=object)
    try:
        if whole.any():
            predictions[whole] = [str(said) for said in model.predict_names(table[whole])]
    except InputError as error:
        raise DataError(f"{name} version {version} cannot answer the rows: {error}") from error
    return Window(part.table, pa.chunked_array([pa.array(predictions, pa.string())]), part.keys)


def _follow(look: _Look, main: Analysis, record: MonitoringRun) -> Sequence[ActionResult]:
    """Do what was asked for, if there is drift."""
    entries: list[ActionResult] = []
    client, params = look.client, look.params
    standing = look.watched.version
    if params.rollback and main.has_fallen:
        event, standing = actions.roll_back_version(client, params, standing, record.run_id)
        entries.append(event)
    if look.training is not None and main.has_drift:
        entries += actions.retrain(client, params, look.training, main, standing, record)
    return entries


def _tags(params: MonitorParams, watched: VersionInfo) -> dict[str, str]:
    given = {name: text for name, text in params.as_text().items() if name not in {"name", "stage"}}
    return given | {
        "model": params.name,
        "stage": params.stage,
        "version": str(watched.version),
        "mlflow.runName": f"{params.name}/{watched.version} on {Path(str(params.current)).name}",
    }


def _verdict_tags(main: Analysis, entries: Sequence[ActionResult]) -> dict[str, str]:
    told = [
        report.said(main),
        *(f"{event.event}, {event.outcome}: {event.said}" for event in entries),
    ]
    return {
        "verdict": main.verdict(),
        "where": main.where(),
        **{event.event: f"{event.outcome}: {event.said}" for event in entries},
        "mlflow.note.content": "\n\n".join(told),
    }
