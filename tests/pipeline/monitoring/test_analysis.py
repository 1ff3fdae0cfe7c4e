"""What is told of a version's rows: what has to be found, and what must not be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.monitoring import analysis, labels
from pipeline.monitoring.analysis import Analysis
from pipeline.monitoring.labels import LabelledPredictions
from pipeline.monitoring.window import Window
from pipeline.training import baseline
from pipeline.training.baseline import TrainingBaseline

HOLDOUT = np.array(["a", "b", "c"] * 10, dtype=object)


def made(training: pd.DataFrame) -> TrainingBaseline:
    return baseline.make(training, "kind", HOLDOUT, HOLDOUT)


def found(
    own: TrainingBaseline, rows: pd.DataFrame, answers: Any, live: LabelledPredictions | None = None
) -> Analysis:
    said = pa.chunked_array([pa.array(np.resize(answers, len(rows)), pa.string())])
    table = pa.Table.from_pandas(rows, preserve_index=False)
    return analysis.analyse(1, own, Window(table, said, None), live, 100, 0.01)


@pytest.mark.parametrize("rows", [120, 1_000, 20_000])
def test_a_class_that_is_always_answered_is_drift_however_many_rows_there_are(rows: int) -> None:
    random = np.random.default_rng(0)
    own = made(pd.DataFrame({"x": random.normal(size=500)}))
    now = pd.DataFrame({"x": random.normal(size=rows)})
    assert found(own, now, ["a"]).where() == "predictions"


def test_a_feature_called_accuracy_is_no_accuracy() -> None:
    random = np.random.default_rng(0)
    own = made(pd.DataFrame({"live accuracy": random.normal(size=500)}))
    now = pd.DataFrame({"live accuracy": random.normal(size=300) + 1})
    told = found(own, now, HOLDOUT, LabelledPredictions(300, 300, ()))
    assert told.has_drift
    assert not told.has_fallen
    assert found(own, now, HOLDOUT, LabelledPredictions(300, 100, ())).has_fallen


def test_whole_numbers_of_two_values_are_counted() -> None:
    random = np.random.default_rng(0)
    own = made(pd.DataFrame({"flag": (random.random(2_000) < 0.05).astype(int)}))
    now = pd.DataFrame({"flag": (random.random(500) < 0.2).astype(int)})
    assert found(own, now, HOLDOUT).found[0].subject == "flag"


def test_true_and_false_may_come_as_one_and_zero() -> None:
    own = made(pd.DataFrame({"flag": np.arange(500) % 10 < 3}))
    now = pd.DataFrame({"flag": (np.arange(300) % 10 < 3).astype(int)})
    assert not found(own, now, HOLDOUT).has_drift


def test_a_column_that_names_its_rows_is_no_drift_in_new_rows() -> None:
    own = made(pd.DataFrame({"id": [f"r{n}" for n in range(3_000)]}))
    assert not found(own, pd.DataFrame({"id": [f"s{n}" for n in range(300)]}), HOLDOUT).has_drift
    few = made(pd.DataFrame({"id": [f"r{n}" for n in range(800)]}))
    assert not found(few, pd.DataFrame({"id": [f"s{n}" for n in range(300)]}), HOLDOUT).has_drift


def test_the_shift_that_would_be_seen_is_that_of_the_rows_there_are() -> None:
    random = np.random.default_rng(0)
    own = made(pd.DataFrame({"x": random.normal(size=5_000)}))
    few, many = (
        found(own, pd.DataFrame({"x": random.normal(size=rows)}), HOLDOUT).shift
        for rows in (100, 10_000)
    )
    assert many < few / 4


def test_a_request_that_was_sent_again_counts_once() -> None:
    own = made(pd.DataFrame({"x": np.arange(40.0)}))
    ids = ["0", "1", "2", "2", "3", "3"]
    said = ["a", "b", "c", "c", "a", "b"]  # the last one was answered in two ways
    keys = pa.table({"request": ids, "row": np.zeros(6, np.int64)})
    window = Window(pa.table({"x": np.zeros(6)}), pa.chunked_array([said]), keys)
    known = pd.DataFrame({"request": ["0", "1", "2", "3"], "label": ["a", "a", "c", "a"]})
    live = labels.join(known, window, own)
    assert (live.rows, live.right) == (3, 2)
    assert "1 requests have several answers, and the labels have no column 'row'" in live.notes[0]
