"""Requests that MLflow's own scoring server parses and scores, in process.

Every request but the plain ones goes this way, so that predictions and errors are MLflow's by
construction. It imports MLflow and pandas when the first such request comes.
"""

from __future__ import annotations

import io
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from registry_tools.errors import InputError, UnsupportedOperation
from registry_tools.inference.input_diagnostics import explain_refusal, refuse_misspelled_columns
from registry_tools.models.loaded_model import LoadedModel
from registry_tools.models.prediction_shape import check_prediction_count

PARQUET = "application/vnd.apache.parquet"

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel


@dataclass(frozen=True)
class ScoredRequest:
    """The rows that MLflow parsed from a request, and their predictions."""

    reply: bytes  # JSON, `{"predictions": …}`
    rows: Any  # the input of the model; mostly a DataFrame
    predictions: Any  # as in the JSON; mostly a list, one a row

    @property
    def table(self) -> Any:
        """The rows as a DataFrame, where they are a table at all."""
        import pandas as pd

        if isinstance(self.rows, (dict, list)):
            try:
                return pd.DataFrame(self.rows)
            except (ValueError, TypeError):
                return self.rows
        return self.rows

    @property
    def count(self) -> int:
        """How many rows there were."""
        return len(self.predictions) if isinstance(self.predictions, list) else 1


class MlflowScoring:
    """One version behind MLflow's scoring protocol."""

    def __init__(self, folder: Path, model: LoadedModel) -> None:
        self._folder = folder
        self._model = model
        self._pyfuncs: dict[str, PyFuncModel] = {}
        self._lock = threading.Lock()

    def score_request(
        self, content: Any, content_type: str, method: str = "predict", max_rows: int | None = None
    ) -> ScoredRequest:
        """Score a request as MLflow does.

        Parameters
        ----------
        content
            The body; for JSON, what it holds.
        content_type
            One of MLflow's three.
        method
            `predict` or `predict_proba`.
        max_rows
            The most rows that a request may have.

        Raises
        ------
        InputError
            If MLflow refuses the request; says why, and names no value.
        UnsupportedOperation
            If the model has no such method.
        VerificationError
            If the model returns more or fewer predictions than there are rows.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.pyfunc import scoring_server

        signature = self._model.info.signature
        # It warns of requests that are refused, once each.
        logging.getLogger("mlflow.pyfunc.scoring_server").setLevel(logging.ERROR)
        refuse_too_many(_rows_of(content, content_type), max_rows)
        refuse_misspelled_columns(content, content_type, signature)
        pyfunc = self._pyfunc(method)
        _refuse_unknown_params(content, pyfunc)
        recording = _RecordingModel(pyfunc, max_rows)
        try:
            schema = pyfunc.metadata.get_input_schema()  # type: ignore[no-untyped-call]
            reply = scoring_server.invocations(  # type: ignore[no-untyped-call]
                content, content_type, recording, schema
            )
        except (MlflowException, ValueError, TypeError, LookupError, RecursionError) as error:
            refuse_too_many(recording.count, max_rows)
            raise InputError(explain_refusal(content, content_type, signature)) from error
        body = reply.response.encode()
        predictions = orjson.loads(body).get("predictions")
        _check_count(predictions, recording.count, method)
        return ScoredRequest(body, recording.rows, predictions)

    def predict(self, rows: Any, method: str) -> list[Any]:
        """Return the predictions for rows that `score_request` parsed before, one a row."""
        found = np.asarray(self._pyfunc(method).predict(rows)).tolist()
        _check_count(found, _count(rows), method)
        return found

    @property
    def accepts_params(self) -> bool:
        """Whether the model may have parameters of its own beside its rows."""
        return type(self._model.estimator).__module__ == "mlflow.pyfunc"

    def predict_json(self, content: Any, method: str) -> list[Any]:
        """Return the predictions for JSON content, one a row."""
        found: list[Any] = self.score_request(content, "application/json", method).predictions
        return found

    def _pyfunc(self, method: str) -> PyFuncModel:
        with self._lock:
            if method not in self._pyfuncs:
                self._pyfuncs[method] = self._make_pyfunc(method)
            return self._pyfuncs[method]

    def _make_pyfunc(self, method: str) -> PyFuncModel:
        from mlflow.models import Model
        from mlflow.pyfunc import PyFuncModel

        estimator = self._model.estimator
        if isinstance(estimator, PyFuncModel):
            if method != "predict":
                raise UnsupportedOperation(f"this flavor has no {method}: leave out the method")
            return estimator
        if not hasattr(estimator, method):
            raise UnsupportedOperation(f"{type(estimator).__name__} has no {method}: leave out the method")
        return PyFuncModel(Model.load(str(self._folder)), _MethodModel(getattr(estimator, method)))


def _refuse_unknown_params(content: Any, pyfunc: PyFuncModel) -> None:
    params = content.get("params") if isinstance(content, dict) else None
    if not params:
        return
    schema = pyfunc.metadata.get_params_schema()  # type: ignore[no-untyped-call]
    unknown = sorted(set(params) - {param.name for param in schema.params} if schema else params)
    if unknown:
        raise InputError(f"params has an unknown key: {unknown[0][:50]!r}")


def refuse_too_many(rows: int | None, most: int | None) -> None:
    """Refuse more rows than are allowed.

    Raises
    ------
    InputError
        If there are more.
    """
    if rows is not None and most is not None and rows > most:
        raise InputError(f"{rows} rows in one request, {most} are allowed: send them in parts")


def _check_count(predictions: Any, rows: int | None, method: str) -> None:
    """Refuse a list of more or fewer predictions than rows; some flavors return one object for all."""
    if rows is not None and isinstance(predictions, list):
        check_prediction_count(len(predictions), rows, method)


def _count(rows: Any) -> int | None:
    """Return the number of rows in the input of a model; None where it has none."""
    if isinstance(rows, dict):
        counts = {len(tensor) if isinstance(tensor, np.ndarray) else None for tensor in rows.values()}
        return counts.pop() if len(counts) == 1 else None
    return len(rows) if hasattr(rows, "__len__") and not isinstance(rows, str) else None


def _rows_of(content: Any, content_type: str) -> int | None:
    """Return how many rows a Parquet file says it has: a small one may hold very many."""
    if content_type != PARQUET:
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(io.BytesIO(content)).num_rows)
    except (pa.ArrowException, OSError):
        return None


class _RecordingModel:
    """A model that keeps its input, for one request."""

    def __init__(self, pyfunc: PyFuncModel, max_rows: int | None) -> None:
        self.metadata = pyfunc.metadata
        self.rows: Any = None
        self.count: int | None = None
        self._pyfunc = pyfunc
        self._max_rows = max_rows

    def predict(self, data: Any, params: Any = None) -> Any:
        self.rows = data
        self.count = _count(data)
        refuse_too_many(self.count, self._max_rows)
        return self._pyfunc.predict(data, params=params)


class _MethodModel:
    """A method of an estimator that was verified and loaded already, as MLflow calls it."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def predict(self, data: Any, params: Any = None) -> Any:
        return self._method(data)
