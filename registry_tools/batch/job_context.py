"""The beginning and the end of a scoring on every engine: its version, its run in MLflow, its summary."""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from registry_tools.batch.job import RowCounts, ScoringRequest, ScoringSummary
from registry_tools.data.schema import TENSORS_SUPPORTED, Column, TensorSchema, UnsupportedTensor
from registry_tools.errors import RegistryToolsError, UnsupportedOperation
from registry_tools.files.addresses import without_secrets
from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.mlflow_store import runs
from registry_tools.mlflow_store.client import connect
from registry_tools.models.formats import describe

_log = logging.getLogger(__name__)
_REFUSED = re.compile(r"[^\w\-. ]")  # in the name of a metric; MLflow refuses some uses of /
_LONGEST_NAME = 250  # of a metric in MLflow


@contextlib.contextmanager
def fetched_version(
    request: ScoringRequest, tracking_uri: str | None
) -> Iterator[tuple[ModelArtifact, tuple[Column, ...] | TensorSchema]]:
    """Yield the version that the reference means now, with verified files, and the rows that it takes.

    It predicts all rows, wherever the stage moves. Its files are deleted at the end.

    Raises
    ------
    UnsupportedOperation
        If its signature neither names and types its columns nor is a tensor of rows.
    RegistryToolsError
        As `load_model`.
    """
    with contextlib.closing(
        ArtifactFetcher(request.ref, request.trust_policy, tracking_uri, None)
    ) as fetcher:
        artifact = fetcher.fetch(fetcher.resolve())
        inputs = describe(artifact.model).inputs
        if isinstance(inputs, UnsupportedTensor):
            raise UnsupportedOperation(f"{artifact} takes a {inputs}: {TENSORS_SUPPORTED}")
        if inputs is None:
            raise UnsupportedOperation(
                f"{artifact} does not name and type its columns, so that files cannot be compared with "
                "its signature: register it with one, or use predict"
            )
        yield artifact, inputs


class ScoringRun(contextlib.AbstractContextManager["ScoringRun"]):
    """The run of one scoring job, in the experiment `<model>-scoring`; it fails where the body does.

    A registry that cannot be written to is logged once.
    """

    def __init__(self, request: ScoringRequest, artifact: ModelArtifact, tracking_uri: str | None) -> None:
        """Open it, with tags that describe the job."""
        self._request, self._artifact = request, artifact
        self._client = connect(tracking_uri)
        self.experiment = f"{artifact.name}-scoring"
        self.run_id: str | None = None
        given = without_secrets(request.input)
        tags = {
            "model": artifact.name,
            "version": str(artifact.version),
            "stage": artifact.stage,
            "digest": artifact.digest,
            "input": given,
            "output": request.output,
            "engine": "spark" if request.master is not None else "processes",
            "mlflow.runName": f"{artifact} on {Path(given).name}",
        }
        with self._failures_logged():
            description = f"Scoring jobs of {artifact.name}: one run for each job."
            known = {key: value for key, value in tags.items() if value}
            self.run_id = runs.start_in_process(self._client, self.experiment, description, known)

    def finish(self, total: RowCounts, seconds: float) -> ScoringSummary:
        """Log the metrics of the job, end its run, and return its summary."""
        # Incomplete if a batch had too many numbers to count.
        complete = total.by_class.total() == total.rows
        counts = dict(sorted(total.by_class.items())) if complete else {}
        rate = (total.rows + total.rejected) / max(seconds, 1e-9)
        by_metric: Counter[str] = Counter()  # two classes may have one name of a metric
        for name, count in counts.items():
            by_metric[f"count_{_REFUSED.sub('_', name)}"[:_LONGEST_NAME]] += count
        metrics = {
            "rows": total.rows,
            "rejected": total.rejected,
            "seconds": seconds,
            "rows_per_second": rate,
        }
        if self.run_id is not None:
            with self._failures_logged():
                runs.end(self._client, self.run_id, "FINISHED", {**metrics, **by_metric}, {})
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.run_id is not None:
            with self._failures_logged():
                runs.end_with_error(self._client, self.run_id, error)

    @contextlib.contextmanager
    def _failures_logged(self) -> Iterator[None]:
        """Log that the registry cannot be written to, and leave the run alone from then on."""
        try:
            yield
        except RegistryToolsError as error:
            _log.warning("this scoring is not recorded: %s", error)
            self.run_id = None
