"""Tables as pandas reads them, and the exceptions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from registry_tools.errors import InputError
from registry_tools.evaluation.eval_data import read_eval_data
from registry_tools.files.tables import read_table


def test_a_named_index_of_parquet_is_a_column(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [1.0, 2.0]}, index=pd.Index([7, 9], name="customer"))
    table.to_parquet(tmp_path / "named.parquet")
    assert read_table(tmp_path / "named.parquet").to_dict("list") == {"customer": [7, 9], "x": [1.0, 2.0]}
    table.reset_index(drop=True).to_parquet(tmp_path / "plain.parquet")
    assert read_table(tmp_path / "plain.parquet").to_dict("list") == {"x": [1.0, 2.0]}


def test_none_na_and_null_are_classes_among_text_and_an_empty_label_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,kind\n1,None\n,NA\n3,null\n4,nan\n5,a\n")
    rows = read_eval_data(path, "kind").rows
    assert rows.labels.tolist() == ["None", "NA", "null", "nan", "a"]
    assert rows.rows["x"].isna().tolist() == [False, True, False, False, False]
    path.write_text("kind,x\n1,1\nNA,2\n2,3\n")
    with pytest.raises(InputError, match=r"row 1 of .*rows\.csv has no label"):
        read_eval_data(path, "kind")
    path.write_text("kind,x\n1,1\nNA,2\nb,3\n")
    assert read_eval_data(path, "kind").rows.labels.tolist() == ["1", "NA", "b"]
    path.write_text("x,kind\n1,None\n2,\n")
    with pytest.raises(InputError, match=r"row 1 of .*rows\.csv has no label"):
        read_eval_data(path, "kind")


def test_large_numbers_are_labels_without_a_loss(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,kind\n1,1e300\n2,2.0\n")
    assert [float(label) for label in read_eval_data(path, "kind").rows.labels] == [1e300, 2.0]
