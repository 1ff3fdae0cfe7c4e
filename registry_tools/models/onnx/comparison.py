"""The result of a comparison between a version and its ONNX file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class OnnxCheck:
    """The differences between a model and its ONNX file."""

    holdout_rows: int
    boundary_rows: int  # 0 for a regressor
    differing: int  # rows whose labels differ or, of a regressor, whose numbers differ by more than rounding
    gap: float  # the largest difference between probabilities or, of a regressor, numbers
    tolerance: float  # the largest allowed `gap`
    bytes: int

    @property
    def fault(self) -> str | None:
        """The reason why the file must not be used; None if there is none."""
        rows = self.holdout_rows + self.boundary_rows
        if self.differing:
            return (
                f"{self.differing} of {rows} rows get another prediction from the ONNX file: {self.summary}"
            )
        if not self.gap <= self.tolerance:
            allowed = f"{self.tolerance:.2g} is allowed"
            return f"a probability of the ONNX file differs by {self.gap:.2g}, and {allowed}"
        return None

    @property
    def summary(self) -> str:
        """The rows that were compared, as text."""
        boundary = f" and {self.boundary_rows} boundary rows" if self.boundary_rows else ""
        return f"{self.holdout_rows} held-out rows{boundary}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)
