"""The job that the processes of a scoring receive, and the counts that they return; importing it is cheap."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from registry_tools.batch.request import ScoringRequest
from registry_tools.data.arrow_coercion import arrow_type
from registry_tools.data.schema import Column, quoted_names
from registry_tools.errors import InputError
from registry_tools.files.csv_rows import CsvFormat
from registry_tools.files.part_files import CSV
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models.trust_policy import TrustPolicy

REASON = "reason"


@dataclass(frozen=True)
class ScoringJob:
    """What every process has to know of a job."""

    request: ScoringRequest
    artifact: ModelArtifact
    policy: TrustPolicy
    columns: tuple[Column, ...]  # of the signature
    schema: pa.Schema  # of the input
    csv: CsvFormat | None  # of the input; None if it is Parquet
    keep: list[str]  # the columns of the input that are in the output
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
        return self.csv is not None and self.form != CSV

    @functools.cached_property
    def read(self) -> list[str]:
        """The columns of the input that are read."""
        wanted = {*self.keep, *(column.name for column in self.columns)}
        return [name for name in self.schema.names if name in wanted or self.rejects_form]

    @functools.cached_property
    def rejects_schema(self) -> pa.Schema:
        """The columns of the rejects."""
        return self.schema.append(pa.field(self.request.prefix + REASON, pa.string()))

    def output_schema(self, predictions: pa.Schema) -> pa.Schema:
        """Return the columns of the output, given those of the predictions."""
        types = {c.name: arrow_type(c) for c in self.columns} if self.converts_text else {}
        kept = [self.schema.field(name) for name in self.keep]
        fields = [field.with_type(types.get(field.name) or field.type) for field in kept]
        fields += [field.with_name(self.request.prefix + field.name) for field in predictions]
        metadata = dict(self.schema.metadata or {})
        if len(kept) < len(self.schema):
            metadata.pop(b"pandas", None)  # it names all columns
        return pa.schema(fields, metadata)


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


def kept_columns(request: ScoringRequest, names: list[str], where: str) -> list[str]:
    """Return the columns of the input that are in the output.

    Raises
    ------
    InputError
        If `where` lacks one that is wanted.
    """
    unknown = [name for name in request.keep or () if name not in names]
    if unknown:
        raise InputError(f"{where}: no column {quoted_names(unknown)} to keep; it has {quoted_names(names)}")
    return [name for name in names if request.keep is None or name in request.keep]


def refuse_existing_columns(names: list[str], added: list[str], where: str) -> None:
    """Refuse columns that the output adds and already has.

    Raises
    ------
    InputError
        Names them and `where` they are.
    """
    taken = [name for name in added if name in names]
    if taken:
        raise InputError(
            f"{where}: it already has the column{'s' * (len(taken) > 1)} {quoted_names(taken)}, which the "
            "output adds: rename them with --prefix, or leave yours out with --keep"
        )
