"""Labelled rows to evaluate on, from a table that the caller brings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from registry_tools.data.row_hash import hash_rows
from registry_tools.data.tables import read_table
from registry_tools.errors import InputError, VerificationError
from registry_tools.evaluation.version_bundle import VersionBundle
from registry_tools.models.evidence import Holdout
from registry_tools.models.formats import describe


def read_eval_data(path: Path, target: str) -> Holdout:
    """Read rows to evaluate on from a table with a label column.

    Raises
    ------
    InputError
        If it cannot be read, has no such column, or a row has no label.
    """
    table = read_table(path)
    table.columns = table.columns.map(str)
    if target not in table:
        raise InputError(
            f"--target {target}: {path} has no such column, only "
            f"{', '.join(repr(name) for name in table.columns)}"
        )
    if table.columns.has_duplicates:
        raise InputError(f"{path} has two columns of the name {_first_duplicate(table.columns)!r}")
    labels = table[target]
    if labels.isna().any():
        row = int(np.flatnonzero(labels.isna())[0])
        raise InputError(f"--target {target}: row {row} of {path} has no label")
    if pd.api.types.is_float_dtype(labels) and (labels == np.floor(labels)).all():
        if not np.isfinite(labels).all():
            raise InputError(f"--target {target}: {path} has an infinite label")
        labels = labels.astype("int64")
    rows = table.drop(columns=target)
    return Holdout(rows, labels.map(str).to_numpy(object), hash_rows(rows))


def _first_duplicate(columns: pd.Index) -> str:
    return str(columns[columns.duplicated()][0])


def hash_model_columns(rows: Holdout, bundle: VersionBundle) -> Holdout:
    """Hash rows over the columns that the candidate takes, as those that it was trained on are."""
    try:
        description = describe(bundle.folder) if bundle.folder is not None else None
    except VerificationError:
        return rows  # the gates report it
    taken = [column.name for column in description.signature or ()] if description else []
    present = [name for name in taken if name in rows.rows]
    return replace(rows, hashes=hash_rows(rows.rows[present])) if present else rows
