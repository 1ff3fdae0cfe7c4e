"""Read the training table, check it, and draw the subset, before any run begins."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace

import numpy as np
from sklearn.datasets import load_iris
from sklearn.utils import resample

from pipeline.data import row_roles
from pipeline.data.columns import usable_columns
from pipeline.data.dataset import Dataset, quoted_values
from pipeline.data.labels import class_codes, decide_task, label_numbers
from pipeline.data.split import split_rows
from pipeline.errors import DataError, InvalidParameter
from pipeline.params.definitions import TrainParams
from registry_tools.data.row_hash import hash_rows
from registry_tools.errors import InputError, UnsupportedOperation
from registry_tools.files.table_source import read_source
from registry_tools.task import CLASSIFICATION

_log = logging.getLogger(__name__)


def load_dataset(params: TrainParams) -> Dataset:
    """Read and check the table, and draw the subset if one is asked for.

    Raises
    ------
    DataError
        If there is no such file, no such column, or nothing that can be learnt.
    InvalidParameter
        If `subset_size` does not fit the table.
    """
    dataset = _load_iris() if params.data == "iris" else _load_table(params)
    return _draw_subset(dataset, params) if params.subset_size is not None else dataset


def _load_iris() -> Dataset:
    iris = load_iris(as_frame=True)
    names = tuple(str(name) for name in iris.target_names)
    table = iris.data.assign(species=np.asarray(names, dtype=object)[iris.target])
    digest = hashlib.sha256(table.to_csv(index=False, lineterminator="\n").encode()).hexdigest()
    hashes, source = hash_rows(table), "sklearn.datasets.iris"
    return Dataset(iris.data, iris.target, "species", names, hashes, source, digest, hash_rows(iris.data))


def _load_table(params: TrainParams) -> Dataset:
    source, target = params.source(), str(params.target)
    path = source.label
    try:
        # A class of text may be called None, NA or null, which pandas reads as missing values.
        table, digest = read_source(source, text_columns=params.dtypes, literal_columns=[target])
    except (InputError, UnsupportedOperation) as error:
        raise DataError(f"data={error}") from error
    table.columns = table.columns.map(str)
    row_roles.check_columns(table, params)
    unlabelled = table[target].isna()
    if unlabelled.any():
        _log.warning("%d rows without a label in %r are left out", unlabelled.sum(), target)
        table = table[~unlabelled].reset_index(drop=True)
    if table.empty:
        raise DataError(f"target={target}: {path} has no labelled row")
    task = decide_task(table[target], params.task)
    times, weights = row_roles.row_times(table, params), row_roles.row_weights(table, params)
    # Before the rows are hashed: two that differ in a name alone belong on one side of a split.
    table = table.drop(columns=list(params.drop))
    features = table.drop(columns=[name for name in (target, params.group, params.weight) if name])
    units = row_roles.row_units(table, features, params)
    if task == CLASSIFICATION:
        names, labels = class_codes(table[target], path)
        row_roles.check_groups_of_classes(table, params)
    else:
        names, labels = (), label_numbers(table[target], path)
    features = usable_columns(features, path, params.dtypes)
    hashes = hash_rows(table)
    return Dataset(features, labels, target, names, hashes, params.data, digest, units, times, weights, task)


def _draw_subset(dataset: Dataset, params: TrainParams) -> Dataset:
    """Draw rows at random, each class in its share; the same rows for the same seed."""
    size, rows, names = int(params.subset_size or 0), len(dataset.labels), dataset.target_names
    if size > rows:
        raise InvalidParameter("subset_size", size, f"the table has only {rows} rows")
    if size == rows:
        return dataset
    drawn = resample(
        np.arange(rows),
        replace=False,
        n_samples=size,
        random_state=params.random_state,
        stratify=dataset.labels if names else None,
    )
    subset = dataset.take(np.sort(drawn))
    # Other rows are other data: MLflow would show the whole table's profile for an equal digest.
    subset = replace(subset, digest=hashlib.sha256(subset.hashes.tobytes()).hexdigest())
    counts = np.bincount(subset.labels, minlength=len(names)) if names else ()
    for few, found, needed in ((0, "no row", ""), (1, "one row only", ", two are needed")):
        if classes := [name for name, count in zip(names, counts, strict=True) if count == few]:
            reason = f"{found} of class {quoted_values(classes)} is left{needed}; take more rows"
            raise InvalidParameter("subset_size", size, reason)
    try:
        split_rows(subset, params)
    except (InvalidParameter, DataError) as error:
        reason = str(error).partition(": ")[2]
        raise InvalidParameter("subset_size", size, f"too few for the split: {reason}") from error
    return subset
