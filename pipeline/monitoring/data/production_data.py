"""Production data: rows with features, and the version, prediction and request of each row.

The columns come from the server's prediction log or from a scored file; other tables have features
only. `ProductionData.window` selects the rows of one version for the analysis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DataError
from pipeline.monitoring.data.window import CurrentWindow
from registry_tools.data.schema import quoted_names
from registry_tools.errors import first_line
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

    def by_version(self) -> dict[int | None, ProductionData]:
        """Return the rows by version; the key None has the rows without a version."""
        found: dict[int | None, list[pa.Table]] = {}
        for table in self.tables:
            for version, part in _split_by_version(table, self.features).items():
                found.setdefault(version, []).append(part)
        return {
            version: ProductionData(tuple(tables), (), self.features) for version, tables in found.items()
        }

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
        is_class = task == CLASSIFICATION
        read = _predicted_names if is_class else _predicted_numbers
        predictions = [read(part, self.features) for part in parts]
        keys = [_request_keys(part, self.features) for part in parts]
        known = [part for part in predictions if part is not None]
        joined = [part for part in keys if part is not None]
        return CurrentWindow(
            _concatenate([_select_features(part, features) for part in parts]),
            pa.chunked_array([c for p in known for c in p.chunks], pa.string() if is_class else pa.float64())
            if len(known) == len(parts)
            else None,
            pa.concat_tables(joined) if len(joined) == len(parts) else None,
            pa.chunked_array([c for p in parts for c in p.column(PROBABILITIES).chunks])
            if probabilities and all(PROBABILITIES in part.column_names for part in parts)
            else None,
        )


def _split_by_version(table: pa.Table, features: frozenset[str]) -> dict[int | None, pa.Table]:
    names = _own_columns(table, features)
    if names is None or not table.num_rows:
        return {None: table}
    versions = table.column(names[0])
    different = pc.unique(versions).to_pylist()
    if len(different) == 1:
        return {_version_number(different[0]): table}
    found = {}
    for version in different:
        same = pc.is_null(versions, nan_is_null=True)
        if _version_number(version) is not None:
            same = pc.equal(versions, version)
        found[_version_number(version)] = table.filter(same)
    return found


def _version_number(version: object) -> int | None:
    """Return the number of a version; None for a missing value.

    Raises
    ------
    DataError
        If the value is not a whole number.
    """
    if version is None or version != version:
        return None
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
    there: dict[str, pa.ChunkedArray] = {}
    for feature in features:
        name = f"feature {feature}"
        name = name if name in table.column_names else feature
        if name in table.column_names:
            there[feature] = table.column(name)
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


def _concatenate(tables: list[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"the files of the log have incompatible columns: {first_line(error)}") from error


def _predicted_names(table: pa.Table, features: frozenset[str]) -> pa.ChunkedArray | None:
    """Return the predicted class names; a prediction without a name is returned as it is."""
    names = _own_columns(table, features)
    if names is None:
        return None
    codes = _as_names(table.column(names[1]))
    if names[2] not in table.column_names:
        return codes
    return pc.coalesce(_as_names(table.column(names[2])), codes)


def _predicted_numbers(table: pa.Table, features: frozenset[str]) -> pa.ChunkedArray | None:
    """Return the predictions of a regression as float64.

    Raises
    ------
    DataError
        If a prediction is not a number.
    """
    names = _own_columns(table, features)
    if names is None:
        return None
    try:
        return table.column(names[1]).cast(pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise DataError(f"column {names[1]!r}: the version predicts numbers: {first_line(error)}") from error


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
    request = next((name for name in REQUEST if name in there), None)
    if request is None:
        return None
    row = next((name for name in ROW if name in there), None)
    places = table.column(row) if row is not None else pa.array(np.zeros(len(table), np.int64))
    try:
        return pa.table({"request": table.column(request).cast(pa.string()), "row": places.cast(pa.int64())})
    except pa.ArrowException as error:
        raise DataError(f"columns {request!r} and {row!r}: {first_line(error)}") from error
