"""Production data: rows with features, and the version, prediction and request of each row.

The columns come from the server's prediction log or from a scored file; other tables have features
only. `ProductionData.window` selects the rows of one version for the analysis.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DataError
from pipeline.monitoring.data.window import CurrentWindow, arrow_errors
from registry_tools.data.schema import quoted_names
from registry_tools.task import CLASSIFICATION

# Columns that the prediction log and a scored file add: version, prediction, name of the prediction.
_LOG = ("_version", "_prediction", "_prediction_name")
_SCORED = ("model_version", "prediction", "prediction_name")
REQUEST, ROW, AT, MODEL = ("_request_id", "request_id"), ("_row", "row"), "_at", "_model"
PROBABILITIES = "_probabilities"
PREDICTED = (*_LOG[1:], *_SCORED[1:])


@dataclass(frozen=True)
class ProductionData:
    """Production data of all versions, one table for each file."""

    tables: tuple[pa.Table, ...]
    notes: tuple[str, ...] = ()  # which rows and files were left out
    features: frozenset[str] = frozenset()  # features of the model, even if the log has such a column

    def by_version(self, default: int) -> dict[int, ProductionData]:
        """Return the rows by version, first those of `default`, which also gets the rows without a version.

        Raises
        ------
        DataError
            If a version is not a whole number.
        """
        found: dict[int, list[pa.Table]] = {default: []}
        for table in self.tables:
            names = _own_columns(table, self.features)
            versions = table.column(names[0]) if names is not None else pa.nulls(table.num_rows)
            different = pc.unique(versions).to_pylist()
            for version in different:
                is_missing = version is None or version != version
                same = pc.is_null(versions, nan_is_null=True) if is_missing else pc.equal(versions, version)
                part = table.filter(same) if len(different) > 1 else table  # filtering copies the table
                found.setdefault(default if is_missing else _version_number(version), []).append(part)
        return {version: replace(self, tables=tuple(parts), notes=()) for version, parts in found.items()}

    @property
    def count(self) -> int:
        """The number of rows."""
        return sum(table.num_rows for table in self.tables)

    def window(
        self, features: Sequence[str], task: str = CLASSIFICATION, probabilities: bool = False
    ) -> CurrentWindow:
        """Return the rows with the given features, their predictions and their request ids.

        The predictions of a classification become class names, those of a regression numbers. With
        `probabilities`, the window has those that were read.

        Raises
        ------
        DataError
            If a feature is missing, or a column has incompatible types in two tables.
        """
        if not self.count:
            return CurrentWindow(pa.table({name: pa.array([], pa.null()) for name in features}), None, None)
        parts = [table for table in self.tables if table.num_rows]
        with arrow_errors("the files of the log have incompatible columns"):
            rows = pa.concat_tables(parts, promote_options="permissive")
        is_scored = probabilities and PROBABILITIES in rows.column_names
        return CurrentWindow(
            _select_features(rows, features),
            _predictions(rows, self.features, task),
            _request_keys(rows, self.features),
            rows.column(PROBABILITIES) if is_scored else None,
        )


def first_known(names: Sequence[str], there: Collection[str]) -> str | None:
    """Return the first of the names of a column that a table has; None if it has none of them."""
    return next((name for name in names if name in there), None)


def _version_number(version: object) -> int:
    try:
        return int(str(version).removesuffix(".0"))
    except ValueError:
        raise DataError(f"the rows have the version {version!r}, which is not a number") from None


def _own_columns(table: pa.Table, features: frozenset[str]) -> tuple[str, str, str] | None:
    """Return the names of the columns with version, prediction and class name; None without predictions."""
    for names in (_LOG, _SCORED):
        if {*names[:2]} <= {*table.column_names} - features:
            return names
    return None


def _select_features(table: pa.Table, features: Sequence[str]) -> pa.Table:
    """Return the columns of the features.

    The log stores a feature whose name is one of the log's own columns as `feature NAME`.
    """
    there = {
        feature: table.column(name)
        for feature in features
        for name in (feature, f"feature {feature}")
        if name in table.column_names
    }
    lacking = [feature for feature in features if feature not in there]
    if lacking:
        own = {*there, *_LOG, *_SCORED, *REQUEST, *ROW, AT, MODEL}
        unknown = [name for name in table.column_names if name not in own]
        has = f"; they have {quoted_names(unknown)} instead" if unknown else ""
        raise DataError(
            f"the rows have no column{'s' * (len(lacking) > 1)} {quoted_names(lacking)}, which "
            f"the version needs{has}: was it renamed?"
        )
    return pa.table(there)


def _predictions(table: pa.Table, features: frozenset[str], task: str) -> pa.ChunkedArray | None:
    """Return the predicted class names, or the predictions of a regression as float64.

    A predicted class without a name is returned as it is.

    Raises
    ------
    DataError
        If a prediction of a regression is not a number.
    """
    names = _own_columns(table, features)
    if names is None:
        return None
    predicted = table.column(names[1])
    if task == CLASSIFICATION:
        known = [_as_names(table.column(names[2]))] if names[2] in table.column_names else []
        return pc.coalesce(*known, _as_names(predicted))
    with arrow_errors(f"column {names[1]!r}: the version predicts numbers"):
        return predicted.cast(pa.float64(), safe=False)


def _as_names(classes: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return predictions as class names, as a training writes them.

    Raises
    ------
    DataError
        If a prediction is a list or an object.
    """
    if pa.types.is_nested(classes.type):
        raise DataError(f"the predictions are of type {classes.type}, not classes")
    if pa.types.is_boolean(classes.type):
        return pc.if_else(classes, "True", "False")
    if pa.types.is_floating(classes.type):
        is_whole = pc.all(pc.equal(pc.floor(classes), classes)).as_py()
        classes = classes.cast(pa.int64()) if is_whole else classes
    return classes.cast(pa.string())


def _request_keys(table: pa.Table, features: frozenset[str]) -> pa.Table | None:
    """Return the request id of each row, and its position in the request; None without request ids."""
    there = {*table.column_names} - features
    request, row = first_known(REQUEST, there), first_known(ROW, there)
    if request is None:
        return None
    places = table.column(row) if row is not None else pa.array(np.zeros(len(table), np.int64))
    with arrow_errors(f"columns {request!r} and {row!r}"):
        return pa.table({"request": table.column(request).cast(pa.string()), "row": places.cast(pa.int64())})
