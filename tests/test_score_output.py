"""What is written: where it may be, what it can hold, and what is left of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from registry_tools.batch.output import check_columns, sink
from registry_tools.errors import InputError


@pytest.mark.parametrize(
    ("kind", "fits"),
    [
        (pa.list_(pa.int8()), False),
        (pa.struct([("x", pa.int8())]), False),
        (pa.map_(pa.string(), pa.int8()), False),
        (pa.dictionary(pa.int32(), pa.string()), True),
        (pa.timestamp("us", "Europe/Berlin"), True),
        (pa.decimal128(9, 2), True),
        (pa.null(), True),
    ],
)
def test_a_column_that_a_csv_cannot_hold_is_named_before_a_row_is_scored(
    kind: Any, fits: bool, tmp_path: Path
) -> None:
    schema = pa.schema([("id", pa.int64()), ("tags", kind)])
    check_columns(tmp_path / "out.parquet", schema, "in.parquet")
    if not fits:
        with pytest.raises(InputError, match=r"in\.parquet: column 'tags' holds .*, and a CSV can"):
            check_columns(tmp_path / "out.csv", schema, "in.parquet")
        return
    check_columns(tmp_path / "out.csv", schema, "in.parquet")
    written = sink(tmp_path / "out.csv", "csv", schema, None)
    written.write(pa.RecordBatch.from_pylist([{"id": 1}], schema=schema))
    written.close()
    assert (tmp_path / "out.csv").read_text() == "id,tags\n1,\n"
