"""What was answered, as those see it who watch: the prediction log and the shadow."""

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
    """Requests that one call of a version answered.

    The three sequences are of one length, an entry a request: its rows (a matrix in the order of
    the signature, or whatever MLflow's reader made of a request, mostly a DataFrame), its answers
    (one a row), and its id.
    """

    predictor: Predictor
    method: str
    rows: Sequence[Matrix | Any]
    predictions: Sequence[Sequence[Any]]
    request_ids: Sequence[str]
    at: float = field(default_factory=time.time)  # seconds since 1970


class PredictionObserver(Protocol):
    """Is shown what was answered, on the path of the next answer: it must not wait for anything."""

    def observe(self, event: PredictionEvent) -> None:
        """Take it in, or drop it and count that."""


def notify_observers(event: PredictionEvent, observers: Sequence[PredictionObserver]) -> None:
    """Show it to all who watch; what is wrong with one of them is no fault of the answer."""
    for watcher in observers:
        try:
            watcher.observe(event)
        except Exception:  # noqa: BLE001 - the answer is given, and the next one is to come
            _log.exception("%s failed", type(watcher).__name__)
