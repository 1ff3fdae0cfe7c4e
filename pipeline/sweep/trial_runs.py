"""What a sweep says to MLflow: a parent run, and a child run a trial.

A sweep that was killed is taken up by the next one of the same parameters and data: that one claims
it by a parameter of its run that nobody can write twice, and its trials become children of the new
parent. Finished ones are kept as they are; the runs of all others are used again.
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
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from pipeline.tracking import store
from registry_tools.errors import RegistryUnavailable
from registry_tools.mlflow_store import client, experiments, heartbeat

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

_SWEEP, _TRIAL, _KIND = "sweep", "trial", "kind"
_CONTINUED = "continued_by"
_FAILURE = "failure"
_FIGURE = "cv_accuracy_mean"
_BATCH = 900  # metrics in one call
_PATIENCE = 120.0  # seconds that a tracking server may be away in the midst of a sweep


@dataclass(frozen=True)
class Earlier:
    """What a killed sweep left to this one, by the place of each trial."""

    finished: Mapping[int, Mapping[str, float]]  # their figures
    unfinished: Mapping[int, Run]
    winner: str | None  # the run of the winner, if it was trained to its end


class Trials:
    """The parent run of a sweep and its children."""

    def __init__(self, run_id: str, key: str) -> None:
        self.run_id = run_id
        self._key = key
        self._where = store.address()
        self._client = MlflowClient()
        self._experiment = self._ask(lambda: self._client.get_run(run_id)).info.experiment_id

    def begin(self, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Say on the parent what is swept; what `mlflow run` logged already stays."""
        there = self._client.get_run(self.run_id).data.params
        new = [Param(key, value) for key, value in params.items() if key not in there]
        said = {**tags, _KIND: _SWEEP, _SWEEP: self._key}
        self._client.log_batch(
            self.run_id, params=new, tags=[RunTag(key, value) for key, value in said.items()]
        )

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Give signs of life while the body works."""
        with heartbeat.keep_alive(self._client, self.run_id):
            yield

    def take_up(self) -> Earlier:
        """Make the trials of killed sweeps of the same parameters and data those of this one."""
        claimed: set[str] = set()
        finished: dict[int, Mapping[str, float]] = {}
        unfinished: dict[int, Run] = {}
        winner = None
        for before in self._killed():
            if before.data.params.get(_CONTINUED) in claimed or self._claim(before):
                claimed.add(before.info.run_id)
            else:
                continue
            for child in self._children(before.info.run_id):
                place = child.data.tags.get(_TRIAL)
                if place is None:
                    winner = self._take_winner(child) or winner
                    continue
                self._client.set_tag(child.info.run_id, MLFLOW_PARENT_RUN_ID, self.run_id)
                if child.info.status == "FINISHED" or self._is_logged(child):
                    finished[int(place)] = child.data.metrics
                else:
                    unfinished[int(place)] = child
        return Earlier(finished, unfinished, winner)

    def _killed(self) -> list[Run]:
        """Return the unfinished sweeps like this one since the last that ended, newest first."""
        found = self._search(f"tags.{_SWEEP} = '{self._key}' and tags.{_KIND} = '{_SWEEP}'")
        since: list[Run] = []
        for run in found:
            if run.info.status == "FINISHED":
                break
            if run.info.run_id != self.run_id:
                since.append(run)
        at_work = [run.info.run_id for run in since if run.info.status == "RUNNING"]
        if at_work:
            _log.warning("waiting to see whether run %s is still at work", at_work[0])
        dead = set(heartbeat.expired(self._client, at_work))
        for run_id in dead:
            self._client.set_terminated(run_id, "KILLED")
        return [run for run in since if run.info.status != "RUNNING" or run.info.run_id in dead]

    def _claim(self, before: Run) -> bool:
        """Write on a killed sweep that this one goes on with it; False if another does."""
        try:
            self._client.log_param(before.info.run_id, _CONTINUED, self.run_id)
        except MlflowException:
            params = self._client.get_run(before.info.run_id).data.params
            if _CONTINUED not in params:
                raise
            return params[_CONTINUED] == self.run_id
        return True

    def _is_logged(self, child: Run) -> bool:
        """End a trial that was killed between its figures, which MLflow logs last, and its end."""
        if child.info.status == "FAILED" or _FIGURE not in child.data.metrics:
            return False
        self._client.set_terminated(child.info.run_id, "FINISHED")
        return True

    def _take_winner(self, child: Run) -> str | None:
        if child.info.status == "RUNNING":
            self._client.set_terminated(child.info.run_id, "KILLED")
        if child.info.status != "FINISHED":
            return None
        self._client.set_tag(child.info.run_id, MLFLOW_PARENT_RUN_ID, self.run_id)
        return child.info.run_id

    def _children(self, parent: str, condition: str = "") -> list[Run]:
        return self._search(f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'{condition}")

    def _search(self, condition: str) -> list[Run]:
        return experiments.find_runs(self._client, self._experiment, condition)

    def open(self, place: int, name: str, before: Run | None) -> str:
        """Begin a trial, in a run of its own or in the one that it had before; return the run."""
        if before is not None:
            run_id = before.info.run_id
            for tag in {_FAILURE, MLFLOW_RUN_NOTE} & set(before.data.tags):
                self._client.delete_tag(run_id, tag)
            self._ask(lambda: self._client.update_run(run_id, "RUNNING"))
            return run_id
        tags = {
            MLFLOW_PARENT_RUN_ID: self.run_id,
            MLFLOW_RUN_NAME: name,
            _KIND: _TRIAL,
            _TRIAL: str(place),
        }
        asked = False

        def create() -> Run:
            nonlocal asked
            there = self._children(self.run_id, f" and tags.{_TRIAL} = '{place}'") if asked else []
            asked = True
            return there[0] if there else self._client.create_run(self._experiment, tags=tags)

        return self._ask(create).info.run_id

    def finish(
        self, run_id: str, params: Mapping[str, str], figures: Mapping[str, float], warning: str
    ) -> None:
        """Log what a trial was and came to, in one call, and end it."""
        now = time.time_ns() // 1_000_000
        self._ask(
            lambda: self._client.log_batch(
                run_id,
                metrics=[Metric(key, value, now, 0) for key, value in figures.items()],
                params=[Param(key, value) for key, value in params.items()],
                tags=[RunTag("warning", warning)] if warning else [],
            )
        )
        self._end(run_id, "FINISHED")

    def fail(self, run_id: str, params: Mapping[str, str], reason: str) -> None:
        """Log what a trial was and why nothing came of it, and end it."""
        tags = [RunTag(_FAILURE, reason), RunTag(MLFLOW_RUN_NOTE, reason)]
        logged = [Param(key, value) for key, value in params.items()]
        self._ask(lambda: self._client.log_batch(run_id, params=logged, tags=tags))
        self._end(run_id, "FAILED")

    def kill_open(self) -> None:
        """End the trials that were interrupted."""
        with client.translate_errors(self._where):
            for run in self._children(self.run_id, " and attributes.status = 'RUNNING'"):
                if _TRIAL in run.data.tags:
                    self._client.set_terminated(run.info.run_id, "KILLED")

    def _end(self, run_id: str, status: str) -> None:
        self._ask(lambda: self._client.set_terminated(run_id, status))

    def taken_by(self) -> str | None:
        """Return the sweep that took this one for killed, because its process stood still."""
        return self._ask(lambda: self._client.get_run(self.run_id)).data.params.get(_CONTINUED)

    def trained(self, run_id: str) -> tuple[int, Mapping[str, float]] | None:
        """Return the version that a training registered, and its figures; None if there is none."""
        found = self._client.search_model_versions(f"run_id = '{run_id}'", max_results=1)
        figures = self._client.get_run(run_id).data.metrics
        return (int(found[0].version), figures) if found else None

    def log_best(self, so_far: list[float], figures: Mapping[str, float], note: str) -> None:
        """Log on the parent the best accuracy after each trial, the winner's figures and a card."""
        now = time.time_ns() // 1_000_000
        metrics = [
            Metric("best_cv_accuracy", value, now, step) for step, value in enumerate(so_far)
        ]
        metrics += [Metric(key, value, now, 0) for key, value in figures.items()]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])
        self._client.set_tag(self.run_id, MLFLOW_RUN_NOTE, note)

    def _ask(self, call: Callable[[], Result]) -> Result:
        """Call MLflow, again and again while its server is away.

        What is asked here may be asked twice: a server that ended before it answered may have done
        it already.
        """
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                with client.translate_errors(self._where):
                    return call()
            except RegistryUnavailable:
                is_server = self._where.startswith("http")  # a file does not come back
                if not is_server or time.monotonic() > until:
                    raise
                time.sleep(1)
