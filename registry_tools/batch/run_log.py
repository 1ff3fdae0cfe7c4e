"""A scoring job as a run of MLflow, in the experiment `<model>-scoring`."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

from mlflow import MlflowClient

from registry_tools.errors import RegistryToolsError
from registry_tools.mlflow_store import runs

_log = logging.getLogger(__name__)
_REFUSED = re.compile(r"[^\w\-. ]")  # in the name of a metric; MLflow refuses some uses of /
_LONGEST_NAME = 250  # of a metric in MLflow


class ScoringRun:
    """The run of one scoring job; a registry that cannot be written to is logged once.

    As a context manager it ends the run as failed or killed where the body fails.
    """

    def __init__(self, client: MlflowClient, name: str, tags: Mapping[str, str]) -> None:
        """Open it."""
        self._client = client
        self.experiment = f"{name}-scoring"
        self.run_id: str | None = None
        here = {"host": socket.gethostname(), "process": str(os.getpid())}
        try:
            runs.end_abandoned_runs(client, self.experiment, here["host"])
            description = f"Scoring jobs of {name}: one run for each job."
            self.run_id = runs.start(client, self.experiment, description, {**tags, **here})
        except RegistryToolsError as error:
            _log.warning("this scoring is not recorded: %s", error)

    def finish(self, metrics: Mapping[str, float], counts: Mapping[str, int]) -> None:
        """Log the metrics and rows by class, and end it."""
        by_class: Counter[str] = Counter()  # two classes may have one name of a metric
        for name, count in counts.items():
            by_class[f"count_{_REFUSED.sub('_', name)}"[:_LONGEST_NAME]] += count
        self._end("FINISHED", {**metrics, **by_class}, {})

    def __enter__(self) -> ScoringRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            killed = isinstance(error, (KeyboardInterrupt, SystemExit))
            reason = "interrupted" if killed else str(error)
            self._end("KILLED" if killed else "FAILED", {}, {"error": reason[:500]} if reason else {})

    def _end(self, status: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        if self.run_id is None:
            return
        try:
            runs.end(self._client, self.run_id, status, metrics, tags)
        except RegistryToolsError as error:
            _log.warning("this scoring is not recorded: %s", error)
            self.run_id = None
