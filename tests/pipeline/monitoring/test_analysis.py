"""The analysis of a window: data with drift that it must find, and data without drift."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.monitoring import analysis
from pipeline.monitoring.analysis import Analysis
from pipeline.monitoring.data import labels
from pipeline.monitoring.data.labels import LabelledPredictions
from pipeline.monitoring.data.window import CurrentWindow
from pipeline.training import baseline
from pipeline.training.baseline import TrainingBaseline
from registry_tools.stats.metric import Outcomes

HOLDOUT = np.array(["a", "b", "c"] * 10, dtype=object)


def baseline_of(training: pd.DataFrame) -> TrainingBaseline:
    return baseline.make_baseline(training, "kind", Outcomes(HOLDOUT, HOLDOUT))


def labelled(rows: int, correct: int) -> LabelledPredictions:
    predicted = np.where(np.arange(rows) < correct, "a", "b")
    return LabelledPredictions(Outcomes(np.full(rows, "a"), predicted), ())


def analyse(
    own: TrainingBaseline, rows: pd.DataFrame, predictions: Any, live: LabelledPredictions | None = None
) -> Analysis:
    predicted = pa.chunked_array([pa.array(np.resize(predictions, len(rows)), pa.string())])
    table = pa.Table.from_pandas(rows, preserve_index=False)
    return analysis.analyse_window(1, own, CurrentWindow(table, predicted, None), live, 100, 0.01)


@pytest.mark.parametrize("rows", [120, 1_000, 20_000])
def test_a_class_that_is_always_predicted_is_drift_however_many_rows_there_are(rows: int) -> None:
    random = np.random.default_rng(0)
    own = baseline_of(pd.DataFrame({"x": random.normal(size=500)}))
    current = pd.DataFrame({"x": random.normal(size=rows)})
    assert analyse(own, current, ["a"]).where() == "predictions"


def test_a_feature_named_accuracy_is_not_the_live_accuracy() -> None:
    random = np.random.default_rng(0)
    own = baseline_of(pd.DataFrame({"live accuracy": random.normal(size=500)}))
    current = pd.DataFrame({"live accuracy": random.normal(size=300) + 1})
    result = analyse(own, current, HOLDOUT, labelled(300, correct=300))
    assert result.has_drift
    assert not result.has_worsened
    assert analyse(own, current, HOLDOUT, labelled(300, correct=100)).has_worsened


def test_numbers_with_two_values_are_tested_by_counts() -> None:
    random = np.random.default_rng(0)
    own = baseline_of(pd.DataFrame({"flag": (random.random(2_000) < 0.05).astype(int)}))
    current = pd.DataFrame({"flag": (random.random(500) < 0.2).astype(int)})
    assert analyse(own, current, HOLDOUT).significant_tests[0].target == "flag"


def test_true_and_false_may_come_as_one_and_zero() -> None:
    own = baseline_of(pd.DataFrame({"flag": np.arange(500) % 10 < 3}))
    current = pd.DataFrame({"flag": (np.arange(300) % 10 < 3).astype(int)})
    assert not analyse(own, current, HOLDOUT).has_drift


def test_a_column_that_names_its_rows_is_no_drift_in_new_rows() -> None:
    own = baseline_of(pd.DataFrame({"id": [f"r{n}" for n in range(3_000)]}))
    assert not analyse(own, pd.DataFrame({"id": [f"s{n}" for n in range(300)]}), HOLDOUT).has_drift
    few = baseline_of(pd.DataFrame({"id": [f"r{n}" for n in range(800)]}))
    assert not analyse(few, pd.DataFrame({"id": [f"s{n}" for n in range(300)]}), HOLDOUT).has_drift


def test_the_detectable_shift_depends_on_the_number_of_rows() -> None:
    random = np.random.default_rng(0)
    own = baseline_of(pd.DataFrame({"x": random.normal(size=5_000)}))
    few, many = (
        analyse(own, pd.DataFrame({"x": random.normal(size=rows)}), HOLDOUT).detectable_shift
        for rows in (100, 10_000)
    )
    assert many < few / 4


def test_a_request_that_was_sent_again_counts_once() -> None:
    own = baseline_of(pd.DataFrame({"x": np.arange(40.0)}))
    ids = ["0", "1", "2", "2", "3", "3"]
    predicted = ["a", "b", "c", "c", "a", "b"]  # the last one was predicted in two ways
    keys = pa.table({"request": ids, "row": np.zeros(6, np.int64)})
    window = CurrentWindow(pa.table({"x": np.zeros(6)}), pa.chunked_array([predicted]), keys)
    known = pd.DataFrame({"request": ["0", "1", "2", "3"], "label": ["a", "a", "c", "a"]})
    live = labels.join_labels(known, window, own)
    assert (live.outcomes.labels == live.outcomes.predicted).tolist().count(True) == 2
    assert live.rows == 3
    assert "1 requests have several predictions, and the labels have no column 'row'" in live.notes[0]
