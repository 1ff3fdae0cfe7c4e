"""What one scoring job is to do: files, a loaded version, and the columns of the output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from registry_tools.batch.engines.process_pool import ProcessPool
from registry_tools.batch.readers.input_files import SUFFIXES, InputFiles
from registry_tools.data.arrow_coercion import arrow_type
from registry_tools.data.schema import Column
from registry_tools.errors import InputError
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.refs import ModelRef

REASON = "reason"
Progress = Callable[[int, int], None]  # how much of `InputFiles.total` is done; rows


@dataclass(frozen=True)
class ScoringRequest:
    """The request of a user."""

    ref: ModelRef
    input: str  # a file, a folder of files, or a URL
    output: Path
    rejects: Path | None = None  # where rows go that cannot be scored; None fails on the first
    proba: bool = False
    workers: int | None = None  # None takes all cores


@dataclass
class RowCounts:
    """The rows counted so far."""

    rows: int = 0
    rejected: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # by class


@dataclass(frozen=True)
class ScoringPlan:
    """A request with its files opened and its version loaded."""

    request: ScoringRequest
    files: InputFiles
    columns: tuple[Column, ...]
    artifact: ModelArtifact
    engine: ProcessPool
    added: list[str]  # columns of probabilities

    @property
    def converts_text(self) -> bool:
        """Whether text becomes what the signature says."""
        return self.files.is_text and SUFFIXES[self.request.output.suffix.lower()] == "parquet"

    def output_schema(self, prediction: pa.DataType) -> pa.Schema:
        """Return the columns of the output, given the type of what is predicted."""
        types = {column.name: arrow_type(column) for column in self.columns}
        fields = [
            pa.field(f.name, types.get(f.name) or f.type) if self.converts_text else f
            for f in self.files.schema
        ]
        fields += [
            pa.field("prediction", prediction),
            pa.field("prediction_name", pa.string()),
            pa.field("model_version", pa.int32()),
            *(pa.field(name, pa.float64()) for name in self.added),
        ]
        return pa.schema(fields, metadata=self.files.schema.metadata)

    @property
    def reject_schema(self) -> pa.Schema:
        """The columns of the rejects."""
        return pa.schema([*self.files.schema, pa.field(REASON, pa.string())])


def bad_row_error(reason: str) -> InputError:
    """Return the error of a job that a row ends."""
    return InputError(
        f"{reason} (rows count from 0; --on-bad-row reject puts such rows into a file of their own)"
    )
