"""The job that the processes of a scoring receive, and the counts that they return; importing it is cheap."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from registry_tools.data.arrow_coercion import arrow_type
from registry_tools.data.schema import Column
from registry_tools.files.part_files import CSV
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models.trust_policy import TrustPolicy

REASON = "reason"


@dataclass(frozen=True)
class ScoringJob:
    """What every process has to know of a job."""

    artifact: ModelArtifact
    policy: TrustPolicy
    proba: bool
    csv: bool  # whether the rows are the text of a CSV
    columns: tuple[Column, ...]  # of the signature
    schema: pa.Schema  # of the input
    keep: list[str]  # the columns of the input that are in the output
    prefix: str  # of the names of the columns that are added
    form: str  # of the parts of the output
    rejects_form: str | None  # of the parts of the rejects; None fails on the first
    options: dict[str, Any] = field(default_factory=dict)  # of Parquet
    parts: Path = Path()  # the folder of the parts of the output
    scratch: Path = Path()  # the folder of those of the rejects

    def part(self, number: int) -> Path:
        """Return the file of the scored rows of a slice."""
        return self.parts / f"part-{number:08}.{self.form}"

    def rejects_part(self, number: int) -> Path:
        """Return the file of the rejects of a slice."""
        return self.scratch / f"rejects-{number}"

    @property
    def converts_text(self) -> bool:
        """Whether values that were read as text are written with the types of the signature."""
        return self.csv and self.form != CSV

    @functools.cached_property
    def read(self) -> list[str]:
        """The columns of the input that are read."""
        wanted = {*self.keep, *(column.name for column in self.columns)}
        return [name for name in self.schema.names if name in wanted or self.rejects_form]

    @functools.cached_property
    def rejects_schema(self) -> pa.Schema:
        """The columns of the rejects."""
        return self.schema.append(pa.field(self.prefix + REASON, pa.string()))

    def output_schema(self, predictions: pa.Schema) -> pa.Schema:
        """Return the columns of the output, given those of the predictions."""
        types = {c.name: arrow_type(c) for c in self.columns} if self.converts_text else {}
        kept = [self.schema.field(name) for name in self.keep]
        added = [*predictions]
        added.insert(2, pa.field("model_version", pa.int32()))
        metadata = dict(self.schema.metadata or {})
        if len(kept) < len(self.schema):
            metadata.pop(b"pandas", None)  # it names all columns
        return pa.schema(
            [
                *(field.with_type(types.get(field.name) or field.type) for field in kept),
                *(field.with_name(self.prefix + field.name) for field in added),
            ],
            metadata,
        )


@dataclass
class SliceResult:
    """How many rows of a slice, or of all, there are."""

    rows: int = 0  # that were scored
    rejected: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # rows by class

    def add(self, other: SliceResult) -> None:
        """Add the rows of another slice."""
        self.rows += other.rows
        self.rejected += other.rejected
        self.counts.update(other.counts)
