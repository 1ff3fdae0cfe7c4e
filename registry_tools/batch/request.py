"""One scoring job as a user asks for it, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from registry_tools.refs import ModelRef


@dataclass(frozen=True)
class ScoringRequest:
    """The options of a scoring job."""

    ref: ModelRef
    input: str  # a file, a folder of files, or a URL
    output: str  # a path, or an address that the executors of Spark reach
    folder: bool = False  # whether the output is a folder of part files
    rejects: str | None = None  # for the rows that cannot be scored; None fails on the first
    proba: bool = False
    keep: tuple[str, ...] | None = None  # the input columns in the output; None keeps all
    prefix: str = ""  # of the names of the added columns
    separator: str = ","  # of a CSV
    encoding: str = "utf-8"  # of a CSV
    workers: int | None = None  # None takes all cores
    master: str | None = None  # of Spark, which scores then


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
