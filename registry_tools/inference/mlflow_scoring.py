"""Requests that MLflow's own code decodes and predicts, in this process.

Every request that `decoder` leaves goes this way, so that predictions and refusals are MLflow's by
construction. MLflow is imported when the first such request comes: it takes a second, and the workers
of `score` never need it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pandas as pd
import yaml

from registry_tools.data.prediction_shape import check_prediction_count, flatten_one_output
from registry_tools.errors import InputError, UnsupportedOperation
from registry_tools.inference import input_limits
from registry_tools.inference.decoder import METHODS, parse_json
from registry_tools.inference.input_diagnostics import explain_refusal, refuse_misspelled_columns
from registry_tools.inference.input_limits import InputLimits
from registry_tools.models.loaded_model import LoadedModel

JSON = "application/json"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"

if TYPE_CHECKING:
    from mlflow.models import Model
    from mlflow.pyfunc import PyFuncModel
    from mlflow.pyfunc.scoring_server import ParsedJsonInput

_log = logging.getLogger(__name__)


class InvalidParameterValue(InputError):
    """A request that does not fit the signature: MLflow's error code `INVALID_PARAMETER_VALUE`."""


@dataclass(frozen=True)
class ScoredRequest:
    """The rows that MLflow decoded from a request, and their predictions."""

    reply: bytes  # JSON
    rows: Any  # the input of the model; mostly a DataFrame
    count: int  # of the predictions
    is_per_row: bool  # whether there is a prediction for each row
    is_wrapped: bool  # whether the reply is {"predictions": …}; not for language models
    is_column: bool = False  # whether the model returned a Series, or a table with one column

    @functools.cached_property
    def predictions(self) -> Any:
        """The predictions in the reply; mostly a list."""
        content = json.loads(self.reply)
        found = content["predictions"] if self.is_wrapped else content
        # MLflow writes each value of a column as an object, such as {"0": 1.5}.
        return [*itertools.chain.from_iterable(row.values() for row in found)] if self.is_column else found

    @property
    def table(self) -> Any:
        """The rows as a DataFrame, where they are a table at all."""
        with contextlib.suppress(ValueError, TypeError):
            return pd.DataFrame(self.rows) if isinstance(self.rows, (dict, list)) else self.rows
        return self.rows


class MlflowScoring:
    """One version behind MLflow's scoring protocol."""

    def __init__(self, folder: Path, model: LoadedModel) -> None:
        self._folder = folder
        self._model = model
        self._is_pyfunc = type(model.estimator).__module__ == "mlflow.pyfunc"

    @functools.cached_property
    def _metadata(self) -> Model:
        from mlflow.models import Model

        return self._model.estimator.metadata if self._is_pyfunc else Model.load(str(self._folder))

    @functools.cached_property
    def declared_params(self) -> frozenset[str]:
        """The names of the parameters in the model's signature."""
        content = yaml.safe_load((self._folder / "MLmodel").read_text(encoding="utf-8"))
        params = json.loads((content.get("signature") or {}).get("params") or "null")
        return frozenset(param["name"] for param in params or ())

    def score_request(
        self,
        content: Any,
        content_type: str,
        method: str = "predict",
        limits: InputLimits = InputLimits(),  # noqa: B008 - frozen
    ) -> ScoredRequest:
        """Score a request as MLflow does.

        Parameters
        ----------
        content
            The body; for JSON also its parsed content.
        content_type
            One of MLflow's three.
        method
            `predict` or `predict_proba`; the params of a JSON body may name another.
        limits
            The limits of the request.

        Raises
        ------
        InputError
            If MLflow refuses the request; says why, and names no value.
        UnsupportedOperation
            If the model has no such method.
        VerificationError
            If a scikit-learn model returns more or fewer predictions than there are rows.
        """
        from mlflow.exceptions import MlflowException

        if content_type == JSON:
            content = parse_json(content, like_mlflow=True) if isinstance(content, bytes) else content
            method = self._take_method(content, method)
        pyfunc = self._pyfunc(method)
        rows = None
        try:
            decoded = self._decode(content, content_type, limits)
            rows, count = decoded.data, _count(decoded.data)
            input_limits.check_row_count(count, limits)
            refuse_misspelled_columns(rows, self._model.info.signature)
            predictions = pyfunc.predict(rows, params=decoded.params)
        except InputError:
            raise
        except Exception as error:
            # MLflow documents no errors, and a body may be wrong in any way. As in MLflow, any error that
            # rows cause means that the rows do not fit.
            if rows is not None and not isinstance(error, (MlflowException, *self._model.input_errors)):
                _log.warning("%s raised %s on a request", self._model.info.name, type(error).__name__)
            raise self._refusal(rows if content_type == PARQUET else content, content_type, error) from error
        return self._encode(decoded, predictions, count, method)

    def predict(self, rows: Any, method: str) -> list[Any]:
        """Return the predictions for rows that `score_request` decoded before, one a row."""
        found = flatten_one_output(np.asarray(self._pyfunc(method).predict(rows))).tolist()
        check_prediction_count(len(found) if isinstance(found, list) else 0, len(rows), method)
        return found

    def _take_method(self, content: Any, method: str) -> str:
        """Remove our parameter `method` from a request, check the other params, and return the method."""
        from mlflow.pyfunc.utils.serving_data_parser import is_unified_llm_input

        if not isinstance(content, dict) or is_unified_llm_input(content):  # type: ignore[no-untyped-call]
            return method
        params = content.get("params") or {}
        if not isinstance(params, dict):
            raise InvalidParameterValue("params is not a JSON object")
        if "method" not in self.declared_params:
            method = params.pop("method", method)
        if method not in METHODS:
            raise InputError(f"params: method is one of {', '.join(METHODS)}")
        unknown = sorted(params.keys() - self.declared_params)
        if unknown:
            raise InputError(f"params has an unknown key: {unknown[0][:50]!r}")
        return method

    def _decode(self, content: Any, content_type: str, limits: InputLimits) -> ParsedJsonInput:
        from mlflow.pyfunc import scoring_server

        schema = self._metadata.get_input_schema()  # type: ignore[no-untyped-call]
        if content_type == CSV:
            text = content.decode("utf-8")
            input_limits.check_csv(text, limits)
            table = scoring_server.parse_csv_input(io.StringIO(text), schema)  # type: ignore[no-untyped-call]
            return scoring_server.ParsedJsonInput(table, None, False)
        if content_type == PARQUET:
            columns = self._model.info.signature
            names = [column.name for column in columns] if columns is not None else None
            table = input_limits.read_parquet(content, names, limits)
            return scoring_server.ParsedJsonInput(table, None, False)
        if not isinstance(content, dict):
            raise TypeError("no JSON object")
        input_limits.check_json(content, limits)
        parsed: ParsedJsonInput = scoring_server._parse_json_data(content, self._metadata, schema)  # type: ignore[no-untyped-call]
        return parsed

    def _refusal(self, content: Any, content_type: str, error: Exception) -> InputError:
        is_invalid = getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE"
        kind = InvalidParameterValue if is_invalid else InputError
        return kind(explain_refusal(content, content_type, self._model.info))

    def _encode(
        self, decoded: ParsedJsonInput, predictions: Any, count: int | None, method: str
    ) -> ScoredRequest:
        from mlflow.utils.proto_json_utils import _get_jsonable_obj

        plain = _get_jsonable_obj(predictions)  # type: ignore[no-untyped-call]
        length = len(plain) if isinstance(plain, list) else None
        if not self._is_pyfunc and count is not None and length is not None:
            check_prediction_count(length, count, method)
        is_wrapped = not decoded.is_unified_llm_input
        return ScoredRequest(
            reply=encode_json({"predictions": plain} if is_wrapped else plain),
            rows=decoded.data,
            count=1 if length is None else length,
            is_per_row=length is not None and count in {None, length},
            is_wrapped=is_wrapped,
            is_column=isinstance(predictions, pd.Series)
            or (isinstance(predictions, pd.DataFrame) and predictions.shape[1] == 1),
        )

    def _pyfunc(self, method: str) -> PyFuncModel:
        from mlflow.pyfunc import PyFuncModel

        estimator = self._model.estimator
        if self._is_pyfunc and method == "predict":
            return estimator
        if self._is_pyfunc or not hasattr(estimator, method):
            kind = "this flavor" if self._is_pyfunc else type(estimator).__name__
            raise UnsupportedOperation(f"{kind} has no {method}: leave out the method")
        function = getattr(estimator, method)
        # MLflow would log the params of a request if the function took none.
        model = SimpleNamespace(predict=lambda rows, params=None: function(rows))
        return PyFuncModel(self._metadata, model)


def encode_json(content: Any) -> bytes:
    """Return JSON as MLflow writes it: NaN and infinity as such, and integers of any size."""
    try:
        encoded = orjson.dumps(content)
    except TypeError:
        encoded = b""
    # orjson writes null for NaN.
    if not encoded or b"null" in encoded:
        from mlflow.utils.proto_json_utils import NumpyEncoder

        return json.dumps(content, cls=NumpyEncoder).encode()
    return encoded


def _count(rows: Any) -> int | None:
    """Return the number of rows in the input of a model; None where it has none."""
    if isinstance(rows, dict):
        counts = {_count(tensor) if isinstance(tensor, np.ndarray) else None for tensor in rows.values()}
        return counts.pop() if len(counts) == 1 else None
    return len(rows) if isinstance(rows, (pd.DataFrame, list)) or np.ndim(rows) else None
