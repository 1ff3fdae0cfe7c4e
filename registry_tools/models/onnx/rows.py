"""The rows in an ONNX graph between two steps of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry_tools.errors import UnsupportedOperation
from registry_tools.models.onnx.graph import Graph


class NotConvertible(UnsupportedOperation):
    """A part of a model has no equivalent in ONNX; the text names the part."""


@dataclass(frozen=True)
class Texts:
    """A column of text, shape (rows, 1). The text for a missing value is empty."""

    value: str
    missing: Any = np.nan  # the value that the model gets for a missing one


@dataclass(frozen=True)
class Numbers:
    """Columns of numbers, float64 of shape (rows, width); NaN is a missing value."""

    value: str
    width: int


@dataclass(frozen=True)
class Rows:
    """Columns of numbers and texts, in order; `names` are those of a table, else empty."""

    parts: tuple[Numbers | Texts, ...]
    names: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """The number of columns."""
        return sum(part.width if isinstance(part, Numbers) else 1 for part in self.parts)

    def numbers(self, graph: Graph) -> str:
        """Return all columns as one tensor of numbers, shape (rows, width)."""
        for part in self.parts:
            if isinstance(part, Texts):
                raise NotConvertible("it takes text where ONNX needs numbers")
        return graph.join([part.value for part in self.parts])

    def texts(self) -> tuple[Texts, ...]:
        """Return all columns as columns of text."""
        for part in self.parts:
            if isinstance(part, Numbers):
                raise NotConvertible("it takes numbers as text")
        return tuple(part for part in self.parts if isinstance(part, Texts))

    def take(self, graph: Graph, columns: Any) -> Rows:
        """Return columns, given by names or positions, as scikit-learn's ColumnTransformer takes them."""
        places = self._positions(columns)
        parts: list[Numbers | Texts] = []
        if len(self.parts) == 1 and isinstance(self.parts[0], Numbers):
            part = self.parts[0]
            if places.tolist() != list(range(part.width)):
                part = Numbers(graph.columns(part.value, places), len(places))
            parts.append(part)
        else:
            single = self._single_columns(graph)
            parts = [single[place] for place in places]
        names = tuple(self.names[place] for place in places) if self.names else ()
        return Rows(tuple(parts), names)

    def _positions(self, columns: Any) -> npt.NDArray[np.int64]:
        listed = [columns] if isinstance(columns, (str, int)) else columns
        numbered = pd.Series(np.arange(self.width), index=self.names or None)
        if isinstance(listed, slice):
            by_name = isinstance(listed.start, str) or isinstance(listed.stop, str)
        else:
            by_name = len(listed) > 0 and isinstance(listed[0], str)
        find = numbered.loc if by_name else numbered.iloc
        return np.atleast_1d(np.asarray(find[listed], dtype=np.int64))

    def _single_columns(self, graph: Graph) -> list[Numbers | Texts]:
        single: list[Numbers | Texts] = []
        for part in self.parts:
            if isinstance(part, Numbers) and part.width > 1:
                single += [Numbers(graph.columns(part.value, [k]), 1) for k in range(part.width)]
            else:
                single.append(part)
        return single


def of_numbers(value: str, width: int) -> Rows:
    """Return rows of one tensor of numbers."""
    return Rows((Numbers(value, width),))


@dataclass(frozen=True)
class Prediction:
    """The predictions of a model in an ONNX graph."""

    value: str  # the position of the class, int64, or the number, float64; shape (rows,)
    classes: npt.NDArray[Any] | None = None  # None for a regressor
    probabilities: str | None = None  # shape (rows, classes)
    decision: str | None = None  # scores, shape (rows, classes) or, of two classes, (rows, 1)


def best_class(graph: Graph, scores: str) -> str:
    """Add the position of the largest score, the first of equal ones; shape (rows,)."""
    return graph.add("ArgMax", scores, axis=1, keepdims=0)


def of_margins(graph: Graph, margins: str, classes: npt.NDArray[Any]) -> Prediction:
    """Add the predictions of a model of log-odds.

    Parameters
    ----------
    graph, margins
        The graph, and the log-odds, shape (rows, classes) or, of two classes, (rows, 1).
    classes
        The classes of the model.
    """
    if len(classes) > 2:
        probabilities = graph.add("Softmax", margins, axis=1)
        return Prediction(best_class(graph, margins), classes, probabilities, margins)
    positive = graph.add("Sigmoid", margins)
    probabilities = graph.join([graph.add("Sub", graph.constant(1.0), positive), positive])
    above = graph.add("Greater", margins, graph.constant(0.0))
    return Prediction(graph.flat(graph.cast(above, np.int64)), classes, probabilities, margins)
