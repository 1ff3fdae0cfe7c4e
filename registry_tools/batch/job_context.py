"""The beginning and the end of a scoring on every engine: its version, its run in MLflow, its summary."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from registry_tools.batch.job import SliceResult
from registry_tools.batch.request import ScoringRequest, ScoringSummary
from registry_tools.data.schema import Column
from registry_tools.errors import RegistryToolsError, UnsupportedOperation
from registry_tools.files.input_files import without_secrets
from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.mlflow_store import runs
from registry_tools.mlflow_store.client import connect
from registry_tools.models.formats import describe
from registry_tools.models.trust_policy import TrustPolicy

_log = logging.getLogger(__name__)
_REFUSED = re.compile(r"[^\w\-. ]")  # in the name of a metric; MLflow refuses some uses of /
_LONGEST_NAME = 250  # of a metric in MLflow


@contextlib.contextmanager
def fetched_version(
    request: ScoringRequest, policy: TrustPolicy, tracking_uri: str | None
) -> Iterator[tuple[ModelArtifact, tuple[Column, ...]]]:
    """Yield the version that the reference means now, with verified files, and the columns that it takes.

    It predicts all rows, wherever the stage moves. Its files are deleted at the end.

    Raises
    ------
    UnsupportedOperation
        If its signature does not name and type its columns.
    RegistryToolsError
        As `load_model`.
    """
    with contextlib.closing(ArtifactFetcher(request.ref, policy, tracking_uri, None)) as fetcher:
        artifact = fetcher.fetch(fetcher.resolve())
        columns = describe(artifact.model).signature
        if columns is None:
            raise UnsupportedOperation(
                f"{artifact} does not name and type its columns, so that files cannot be compared with "
                "its signature: register it with one, or use predict"
            )
        yield artifact, columns


class ScoringRun:
    """The run of one scoring job, in the experiment `<model>-scoring`.

    A registry that cannot be written to is logged once.
    """

    def __init__(self, request: ScoringRequest, artifact: ModelArtifact, tracking_uri: str | None) -> None:
        """Open it, with tags that describe the job."""
        self._request, self._artifact = request, artifact
        self._client = connect(tracking_uri)
        self.experiment = f"{artifact.name}-scoring"
        self.run_id: str | None = None
        given, host = without_secrets(request.input), socket.gethostname()
        tags = {
            "model": artifact.name,
            "version": str(artifact.version),
            "stage": artifact.stage or "",
            "digest": artifact.digest or "",
            "input": given,
            "output": request.output,
            "engine": "spark" if request.master is not None else "processes",
            "mlflow.runName": f"{artifact} on {Path(given).name}",
            "host": host,
            "process": str(os.getpid()),
        }
        try:
            runs.end_abandoned_runs(self._client, self.experiment, host)
            description = f"Scoring jobs of {artifact.name}: one run for each job."
            given_tags = {key: value for key, value in tags.items() if value}
            self.run_id = runs.start(self._client, self.experiment, description, given_tags)
        except RegistryToolsError as error:
            _log.warning("this scoring is not recorded: %s", error)

    def finish(self, total: SliceResult, seconds: float) -> ScoringSummary:
        """Log the metrics of the job, end its run, and return its summary."""
        # Incomplete if a batch had too many numbers to count.
        counts = dict(sorted(total.counts.items())) if total.counts.total() == total.rows else {}
        by_class: Counter[str] = Counter()  # two classes may have one name of a metric
        for name, count in counts.items():
            by_class[f"count_{_REFUSED.sub('_', name)}"[:_LONGEST_NAME]] += count
        rate = (total.rows + total.rejected) / max(seconds, 1e-9)
        metrics = {
            "rows": total.rows,
            "rejected": total.rejected,
            "seconds": seconds,
            "rows_per_second": rate,
        }
        self.end("FINISHED", {**metrics, **by_class}, {})
        return ScoringSummary(
            name=self._artifact.name,
            version=self._artifact.version,
            stage=self._artifact.stage,
            input=without_secrets(self._request.input),
            output=self._request.output,
            rows=total.rows,
            rejected=total.rejected,
            rejects=self._request.rejects,
            seconds=seconds,
            rows_per_second=rate,
            counts=counts,
            experiment=self.experiment,
            run_id=self.run_id,
        )

    def end(self, status: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """End the run, if it was opened and can be written to."""
        if self.run_id is None:
            return
        try:
            runs.end(self._client, self.run_id, status, metrics, tags)
        except RegistryToolsError as error:
            _log.warning("this scoring is not recorded: %s", error)
            self.run_id = None


@contextlib.contextmanager
def recorded_run(
    request: ScoringRequest, artifact: ModelArtifact, tracking_uri: str | None
) -> Iterator[ScoringRun]:
    """Yield the run of a job; it ends as failed or killed where the body fails."""
    run = ScoringRun(request, artifact, tracking_uri)
    try:
        yield run
    except BaseException as error:
        killed = isinstance(error, (KeyboardInterrupt, SystemExit))
        reason = "interrupted" if killed else str(error)
        run.end("KILLED" if killed else "FAILED", {}, {"error": reason[:500]} if reason else {})
        raise
