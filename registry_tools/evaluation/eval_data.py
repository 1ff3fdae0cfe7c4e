"""Read labelled rows to evaluate on from the user's table (`--eval-data`)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from registry_tools.data.schema import Column
from registry_tools.errors import InputError, VerificationError
from registry_tools.files.tables import format_of, parse_table, read_bytes
from registry_tools.models.evidence import Holdout
from registry_tools.models.formats import describe

_LARGEST_WHOLE = 2**53  # the floats above it are all whole


@dataclass(frozen=True)
class EvalData:
    """A table with a label column; `rows` have the types from the file alone."""

    path: Path
    target: str
    content: bytes
    rows: Holdout

    def rows_for(self, folders: Iterable[Path | None]) -> Holdout:
        """Return the rows, with text in each CSV column in which a model in the folders expects text.

        Otherwise a code such as `0100` would be read as a number, which does not fit the model and has
        another row hash.
        """
        columns = [column for folder in folders if folder is not None for column in _columns(folder)]
        texts = {column.name for column in columns if column.type == "string"}
        texts -= {column.name for column in columns if column.type != "string"} | {self.target}
        return _parse(self.path, self.target, self.content, texts) if texts else self.rows


def read_eval_data(path: Path, target: str) -> EvalData:
    """Read rows to evaluate on from a table with a label column.

    Raises
    ------
    InputError
        If the table cannot be read, lacks the label column, or has a row without a label.
    """
    content = read_bytes(path)
    return EvalData(path, target, content, _parse(path, target, content, set()))


def read_optional_eval_data(path: str | Path | None, target: str | None) -> EvalData | None:
    """Read rows to evaluate on; return None if neither a file nor its label column is given.

    Raises
    ------
    InputError
        If only one of them is given, and as `read_eval_data`.
    """
    if path is None and target is None:
        return None
    if path is None or target is None:
        missing = "eval_data" if path is None else "target"
        raise InputError(f"eval_data={path}, target={target}: {missing} is missing, give both or neither")
    return read_eval_data(Path(path), target)


def _parse(path: Path, target: str, content: bytes, text_columns: set[str]) -> Holdout:
    stream = io.BytesIO(content)
    table = parse_table(stream, format_of(path), str(path), text_columns, literal_columns=[target])
    table.columns = table.columns.map(str)
    if target not in table:
        raise InputError(
            f"--target {target}: {path} has no such column; its columns are "
            f"{', '.join(repr(name) for name in table.columns)}"
        )
    if table.columns.has_duplicates:
        name = table.columns[table.columns.duplicated()][0]
        raise InputError(f"{path} has two columns named {name!r}: rename one")
    labels = table[target]
    if labels.isna().any():
        row = int(np.flatnonzero(labels.isna())[0])
        raise InputError(f"--target {target}: row {row} of {path} has no label")
    if pd.api.types.is_float_dtype(labels) and (labels == np.floor(labels)).all():
        if not np.isfinite(labels).all():
            raise InputError(f"--target {target}: {path} has an infinite label")
        if (labels.abs() < _LARGEST_WHOLE).all():
            labels = labels.astype("int64")
    return Holdout(table.drop(columns=target), labels.map(str).to_numpy(object))


def _columns(folder: Path) -> Sequence[Column]:
    try:
        return describe(folder).signature or ()
    except VerificationError:
        return ()  # the gates report the error
