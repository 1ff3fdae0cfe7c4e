"""Log a sweep to MLflow: a parent run, and a child run for each trial.

The next sweep of the same parameters and data resumes one that was interrupted: it writes a
parameter on the earlier run that can be written once only, and takes over its trials as children.
Finished trials are kept as they are; the runs of all others are used again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from pipeline.tracking import store
from registry_tools.errors import RegistryUnavailable
from registry_tools.mlflow_store import client, experiments, heartbeat
from registry_tools.mlflow_store.write_once import write_once

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

_SWEEP, _TRIAL, _KIND = "sweep", "trial", "kind"
_CONTINUED = "continued_by"
_FAILURE = "failure"
_METRIC = "cv_accuracy_mean"
_BATCH = 900  # metrics in one call
_RETRY_SECONDS = 120.0  # seconds that a tracking server may be unavailable during a sweep


@dataclass(frozen=True)
class EarlierTrials:
    """The trials of an interrupted sweep that this one resumes, by the place of each."""

    finished: Mapping[int, Mapping[str, float]]  # the metrics
    unfinished: Mapping[int, Run]
    winner: str | None  # the run of the winner, if it was trained to its end


class SweepRuns:
    """The parent run of a sweep and its children."""

    def __init__(self, run_id: str, key: str) -> None:
        self.run_id = run_id
        self._key = key
        self._where = store.address()
        self._client = MlflowClient()
        self._experiment = self._call_with_retry(lambda: self._client.get_run(run_id)).info.experiment_id

    def log_start(self, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Log parameters and tags on the parent; those that `mlflow run` logged stay."""
        there = self._client.get_run(self.run_id).data.params
        new = [Param(key, value) for key, value in params.items() if key not in there]
        all_tags = {**tags, _KIND: _SWEEP, _SWEEP: self._key}
        self._client.log_batch(
            self.run_id,
            params=new,
            tags=[RunTag(key, value) for key, value in all_tags.items()],
            synchronous=True,
        )

    @contextmanager
    def keep_alive(self) -> Iterator[None]:
        """Write heartbeats while the body works."""
        with heartbeat.keep_alive(self._client, self.run_id):
            yield

    def resume_trials(self) -> EarlierTrials:
        """Take over the trials of interrupted sweeps of the same parameters and data."""
        continued: set[str] = set()
        finished: dict[int, Mapping[str, float]] = {}
        unfinished: dict[int, Run] = {}
        winner = None
        for before in self._unfinished_sweeps():
            if before.data.params.get(_CONTINUED) in continued or self._mark_continued(before):
                continued.add(before.info.run_id)
            else:
                continue
            for child in self._children(before.info.run_id):
                place = child.data.tags.get(_TRIAL)
                if place is None:
                    winner = self._adopt_winner(child) or winner
                    continue
                self._client.set_tag(child.info.run_id, MLFLOW_PARENT_RUN_ID, self.run_id, synchronous=True)
                if child.info.status == "FINISHED" or self._finish_logged(child):
                    finished[int(place)] = child.data.metrics
                else:
                    unfinished[int(place)] = child
        return EarlierTrials(finished, unfinished, winner)

    def _unfinished_sweeps(self) -> list[Run]:
        """Return the unfinished sweeps like this one since the last that ended, newest first."""
        found = self._search(f"tags.{_SWEEP} = '{self._key}' and tags.{_KIND} = '{_SWEEP}'")
        since: list[Run] = []
        for run in found:
            if run.info.status == "FINISHED":
                break
            if run.info.run_id != self.run_id:
                since.append(run)
        running = [run.info.run_id for run in since if run.info.status == "RUNNING"]
        if running:
            _log.warning("waiting to see whether run %s is still running", running[0])
        expired = set(heartbeat.expired(self._client, running))
        for run_id in expired:
            self._client.set_terminated(run_id, "KILLED")
        return [run for run in since if run.info.status != "RUNNING" or run.info.run_id in expired]

    def _mark_continued(self, before: Run) -> bool:
        """Mark an interrupted sweep as continued by this one; False if another continues it."""
        return write_once(self._client, before.info.run_id, _CONTINUED, self.run_id) == self.run_id

    def _finish_logged(self, child: Run) -> bool:
        """Finish a trial that was interrupted after its metrics, which MLflow logs last."""
        if child.info.status == "FAILED" or _METRIC not in child.data.metrics:
            return False
        self._client.set_terminated(child.info.run_id, "FINISHED")
        return True

    def _adopt_winner(self, child: Run) -> str | None:
        if child.info.status == "RUNNING":
            self._client.set_terminated(child.info.run_id, "KILLED")
        if child.info.status != "FINISHED":
            return None
        self._client.set_tag(child.info.run_id, MLFLOW_PARENT_RUN_ID, self.run_id, synchronous=True)
        return child.info.run_id

    def _children(self, parent: str, condition: str = "") -> list[Run]:
        return self._search(f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'{condition}")

    def _search(self, condition: str) -> list[Run]:
        return experiments.find_runs(self._client, self._experiment, condition)

    def open_trial(self, place: int, name: str, before: Run | None) -> str:
        """Begin a trial, in a run of its own or in the one that it had before; return the run."""
        if before is not None:
            run_id = before.info.run_id
            for tag in {_FAILURE, MLFLOW_RUN_NOTE} & set(before.data.tags):
                self._client.delete_tag(run_id, tag)
            self._call_with_retry(lambda: self._client.update_run(run_id, "RUNNING"))
            return run_id
        tags = {MLFLOW_PARENT_RUN_ID: self.run_id, MLFLOW_RUN_NAME: name, _KIND: _TRIAL, _TRIAL: str(place)}
        is_retry = False

        def create() -> Run:
            nonlocal is_retry
            there = self._children(self.run_id, f" and tags.{_TRIAL} = '{place}'") if is_retry else []
            is_retry = True
            return there[0] if there else self._client.create_run(self._experiment, tags=tags)

        return self._call_with_retry(create).info.run_id

    def finish_trial(
        self, run_id: str, params: Mapping[str, str], metrics: Mapping[str, float], warning: str
    ) -> None:
        """Log parameters and metrics of a trial in one call, and end it."""
        now = time.time_ns() // 1_000_000
        self._call_with_retry(
            lambda: self._client.log_batch(
                run_id,
                metrics=[Metric(key, value, now, 0) for key, value in metrics.items()],
                params=[Param(key, value) for key, value in params.items()],
                tags=[RunTag("warning", warning)] if warning else [],
                synchronous=True,
            )
        )
        self._end(run_id, "FINISHED")

    def fail_trial(self, run_id: str, params: Mapping[str, str], reason: str) -> None:
        """Log parameters of a failed trial and the reason, and end it."""
        tags = [RunTag(_FAILURE, reason), RunTag(MLFLOW_RUN_NOTE, reason)]
        logged = [Param(key, value) for key, value in params.items()]
        self._call_with_retry(
            lambda: self._client.log_batch(run_id, params=logged, tags=tags, synchronous=True)
        )
        self._end(run_id, "FAILED")

    def kill_open(self) -> None:
        """End the trials that were interrupted."""
        with client.translate_errors(self._where):
            for run in self._children(self.run_id, " and attributes.status = 'RUNNING'"):
                if _TRIAL in run.data.tags:
                    self._client.set_terminated(run.info.run_id, "KILLED")

    def _end(self, run_id: str, status: str) -> None:
        self._call_with_retry(lambda: self._client.set_terminated(run_id, status))

    def continued_by(self) -> str | None:
        """Return the sweep that resumed this one because its heartbeat expired."""
        return self._call_with_retry(lambda: self._client.get_run(self.run_id)).data.params.get(_CONTINUED)

    def registered_version(self, run_id: str) -> tuple[int, Mapping[str, float]] | None:
        """Return the version that a training registered, and its metrics; None if there is none."""
        found = self._client.search_model_versions(f"run_id = '{run_id}'", max_results=1)
        metrics = self._client.get_run(run_id).data.metrics
        return (int(found[0].version), metrics) if found else None

    def log_best(self, so_far: list[float], winner: Mapping[str, float], note: str) -> None:
        """Log on the parent the best accuracy after each trial, the winner's metrics and a card."""
        now = time.time_ns() // 1_000_000
        logged = [Metric("best_cv_accuracy", value, now, step) for step, value in enumerate(so_far)]
        logged += [Metric(key, value, now, 0) for key, value in winner.items()]
        for start in range(0, len(logged), _BATCH):
            self._client.log_batch(self.run_id, metrics=logged[start : start + _BATCH], synchronous=True)
        self._client.set_tag(self.run_id, MLFLOW_RUN_NOTE, note, synchronous=True)

    def _call_with_retry(self, call: Callable[[], Result]) -> Result:
        """Call MLflow, and retry while its server is unavailable.

        A call may be repeated: a server that ended before it responded may have done it already.
        """
        until = time.monotonic() + _RETRY_SECONDS
        while True:
            try:
                with client.translate_errors(self._where):
                    return call()
            except RegistryUnavailable:
                is_server = self._where.startswith("http")  # a file is not retried
                if not is_server or time.monotonic() > until:
                    raise
                time.sleep(1)
