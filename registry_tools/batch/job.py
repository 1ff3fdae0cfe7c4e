"""A scoring job: the request, the job that its processes receive, its counts and its summary."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from registry_tools.data.arrow_coercion import arrow_type, check_schema
from registry_tools.data.schema import Column, TensorSchema, columns_of_tensor, quoted_names
from registry_tools.errors import InputError
from registry_tools.files.csv_rows import CsvFormat
from registry_tools.files.part_files import CSV, check_csv_columns
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.refs import ModelRef


@dataclass(frozen=True)
class ScoringRequest:
    """The options of a scoring job, as a user gives them."""

    ref: ModelRef
    input: str  # a file, a folder of files, or a URL
    output: str  # a path, or an address that the executors of Spark reach
    folder: bool = False  # whether the output is a folder of part files
    rejects: str | None = None  # for the rows that cannot be scored; None fails on the first
    proba: bool = False
    keep: tuple[str, ...] | None = None  # the input columns in the output; None keeps all
    prefix: str = ""  # of the names of the added columns
    csv: CsvFormat = field(default_factory=CsvFormat)  # of the input, if it is CSV
    workers: int | None = None  # None takes all cores
    master: str | None = None  # of Spark, which scores then
    trust_policy: TrustPolicy = field(default_factory=TrustPolicy)  # what the version may contain


@dataclass(frozen=True)
class ScoringSummary:
    """The result of a scoring job."""

    name: str
    version: int
    stage: str | None
    input: str
    output: str
    rows: int  # that were scored
    rejected: int
    rejects: str | None
    seconds: float  # from the first row read to the output in its place
    rows_per_second: float
    counts: Mapping[str, int]  # rows by class; empty where numbers are predicted
    experiment: str
    run_id: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class RowCounts:
    """The numbers of rows of a batch, a slice or a job; they can be added."""

    rows: int = 0  # that were scored
    rejected: int = 0
    by_class: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: RowCounts) -> RowCounts:
        return RowCounts(
            self.rows + other.rows, self.rejected + other.rejected, self.by_class + other.by_class
        )


def taken_columns(
    inputs: tuple[Column, ...] | TensorSchema, schema: pa.Schema, where: str
) -> tuple[Column, ...]:
    """Return the columns that a model takes from an input: those of its signature, or all by position.

    Raises
    ------
    InputError, UnsupportedOperation
        If the model takes a tensor that the input does not fit.
    """
    return columns_of_tensor(inputs, schema.names, where) if isinstance(inputs, TensorSchema) else inputs


@dataclass(frozen=True)
class ScoringJob:
    """The description of a job that each of its processes receives.

    Raises
    ------
    InputError
        If the columns of the input do not fit the signature, the request or the files to write.
    """

    request: ScoringRequest
    artifact: ModelArtifact
    columns: tuple[Column, ...]  # that the model takes
    where: str  # the input, as errors name it
    schema: pa.Schema  # of the input
    csv: CsvFormat | None  # of the input; None if it is Parquet
    form: str  # of the parts of the output
    rejects_form: str | None  # of the parts of the rejects; None fails on the first
    options: dict[str, Any] = field(default_factory=dict)  # of Parquet
    parts: Path = Path()  # the folder of the parts of the output
    scratch: Path = Path()  # the folder of those of the rejects

    def __post_init__(self) -> None:
        names = self.schema.names
        check_schema(self.schema, self.columns, self.where, self.csv is not None)
        if unknown := [name for name in self.request.keep or () if name not in names]:
            raise InputError(
                f"{self.where}: no column {quoted_names(unknown)} to keep; it has {quoted_names(names)}"
            )
        if self.form == CSV:
            check_csv_columns(self.request.output, self._fields(self.keep), self.where)
        if self.rejects_form == CSV:
            check_csv_columns(str(self.request.rejects), self.schema, self.where)
        if self.rejects_form is not None:
            self._refuse_existing(names, self.rejects_schema.names[len(names) :])

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
    def keep(self) -> list[str]:
        """The columns of the input that are in the output."""
        wanted = self.request.keep
        return [name for name in self.schema.names if wanted is None or name in wanted]

    @functools.cached_property
    def read(self) -> list[str]:
        """The columns of the input that are read."""
        wanted = {*self.keep, *(column.name for column in self.columns)}
        return [name for name in self.schema.names if name in wanted or self.rejects_form]

    @functools.cached_property
    def rejects_schema(self) -> pa.Schema:
        """The columns of the rejects."""
        return self.schema.append(pa.field(f"{self.request.prefix}reason", pa.string()))

    def output_schema(self, predictions: pa.Schema) -> pa.Schema:
        """Return the columns of the output, given those of the predictions.

        Raises
        ------
        InputError
            If a column that is kept has the name of one that is added.
        """
        types = {c.name: arrow_type(c) for c in self.columns} if self.converts_text else {}
        kept = [each.with_type(types.get(each.name) or each.type) for each in self._fields(self.keep)]
        added = [each.with_name(self.request.prefix + each.name) for each in predictions]
        self._refuse_existing(self.keep, [each.name for each in added])
        metadata = dict(self.schema.metadata or {})
        if len(kept) < len(self.schema):
            metadata.pop(b"pandas", None)  # it names all columns
        return pa.schema([*kept, *added], metadata)

    def _fields(self, names: list[str]) -> list[pa.Field]:
        return [self.schema.field(name) for name in names]

    def _refuse_existing(self, names: list[str], added: list[str]) -> None:
        if taken := [name for name in added if name in names]:
            raise InputError(
                f"{self.where}: it already has the column{'s' * (len(taken) > 1)} {quoted_names(taken)}, "
                "which the output adds: rename them with --prefix, or leave yours out with --keep"
            )
