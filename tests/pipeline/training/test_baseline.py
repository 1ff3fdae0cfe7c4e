"""Writing, reading and refusing the files of a training baseline."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.training import baseline
from pipeline.training.baseline import CategoryProfile, NumericProfile, TrainingBaseline
from registry_tools.errors import VerificationError
from registry_tools.stats.metric import Outcomes
from registry_tools.task import CLASSIFICATION, REGRESSION
from tests.support.monitored import IRIS, mixed


def baseline_of(training: pd.DataFrame) -> TrainingBaseline:
    predicted = np.array(["cat", "dog", "dog"], dtype=object)
    labels = np.array(["cat", "dog", "cat"], dtype=object)
    return baseline.make_baseline(training, "kind", Outcomes(labels, predicted, None, ("cat", "dog")))


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = baseline_of(mixed(200, 1))
    baseline.write_baseline(tmp_path, written)
    found = baseline.read_baseline(tmp_path)
    assert found is not None
    pd.testing.assert_frame_equal(found.sample, written.sample, check_dtype=False)
    assert replace(found, sample=written.sample, outcomes=written.outcomes) == written
    assert (found.rows, found.target, found.metric, found.task) == (200, "kind", "accuracy", CLASSIFICATION)
    assert found.outcomes.labels.tolist() == ["cat", "dog", "cat"]
    assert found.outcomes.classes == ("cat", "dog")
    assert found.predictions == {"cat": 1, "dog": 2}


@pytest.mark.parametrize("metric", ["f1_macro", "log_loss"])
def test_a_baseline_has_the_probabilities_only_if_the_metric_needs_them(metric: str, tmp_path: Path) -> None:
    names = np.array(["cat", "dog"], dtype=object)
    given = Outcomes(names, names, np.array([[0.9, 0.1], [0.3, 0.7]]), ("cat", "dog"))
    baseline.write_baseline(tmp_path, baseline.make_baseline(mixed(30, 1), "kind", given, metric))
    found = baseline.read_baseline(tmp_path)
    assert found is not None
    assert found.needs_probabilities == (metric == "log_loss")
    if found.outcomes.probabilities is not None:
        assert found.outcomes.probabilities.tolist() == [[0.9, 0.1], [0.3, 0.7]]


def test_the_baseline_of_a_regression_has_the_numbers_of_the_holdout(tmp_path: Path) -> None:
    numbers = Outcomes(np.array([1.0, 2.5]), np.array([1.5, 2.0]))
    baseline.write_baseline(tmp_path, baseline.make_baseline(mixed(30, 1), "y", numbers, "rmse"))
    found = baseline.read_baseline(tmp_path)
    assert found is not None
    assert (found.task, found.metric) == (REGRESSION, "rmse")
    assert found.outcomes.predicted.tolist() == [1.5, 2]


def test_a_baseline_has_quantiles_of_numbers_and_counts_of_categories() -> None:
    table = mixed(200, 1)
    columns = baseline_of(table).columns
    size, sold, colour, tame = (columns[name] for name in ("size", "sold", "colour", "tame"))
    assert isinstance(size, NumericProfile)
    assert size.missing == table["size"].isna().sum() > 0
    assert (size.quantiles[0], size.quantiles[-1]) == (table["size"].min(), table["size"].max())
    assert size.quantiles[5] == table["size"].median()
    assert isinstance(sold, CategoryProfile)
    assert dict(sold.counts) == {"true": table["sold"].sum(), "false": (~table["sold"]).sum()}
    assert isinstance(tame, CategoryProfile)
    assert set(tame.counts) == {"true", "false"}
    assert tame.missing == table["tame"].isna().sum() > 0
    assert isinstance(colour, CategoryProfile)
    assert (set(colour.counts), colour.others) == ({"red", "green", "blue"}, 0)


def test_a_baseline_names_a_thousand_categories_and_counts_the_others(tmp_path: Path) -> None:
    names = [f"word {n}" for n in range(1200)]
    written = baseline_of(pd.DataFrame({"word": names + names[:900]}))
    baseline.write_baseline(tmp_path, written)
    found = baseline.read_baseline(tmp_path)
    assert found is not None
    words = found.columns["word"]
    assert isinstance(words, CategoryProfile)
    assert len(words.counts) == 1000
    assert words.others == 200
    assert sum(words.counts.values()) == 1900
    assert set(names[:900]) <= set(words.counts)


def test_a_baseline_has_a_bounded_sample_that_is_the_same_each_time() -> None:
    table = pd.DataFrame({"x": np.arange(20_000.0)})
    first, second = baseline_of(table), baseline_of(table)
    assert len(first.sample) == 5000
    assert first.rows == 20_000
    pd.testing.assert_frame_equal(first.sample, second.sample)
    assert first.sample["x"].is_monotonic_increasing
    assert first.sample["x"].mean() == pytest.approx(10_000, rel=0.02)


def test_a_column_without_values_has_a_profile(tmp_path: Path) -> None:
    written = baseline_of(pd.DataFrame({"x": [np.nan] * 30, "y": [None] * 30}))
    baseline.write_baseline(tmp_path, written)
    found = baseline.read_baseline(tmp_path)
    assert found is not None
    assert found.columns == written.columns == {
        "x": NumericProfile(30, 30, ()),
        "y": CategoryProfile(30, 30, {}, 0),
    }  # fmt: skip


def test_a_version_without_one_of_the_files_has_no_baseline(tmp_path: Path) -> None:
    for name in baseline.FILES:
        baseline.write_baseline(tmp_path, baseline_of(mixed(30, 1)))
        (tmp_path / name).unlink()
        assert baseline.read_baseline(tmp_path) is None


def profile(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Change the content of the profile file."""

    def spoil(folder: Path) -> None:
        path = folder / baseline.PROFILE_FILE
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def text(content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / baseline.PROFILE_FILE).write_text(content)


def sample(table: pd.DataFrame) -> Callable[[Path], object]:
    return lambda folder: table.to_parquet(folder / baseline.SAMPLE_FILE, index=False)


def holdout(**columns: list[Any]) -> Callable[[Path], object]:
    return lambda folder: pd.DataFrame(columns).to_parquet(folder / baseline.OUTCOMES_FILE, index=False)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(text(""), id="empty"),
        pytest.param(text('{"rows": 1'), id="half written"),
        pytest.param(text("[]"), id="a list"),
        pytest.param(text("[" * 100_000), id="deep"),
        pytest.param(profile(lambda c: c.pop("target")), id="no target"),
        pytest.param(profile(lambda c: c.update(rows="many")), id="text for a number"),
        pytest.param(profile(lambda c: c.update(rows=float("inf"))), id="infinite rows"),
        pytest.param(profile(lambda c: c.update(columns=None)), id="no columns"),
        pytest.param(profile(lambda c: c["columns"].popitem()), id="a column less"),
        pytest.param(profile(lambda c: c.update(classes="cat")), id="classes as text"),
        pytest.param(lambda f: (f / baseline.SAMPLE_FILE).write_bytes(b"PAR1"), id="no Parquet"),
        pytest.param(sample(IRIS.data.iloc[:, :2]), id="a sample of other columns"),
        pytest.param(sample(IRIS.data.iloc[:0]), id="an empty sample"),
        pytest.param(sample(IRIS.data.astype(str) + " cm"), id="text in a sample of numbers"),
        pytest.param(holdout(label=[], predicted=[]), id="an empty holdout"),
        pytest.param(holdout(label=["cat"]), id="a holdout without predictions"),
        pytest.param(holdout(label=["cat"], predicted=["cat"], p0=[1.0]), id="a class without probability"),
    ],
)
def test_a_baseline_that_is_not_readable_is_refused_in_a_line(
    spoil: Callable[[Path], object], tmp_path: Path
) -> None:
    baseline.write_baseline(tmp_path, baseline_of(IRIS.data))
    spoil(tmp_path)
    with pytest.raises(VerificationError, match=r"evidence/baseline\.json is not readable") as e:
        baseline.read_baseline(tmp_path)
    assert "\n" not in str(e.value)
