"""Log a monitoring run to MLflow: a run in the experiment `<model>-monitoring`, and version tags.

Each monitoring also adds a step to the metrics of one more run for each stage, its timeline, because MLflow
draws lines from the metrics of one run only.

The module also holds the retraining lock, which lets only one run retrain within the cooldown.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from pipeline.monitoring.analysis import Analysis
from pipeline.params.types import as_text
from registry_tools.mlflow_store import experiments, registry, runs
from registry_tools.mlflow_store.client import translate_errors, upsert
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.mlflow_store.tags import DRIFT_AT_TAG, DRIFT_RUN_TAG, DRIFT_TAG, TRAINING_VIEW
from registry_tools.mlflow_store.write_once import write_once
from registry_tools.promotion.event_log import EventLog
from registry_tools.stats.metric import metric_key, metric_suffixes

CAUSE_TAG = "monitoring_run"  # tag of a version: the monitoring run that started its training
REPORT = "report.html"  # the artifact with the HTML report
_LOCK, _TIMELINE = "retraining", "timeline"
_VIEW = experiments.view(
    "monitorings", "attributes.start_time", ["metrics.`drift`", "metrics.`rows`", "tags.`where`"]
)


class MonitoringRun:
    """The MLflow run that records one monitoring of a stage."""

    def __init__(self, client: MlflowClient, model: str, tags: Mapping[str, str]) -> None:
        """Start the run, and end abandoned runs of this machine."""
        self._client = client
        self._model = model
        self.experiment = f"{model}-monitoring"
        description = (
            f"Monitoring of {model}: one run for each comparison with the training baseline, and a timeline "
            "for each stage, whose metrics show all comparisons as lines."
        )
        own_tags = {**tags, "kind": "monitoring"}
        self.run_id = runs.start_in_process(client, self.experiment, description, own_tags)
        with translate_errors(client.tracking_uri):
            self._experiment_id = client.get_run(self.run_id).info.experiment_id
        experiments.set_ui_tags(client, self._experiment_id, experiments.described(description), _VIEW)
        self._stage = tags.get("stage", "")

    def log_analysis(self, analysis: Analysis) -> None:
        """Log the metrics of an analysis; the PSI of a feature gets one step for each part of the window."""
        found = analysis.performance
        values: dict[str, Sequence[float]] = {"rows": [analysis.rows], "drift": [analysis.has_drift]}
        suffixes = metric_suffixes([feature.name for feature in analysis.features])
        for feature, suffix in zip(analysis.features, suffixes, strict=True):
            values[f"psi/{suffix}"] = feature.psi_over_time
            values[f"missing/{suffix}"] = [feature.current_missing]
        targets = list(dict.fromkeys(test.target for test in analysis.tests))
        for target, suffix in zip(targets, metric_suffixes(targets), strict=True):
            p_values = [test.adjusted_p_value for test in analysis.tests if test.target == target]
            values[f"p_value/{suffix}"] = [min(p_values)]
        if found is not None:
            key = metric_key(found.metric)
            if found.live is not None:
                values[f"live/{key}"] = [found.live.value]
                values[f"live/{key}_low"] = [found.live.low]
                values[f"live/{key}_high"] = [found.live.high]
            if found.promoted is not None:
                values[f"promoted/{key}"] = [found.promoted.value]
        now = int(datetime.now(timezone.utc).timestamp() * 1000)
        logged = [Metric(k, float(v), now, step) for k, each in values.items() for step, v in enumerate(each)]
        with translate_errors(self._client.tracking_uri):
            self._client.log_batch(self.run_id, logged, synchronous=True)
            last = {key: each[-1] for key, each in values.items() if each}
            whole = {f"psi/{suffix}": f.psi for f, suffix in zip(analysis.features, suffixes, strict=True)}
            self._extend_timeline(last | whole, now)

    def _extend_timeline(self, values: Mapping[str, float], now: int) -> None:
        """Add a step to each metric of the timeline of the stage."""
        tags = {"kind": _TIMELINE, "stage": self._stage}
        condition = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
        found = experiments.find_runs(self._client, self._experiment_id, condition, 1)
        timeline = found[0].info.run_id if found else self._make_timeline(tags)
        step = len(self._client.get_metric_history(timeline, "rows"))
        steps = [Metric(key, float(value), now, step) for key, value in values.items()]
        upsert(partial(self._client.log_batch, timeline, steps, synchronous=True))

    def _make_timeline(self, tags: Mapping[str, str]) -> str:
        """Return the id of a new timeline, or of the one that another monitoring makes at the same time."""
        name = {"mlflow.runName": f"{self._model}@{self._stage} over time"}
        made = self._client.create_run(self._experiment_id, tags=name).info.run_id
        self._client.set_terminated(made)
        while True:
            root, key, timeline = self._last_claim(_TIMELINE, self._stage)
            if timeline is None:
                write_once(self._client, root, key, made)
                continue
            run_id: str = timeline.info.run_id
            if run_id != made:
                self._client.delete_run(made)
            # A search finds the timeline from now on, and thus no run that loses and is deleted.
            for tag, value in tags.items():
                upsert(partial(self._client.set_tag, run_id, tag, value, synchronous=True))
            return run_id

    def _last_claim(self, what: str, stage: str) -> tuple[str, str, Run | None]:
        """Return the run of the last claim to the lock or the timeline of a stage.

        The claims are numbered parameters of the first run of the history. MLflow accepts a parameter only
        once, so that one of two concurrent monitoring runs succeeds.

        Returns
        -------
        The first run of the history, its parameter for the next claim, and the run that the last claim
        names; None without a claim, or if the run was deleted.
        """
        root, prefix = EventLog.find_or_make(self._client, self._model).root, f"{what}.{stage}."
        with translate_errors(self._client.tracking_uri):
            params = self._client.get_run(root).data.params
        number = next(n for n in itertools.count(1) if f"{prefix}{n}" not in params)
        last = params.get(f"{prefix}{number - 1}")
        run = registry.find_run(self._client, last) if last is not None else None
        is_kept = run is not None and run.info.lifecycle_stage == "active"
        return root, f"{prefix}{number}", run if is_kept else None

    def log_files(self, write: Callable[[Path], None]) -> None:
        """Log the files that `write` creates in the folder it gets."""
        with tempfile.TemporaryDirectory() as folder, translate_errors(self._client.tracking_uri):
            write(Path(folder))
            self._client.log_artifacts(self.run_id, folder)

    def report_address(self) -> str:
        """Return the address of the report: a path, a page of the MLflow UI, or an artifact address."""
        with translate_errors(self._client.tracking_uri):
            info = self._client.get_run(self.run_id).info
        address = f"{info.artifact_uri}/{REPORT}"
        if address.startswith("file:"):
            return url2pathname(urlsplit(address).path)
        server = self._client.tracking_uri.rstrip("/")
        if server.startswith("http"):
            page = f"experiments/{info.experiment_id}/runs/{self.run_id}/artifacts/{REPORT}"
            return f"{server}/#/{page}?{TRAINING_VIEW}"
        return address

    def tag_version(self, analysis: Analysis) -> None:
        """Write the verdict as tags of the version, from which the server reports it."""
        at = f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
        verdict = analysis.verdict() + (f": {analysis.where()}" if analysis.has_drift else "")
        tags = {DRIFT_AT_TAG: at, DRIFT_RUN_TAG: self.run_id, DRIFT_TAG: verdict[:5000]}
        registry.set_tags(self._client, VersionInfo(self._model, analysis.version), tags)

    def tag_retrained(self, version: int) -> None:
        """Tag a version with the id of this run, which started its training."""
        registry.set_tags(self._client, VersionInfo(self._model, version), {CAUSE_TAG: self.run_id})

    def finish(self, tags: Mapping[str, str]) -> None:
        """End the run, and set its last tags."""
        runs.finish(self._client, self.run_id, {key: text[:5000] for key, text in tags.items()})

    def link_entry_run(self) -> None:
        """Tag the run that `mlflow run` opened, if any, with the id of the monitoring run."""
        run_id = os.environ.get("MLFLOW_RUN_ID")
        if run_id is not None:
            with translate_errors(self._client.tracking_uri):
                self._client.set_tag(run_id, CAUSE_TAG, self.run_id, synchronous=True)

    def lock_retraining(self, stage: str, cooldown: timedelta) -> str | None:
        """Acquire the retraining lock of a stage.

        Returns
        -------
        None if this run may retrain, else the reason why it may not.
        """
        while True:
            root, key, before = self._last_claim(_LOCK, stage)
            held = _why_locked(before, cooldown) if before is not None else None
            if held is not None or write_once(self._client, root, key, self.run_id) == self.run_id:
                return held


def _why_locked(before: Run, cooldown: timedelta) -> str | None:
    """Return the reason why the lock of an earlier run still holds; None if it does not."""
    began = datetime.fromtimestamp(before.info.start_time / 1000, timezone.utc)
    at = f"{began:%Y-%m-%d %H:%M} UTC"
    if runs.is_open_elsewhere(before):
        return f"run {before.info.run_id} is retraining since {at}"
    # A lock from a clock that is far ahead must not block retraining for years.
    if not timedelta(hours=-1) < datetime.now(timezone.utc) - began < cooldown:
        return None
    failed = ", which failed" if before.data.tags.get("retrain", "").startswith("failed") else ""
    return f"run {before.info.run_id} retrained at {at}{failed}, and cooldown={as_text(cooldown)} is not over"
