"""Log a sweep to MLflow: a parent run, and a child run for each trial.

The children are the record of a study. A sweep of the same study writes a parameter on an earlier
parent, which MLflow lets it write once only, and moves the finished children to itself: those of a sweep
that was interrupted, and those of a sweep that ended with fewer trials.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from pipeline.tracking.runs import log_params
from registry_tools.errors import RegistryToolsError, RegistryUnavailable
from registry_tools.mlflow_store import experiments, heartbeat, runs
from registry_tools.mlflow_store.client import translate_errors
from registry_tools.mlflow_store.write_once import write_once

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

_SWEEP, _KIND, _TRIAL, _CONTINUED, _ENDED = "sweep", "kind", "trial", "continued_by", "trials"
_RETRY_SECONDS = 120.0  # seconds that a tracking server may be unavailable during a sweep


class SweepRuns:
    """The parent run of a sweep and its children."""

    def __init__(self, run_id: str, key: str) -> None:
        self.run_id = run_id
        self._key = key
        self._client = MlflowClient()
        self._experiment = self._client.get_run(run_id).info.experiment_id
        self._open: dict[int, str] = {}  # the runs of trials under way, by the number of the trial

    @contextlib.contextmanager
    def record(self, params: Mapping[str, str], tags: Mapping[str, str]) -> Iterator[None]:
        """Log parameters and tags on the parent, and keep it alive while the body works.

        If the body raises, the trials under way end KILLED.
        """
        note = "The sweep is not finished."
        log_params(self.run_id, params, {**tags, _KIND: _SWEEP, _SWEEP: self._key}, note)
        with heartbeat.keep_alive(self._client, self.run_id):
            try:
                yield
            finally:
                # The registry may be the reason why the body raises.
                with contextlib.suppress(RegistryToolsError), translate_errors(self._client.tracking_uri):
                    for run_id in self._open.values():
                        self._client.set_terminated(run_id, "KILLED")

    def take_over(self, n_trials: int) -> tuple[dict[int, Run], list[Run]]:
        """Make the finished children of earlier sweeps children of this one.

        Returns
        -------
        tuple
            The finished trials by number, and trainings of the best by interrupted sweeps.
        """
        claimed: set[str] = set()
        trials: dict[int, Run] = {}
        trained = []
        for before in self._earlier_sweeps(n_trials):
            run_id = before.info.run_id
            if before.data.params.get(_CONTINUED) not in claimed and (
                write_once(self._client, run_id, _CONTINUED, self.run_id) != self.run_id
            ):
                continue
            claimed.add(run_id)
            for child in self._search(f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'"):
                number = child.data.tags.get(_TRIAL)
                if child.info.status == "RUNNING":
                    self._client.set_terminated(child.info.run_id, "KILLED")
                if child.info.status != "FINISHED" or (number is None and before.info.status == "FINISHED"):
                    continue
                self._client.set_tag(child.info.run_id, MLFLOW_PARENT_RUN_ID, self.run_id, synchronous=True)
                if number is None:
                    trained.append(child)
                else:
                    trials[int(number)] = child
        return trials, trained

    def _earlier_sweeps(self, n_trials: int) -> list[Run]:
        """Return the sweeps of this study that this one continues, newest first."""
        found = []
        for run in self._search(f"tags.{_SWEEP} = '{self._key}' and tags.{_KIND} = 'sweep'"):
            is_finished = run.info.status == "FINISHED"
            if run.info.run_id != self.run_id and not (
                is_finished and run.data.metrics.get(_ENDED, n_trials) >= n_trials
            ):
                found.append(run)
            if is_finished:
                break
        running = [run.info.run_id for run in found if run.info.status == "RUNNING"]
        if running:
            _log.warning("waiting to see whether run %s is still running", running[0])
        expired = set(heartbeat.expired(self._client, running))
        for run_id in expired:
            self._client.set_terminated(run_id, "KILLED")
        return [run for run in found if run.info.status != "RUNNING" or run.info.run_id in expired]

    def _search(self, condition: str) -> list[Run]:
        return experiments.find_runs(self._client, self._experiment, condition)

    def open_trial(self, number: int, name: str) -> None:
        """Open the run of a trial."""
        parent = {MLFLOW_PARENT_RUN_ID: self.run_id, _TRIAL: str(number)}
        tags = {**parent, MLFLOW_RUN_NAME: name, _KIND: _TRIAL}
        same = " and ".join(f"tags.`{key}` = '{text}'" for key, text in parent.items())

        def create(attempt: int) -> Run:
            there = self._search(same) if attempt else []
            return there[0] if there else self._client.create_run(self._experiment, tags=tags)

        self._open[number] = self._retry(create).info.run_id

    def end_trial(
        self,
        number: int,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        failure: str | None,
    ) -> None:
        """Log a trial in one call, and end its run; FAILED if there is a reason of failure."""
        run_id, status = self._open[number], "FAILED" if failure else "FINISHED"
        texts = {**tags, "failure": failure, MLFLOW_RUN_NOTE: failure}
        tagged = {key: text for key, text in texts.items() if text}
        self._retry(lambda _: runs.end(self._client, run_id, status, metrics, tagged, params))
        del self._open[number]

    def continued_by(self) -> str | None:
        """Return the sweep that continues this one because its heartbeat expired."""
        return self._retry(lambda _: self._client.get_run(self.run_id)).data.params.get(_CONTINUED)

    def log_best(self, key: str, best: Mapping[int, float], metrics: Mapping[str, float], note: str) -> None:
        """Log on the parent each improvement of the logged metric `key`, other metrics and a note."""
        now = time.time_ns() // 1_000_000
        logged = [Metric(f"best/{key}", value, now, step) for step, value in best.items()]
        logged += runs.metrics_now(metrics)
        self._client.log_batch(self.run_id, logged, tags=[RunTag(MLFLOW_RUN_NOTE, note)], synchronous=True)

    def _retry(self, call: Callable[[int], Result]) -> Result:
        """Call MLflow, and repeat it while its server is unavailable; the server may have done it already."""
        where = self._client.tracking_uri
        until, attempts = time.monotonic() + _RETRY_SECONDS, itertools.count()
        while True:
            try:
                with translate_errors(where):
                    return call(next(attempts))
            except RegistryUnavailable:
                if not where.startswith("http") or time.monotonic() > until:
                    raise  # a file is not retried
                time.sleep(1)
