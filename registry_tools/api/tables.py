"""The tables that the public functions return: registered models, versions and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, overload

from registry_tools.mlflow_store.registered_models import RegisteredModelInfo
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.promotion.event import Event

if TYPE_CHECKING:
    import pandas as pd


class _Row(Protocol):
    def as_dict(self) -> dict[str, Any]: ...


RowType = TypeVar("RowType", bound=_Row)
_WHOLE_NUMBERS = ("version", "previous_version", "sequence")
_TIMES = ("at", "created_at", "last_event.at")


@dataclass(frozen=True)
class RegisteredVersion(VersionInfo):
    """One version of a registered model, with the newest event on it."""

    last_event: Event | None = None

    @property
    def verdict(self) -> dict[str, Any] | None:
        """The verdict of the last event, `passed` and `gates`; None if no gates were evaluated."""
        if self.last_event is None or not self.last_event.gates:
            return None
        gates = list(self.last_event.gates)
        return {"passed": all(gate["passed"] for gate in gates), "gates": gates}

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON, which has no NaN: such a metric is None."""
        event = self.last_event.as_dict() if self.last_event is not None else None
        return super().as_dict() | {"last_event": event, "verdict": self.verdict}


@dataclass(frozen=True)
class Table(Sequence[RowType], Generic[RowType]):
    """A sequence of rows, which `to_pandas` returns as a DataFrame."""

    rows: tuple[RowType, ...]
    columns: ClassVar[tuple[str, ...]] = ()  # the first ones, also of an empty table

    @overload
    def __getitem__(self, index: int) -> RowType: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[RowType, ...]: ...
    def __getitem__(self, index: int | slice) -> RowType | tuple[RowType, ...]:
        """Return one row, or a tuple of rows."""
        return self.rows[index]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return vars(self) | {"rows": [row.as_dict() for row in self.rows]}

    def to_pandas(self) -> pd.DataFrame:
        """Return a DataFrame with one line a row.

        A mapping becomes a column for each key, such as `metrics.accuracy`. Times are UTC, and
        version numbers may be missing.
        """
        import pandas as pd

        frame = pd.json_normalize([row.as_dict() for row in self.rows])
        others = sorted({*map(str, frame)} - {*self.columns, "last_event", "verdict"})
        frame = frame.reindex(columns=[*self.columns, *others])
        for name in frame:
            if name in _TIMES:
                frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
            elif name in _WHOLE_NUMBERS or name.startswith("stages."):
                frame[name] = frame[name].astype("Int64")
        return frame


@dataclass(frozen=True)
class ModelList(Table[RegisteredModelInfo]):
    """The registered models, by name."""

    columns = ("name", "description")


@dataclass(frozen=True)
class VersionList(Table[RegisteredVersion]):
    """The versions of one registered model, newest first."""

    columns = ("name", "version", "stages", "run_id", "digest", "created_at", "description")


@dataclass(frozen=True)
class History(Table[Event]):
    """The events on the stages of one registered model, newest first."""

    name: str = ""
    stages: Mapping[str, int] = field(default_factory=dict)  # the version that each one holds now
    inconsistencies: tuple[str, ...] = ()  # a line for each stage that another tool moved

    columns = (
        *("at", "action", "outcome", "stage", "version", "previous_version", "actor", "reason"),
        *("forced", "external", "gates", "digest", "failure", "sequence", "run_id"),
    )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return super().as_dict() | {
            "stages": dict(self.stages),
            "inconsistencies": list(self.inconsistencies),
        }
