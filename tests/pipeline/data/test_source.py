"""The source of a training table as MLflow records it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.tracking.runs import dataset_source


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("https://host/rows.csv", "http"),
        ("s3://bucket/rows", "s3"),
        ("gs://bucket/rows.parquet", "gs"),
        ("sftp://host/rows.csv", "code"),
        (f"sql:SELECT a FROM 's3://b' {'-' * 5000}", "code"),
        ("sklearn.datasets.iris", "code"),
    ],
)
def test_the_source_of_a_table_has_the_kind_and_address_that_mlflow_knows(address: str, kind: str) -> None:
    source = dataset_source(address)
    assert source._get_source_type() == kind
    assert address in source.to_dict().get("tags", source.to_dict()).values()


def test_a_file_and_a_folder_are_local_sources(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()
    for path in (tmp_path, tmp_path / "rows.csv"):
        source = dataset_source(str(path))
        assert (source._get_source_type(), source.to_dict()) == ("local", {"uri": str(path)})
