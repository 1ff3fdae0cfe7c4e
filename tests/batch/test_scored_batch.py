"""The rows of a batch by class."""

from __future__ import annotations

import pyarrow as pa
import pytest

from registry_tools.batch.scored_batch import class_counts


@pytest.mark.parametrize(
    ("distinct", "has_classes", "counted"), [(1000, False, 1000), (1001, False, 0), (1001, True, 1001)]
)
def test_whole_numbers_of_a_model_without_classes_are_counted_up_to_a_limit(
    distinct: int, has_classes: bool, counted: int
) -> None:
    names = pa.nulls(distinct, pa.dictionary(pa.int32(), pa.string()))
    predictions = {"prediction": pa.array(range(distinct)), "prediction_name": names}
    assert len(class_counts(pa.RecordBatch.from_pydict(predictions), has_classes)) == counted
