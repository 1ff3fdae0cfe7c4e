"""Calls of a predictor as observers see them: the prediction log and the shadow."""

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
    """One call of a predictor, with the requests that it served.

    The three sequences are of one length, an entry a request: its rows (a matrix in the order of
    the signature, or the table that MLflow parsed from a request, mostly a DataFrame), its
    predictions (one a row), and its id.
    """

    predictor: Predictor
    method: str
    rows: Sequence[Matrix | Any]
    predictions: Sequence[Sequence[Any]]
    request_ids: Sequence[str]
    at: float = field(default_factory=time.time)  # seconds since 1970


class PredictionObserver(Protocol):
    """Receives events on the path of the next request: it must not wait for anything."""

    def observe(self, event: PredictionEvent) -> None:
        """Process the event, or drop it and count that."""


def notify_observers(event: PredictionEvent, observers: Sequence[PredictionObserver]) -> None:
    """Pass an event to all observers; an error of an observer does not reach the request."""
    for observer in observers:
        try:
            observer.observe(event)
        except Exception:  # noqa: BLE001 - requests go on without this observer
            _log.exception("%s failed", type(observer).__name__)
