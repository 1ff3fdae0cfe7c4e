"""What predicts the rows of a scoring job: worker processes of its own, or Spark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import pyarrow as pa

from registry_tools.batch.readers.read_rows import Batch
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models.trust_policy import TrustPolicy

BatchResult = tuple[pa.RecordBatch, "dict[int, str]"]  # predictions; which rows have none, and why


class Engine(Protocol):
    """Predicts batches."""

    def load(
        self, artifact: ModelArtifact, policy: TrustPolicy, proba: bool, text: bool
    ) -> list[str]:
        """Load a version; return the columns that `proba` adds."""

    def predict(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, BatchResult]]:
        """Yield each batch with its predictions, in the order of the batches."""

    def close(self) -> None:
        """End."""
