"""Prediction events, which the prediction log and the shadow observe."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from registry_tools.inference.decoder import Matrix

if TYPE_CHECKING:
    from registry_tools.inference.predictor import Predictor


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictionEvent:
    """One call of a predictor, with its requests.

    The three sequences have one entry for each request. `rows` are a matrix in the order of the
    signature, shape (rows, columns), or the table that MLflow parsed, usually a DataFrame. `predictions`
    have one entry for each row. `request_ids` are the ids.
    """

    predictor: Predictor
    method: str
    rows: Sequence[Matrix | Any]
    predictions: Sequence[Sequence[Any]]
    request_ids: Sequence[str]
    at: float = field(default_factory=time.time)  # seconds since 1970

    @property
    def row_count(self) -> int:
        """The number of rows of all requests."""
        return sum(map(len, self.predictions))


class PredictionObserver(Protocol):
    """Receives events on the event loop, where the next request waits, so it must not block."""

    def observe(self, event: PredictionEvent) -> None:
        """Process the event, or drop and count it."""


def notify_observers(event: PredictionEvent, observers: Sequence[PredictionObserver]) -> None:
    """Pass an event to all observers; their errors do not affect the request."""
    for observer in observers:
        try:
            observer.observe(event)
        except Exception:  # noqa: BLE001 - requests continue without this observer
            _log.exception("%s failed", type(observer).__name__)
