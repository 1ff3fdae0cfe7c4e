"""Tables to train on: read, checked, drawn from and split, before any run begins."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.utils import resample

from pipeline.errors import DataError, InvalidParameter
from pipeline.params.definitions import TrainParams
from pipeline.params.fields import as_text
from registry_tools.data.row_hash import hash_rows, unit_interval
from registry_tools.data.tables import read_table
from registry_tools.errors import InputError
from registry_tools.models.evidence import ROW_HASH
from registry_tools.models.manifest import sha256_of

_log = logging.getLogger(__name__)

_FEW = 20  # rows that may well differ in a column which tells something


@dataclass(frozen=True)
class Dataset:
    """A table ready for training.

    `features` has int64, float64, text (object) and boolean columns (object where with holes);
    `labels` holds integer codes, the position in `target_names`; `hashes` has one 64-bit hash a
    row over all columns as they came. All three share one index, 0 to rows - 1.
    """

    features: pd.DataFrame
    labels: pd.Series
    target: str
    target_names: tuple[str, ...]
    hashes: npt.NDArray[np.uint64]
    source: str
    digest: str  # SHA-256, hex: of the file, or of the content where there is no file

    def take(self, rows: npt.NDArray[np.int64]) -> Dataset:
        """Return the dataset of these rows, by position."""
        return Dataset(
            self.features.iloc[rows].reset_index(drop=True),
            self.labels.iloc[rows].reset_index(drop=True),
            self.target,
            self.target_names,
            self.hashes[rows],
            self.source,
            self.digest,
        )


def load(params: TrainParams) -> Dataset:
    """Read and check the table, and draw the subset if one is asked for.

    Raises
    ------
    DataError
        If there is no such file, no such column, or nothing that can be learnt.
    InvalidParameter
        If `subset_size` does not fit the table.
    """
    dataset = _iris() if params.data == "iris" else _table(params)
    return _subset(dataset, params) if params.subset_size is not None else dataset


def _iris() -> Dataset:
    iris = load_iris(as_frame=True)
    names = tuple(str(name) for name in iris.target_names)
    table = iris.data.assign(species=np.asarray(names, dtype=object)[iris.target])
    content = hashlib.sha256(table.to_csv(index=False, lineterminator="\n").encode()).hexdigest()
    return Dataset(
        iris.data, iris.target, "species", names, hash_rows(table), "sklearn.datasets.iris", content
    )


def _table(params: TrainParams) -> Dataset:
    path, target = params.data, str(params.target)
    try:
        table = read_table(path)
    except InputError as error:
        raise DataError(f"data={error}") from error
    table.columns = table.columns.map(str)
    if target not in table:
        raise DataError(f"target={target}: {path} has no such column, only {_list(table.columns)}")
    unknown = [name for name in params.drop if name not in table]
    if unknown:
        raise DataError(
            f"drop={unknown[0]}: {path} has no such column, only {_list(table.columns)}"
        )
    # Before the rows are hashed: two that differ in a name alone belong on one side of a split.
    table = table.drop(columns=list(params.drop))
    unlabelled = table[target].isna()
    if unlabelled.any():
        _log.warning("%d rows without a label in %r are left out", unlabelled.sum(), target)
        table = table[~unlabelled].reset_index(drop=True)
    names, labels = _codes(table[target], path)
    features = _usable(table.drop(columns=target), path)
    return Dataset(
        features, labels, target, names, hash_rows(table), str(path), sha256_of(Path(path))
    )


def _codes(column: pd.Series, path: str) -> tuple[tuple[str, ...], pd.Series]:
    """Return class names in sorted order and the code of each row."""
    column = _classes(column)
    values = sorted(column.unique())
    if len(values) < 2:
        raise DataError(
            f"target={column.name}: {path} has only the class {_list(values)}; two are needed"
            if values
            else f"target={column.name}: {path} has no labelled row"
        )
    counts = column.value_counts()
    rare = counts[counts < 2].index.tolist()
    if rare:
        many = ": is this column a class?" if len(values) > len(column) / 2 else ""
        raise DataError(
            f"target={column.name}: {path} has one row only of {_list(rare)}; "
            f"each class needs two{many}"
        )
    code_of = {value: code for code, value in enumerate(values)}
    return tuple(str(v) for v in values), column.map(code_of).astype("int64").rename(column.name)


def _classes(column: pd.Series) -> pd.Series:
    """Return labels that sort: whole numbers as integers, other numbers as they are, else text."""
    column = _plain(column)
    if not _is_float(column):
        is_number = pd.api.types.is_integer_dtype(column)
        return column if is_number else column.astype(object).map(str)
    if np.isinf(column).any():
        raise DataError(f"target={column.name}: a label is infinite")
    whole = (column == np.floor(column)).all() and (column.abs() < 2**53).all()
    return column.astype("int64") if whole else column


def _usable(table: pd.DataFrame, path: str) -> pd.DataFrame:
    """Return the feature columns as numbers, text and booleans, without those that say nothing."""
    columns = {}
    for name, raw in table.items():
        if name == ROW_HASH:
            raise DataError(f"column {name!r} of {path} has a name that is needed: rename it")
        column = _plain(raw)
        if column.notna().sum() == 0:
            _log.warning("column %r is left out: all its values are missing", name)
        elif column.nunique(dropna=False) == 1:
            constant = column.iloc[0]
            shown = constant.item() if isinstance(constant, np.generic) else constant
            _log.warning("column %r is left out: it is constant, %r", name, shown)
        else:
            columns[name] = _finite(column, str(name), path)
            if len(column) > _FEW and column.is_unique and not _is_float(column):
                _log.warning(
                    "column %r has another value in each row: if it only names them, leave it out "
                    "with drop=%s",
                    name,
                    as_text((str(name),)),
                )
    if not columns:
        raise DataError(f"{path} has no column to learn from besides the label")
    return pd.DataFrame(columns)


def _plain(column: pd.Series) -> pd.Series:
    """Return a column as int64, float64, booleans or text; the last two as objects if with holes.

    Raises
    ------
    DataError
        If it holds anything else, such as times or lists.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    holes = column.isna()
    if pd.api.types.is_bool_dtype(column.dtype):
        return _with_none(column, holes) if holes.any() else column.astype(bool)
    if pd.api.types.is_integer_dtype(column) and not holes.any():
        fits = column.max() <= np.iinfo(np.int64).max
        return column.astype("int64") if fits else column
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column):
        return column.astype("float64")
    kinds = set(column[~holes].map(type))
    if kinds <= {bool, np.bool_}:
        return _with_none(column, holes)
    if kinds == {Decimal}:
        return column.astype("float64")
    if kinds == {str}:
        return column.astype(object).where(~holes, np.nan)
    if not kinds:
        return column.astype(object)
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise DataError(
        f"column {column.name!r} holds {names}: turn it into numbers, or leave it out with "
        f"drop={as_text((str(column.name),))}"
    )


def _with_none(column: pd.Series, holes: pd.Series) -> pd.Series:
    return column.astype(object).where(~holes, None)


def _is_float(column: pd.Series) -> bool:
    return bool(pd.api.types.is_float_dtype(column))


def _finite(column: pd.Series, name: str, path: str) -> pd.Series:
    if _is_float(column) and np.isinf(column).any():
        row = int(np.argmax(np.isinf(column).to_numpy()))
        raise DataError(f"column {name!r} of {path}, row {row}: the value is infinite")
    return column


def _subset(dataset: Dataset, params: TrainParams) -> Dataset:
    """Draw rows at random, each class in its share; the same ones for the same seed."""
    size = int(params.subset_size or 0)
    rows, classes = len(dataset.labels), len(dataset.target_names)
    if size > rows:
        raise InvalidParameter("subset_size", size, f"the table has only {rows} rows")
    if size == rows:
        return dataset
    drawn = resample(
        np.arange(rows),
        replace=False,
        n_samples=size,
        random_state=params.random_state,
        stratify=dataset.labels,
    )
    subset = dataset.take(np.sort(drawn))
    # Other rows are other data: MLflow would show the whole table's figures for an equal digest.
    subset = replace(subset, digest=hashlib.sha256(subset.hashes.tobytes()).hexdigest())
    counts = np.bincount(subset.labels, minlength=classes)
    missing = [dataset.target_names[code] for code in np.flatnonzero(counts == 0)]
    if missing:
        raise InvalidParameter(
            "subset_size", size, f"no row of class {_list(missing)} is left; take more rows"
        )
    single = [dataset.target_names[code] for code in np.flatnonzero(counts == 1)]
    if single:
        raise InvalidParameter(
            "subset_size",
            size,
            f"one row only of class {_list(single)} is left, two are needed; take more rows",
        )
    try:
        split(subset, params)
    except (InvalidParameter, DataError) as error:
        reason = str(error).partition(": ")[2]
        raise InvalidParameter("subset_size", size, f"too few for the split: {reason}") from error
    return subset


def split(
    dataset: Dataset, params: TrainParams
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the positions of the training rows and of the holdout rows, both ascending.

    Raises
    ------
    InvalidParameter
        If `test_size` leaves no row on one side, or a class without training rows.
    """
    side = _hashed_sides if params.split == "hash" else _stratified_sides
    train, holdout = side(dataset, params)
    if not len(train) or not len(holdout):
        empty = "held out" if not len(holdout) else "to train on"
        raise InvalidParameter(
            "test_size", params.test_size, f"no row of {len(dataset.labels)} is left {empty}"
        )
    present = np.bincount(dataset.labels.iloc[train], minlength=len(dataset.target_names))
    missing = [dataset.target_names[code] for code in np.flatnonzero(present == 0)]
    if missing:
        raise InvalidParameter(
            "test_size", params.test_size, f"no row of class {_list(missing)} is left to train on"
        )
    return train, holdout


def _hashed_sides(
    dataset: Dataset, params: TrainParams
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    held_out = unit_interval(dataset.hashes, params.random_state) < params.test_size
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _stratified_sides(
    dataset: Dataset, params: TrainParams
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    rows, classes = len(dataset.labels), len(dataset.target_names)
    size = params.test_size
    held_out = size if isinstance(size, int) else math.ceil(size * rows)
    for count, purpose in ((held_out, "held out"), (rows - held_out, "to train on")):
        if count < classes:
            raise InvalidParameter(
                "test_size",
                size,
                f"{max(count, 0)} of {rows} rows would be {purpose}, fewer than the "
                f"{classes} classes",
            )
    train, holdout = train_test_split(
        np.arange(rows),
        test_size=size,
        random_state=params.random_state,
        stratify=dataset.labels,
    )
    return np.sort(train), np.sort(holdout)


def _list(values: Iterable[object]) -> str:
    texts = [repr(str(value)) for value in values]
    return ", ".join(texts[:8]) + (f", … ({len(texts)} in all)" if len(texts) > 8 else "")
