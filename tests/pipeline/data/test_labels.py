"""The label column: the task that it implies, its classes, and its numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.data.labels import decide_task
from pipeline.data.load import load_dataset
from pipeline.errors import DataError, InvalidParameter
from pipeline.params.definitions import TrainParams
from registry_tools.task import CLASSIFICATION, REGRESSION

RANDOM = np.random.default_rng(0)


def column(values: object) -> pd.Series:
    return pd.Series(values, name="kind")


def whole(distinct: int, rows: int) -> pd.Series:
    return column(np.resize(np.arange(distinct), rows))


@pytest.mark.parametrize(
    ("labels", "task", "is_clear"),
    [
        (column(["a", "b"] * 20), CLASSIFICATION, True),
        (column([True, False] * 20), CLASSIFICATION, True),
        (whole(3, 100), CLASSIFICATION, True),
        (whole(3, 100).astype(float), CLASSIFICATION, True),
        (whole(20, 400), CLASSIFICATION, True),
        (whole(21, 400), CLASSIFICATION, False),
        (whole(50, 400), CLASSIFICATION, False),
        (whole(51, 400), REGRESSION, True),
        (whole(30, 40), REGRESSION, False),
        (column(RANDOM.random(100)), REGRESSION, True),
        (column([0.5, 1.0, 1.5] * 20), REGRESSION, False),
    ],
)
def test_the_label_decides_the_task_and_a_doubtful_one_gives_a_hint(
    labels: pd.Series, task: str, is_clear: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert decide_task(labels, "auto") == task
    other = REGRESSION if task == CLASSIFICATION else CLASSIFICATION
    hint = f"it is taken for a {task}; if that is wrong, set task={other}"
    assert [hint in record.message for record in caplog.records] == ([] if is_clear else [True])


def test_more_than_fifty_numbers_as_classes_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    assert decide_task(whole(60, 200), CLASSIFICATION) == CLASSIFICATION
    assert "kind has 60 different numbers, and each becomes a class" in caplog.text
    assert "set task=regression" in caplog.text


def load(folder: Path, labels: list[str], **params: str) -> tuple[list[object], tuple[str, ...]]:
    rows = "".join(f"{number},{label}\n" for number, label in enumerate(labels))
    path = folder / "table.csv"
    path.write_text("x,kind\n" + rows)
    found = load_dataset(TrainParams(data=str(path), target="kind", name="own", **params))
    return found.label_values().tolist(), found.target_names


@pytest.mark.parametrize("name", ["None", "NA", "null", "nan", "N/A"])
def test_a_class_with_the_name_of_a_missing_value_is_a_class(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels, names = load(tmp_path, [name, "b", name, "b", ""])
    assert labels == [name, "b", name, "b"]
    assert set(names) == {name, "b"}
    assert "1 rows without a label" in caplog.text


@pytest.mark.parametrize("task", ["auto", "classification"])
def test_a_missing_value_among_numbers_is_no_class(
    task: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels, names = load(tmp_path, ["0", "1", "NA", "0", "1", "null", ""], task=task)
    assert (labels, names) == (["0", "1", "0", "1"], ("0", "1"))
    assert "3 rows without a label" in caplog.text


def test_a_missing_number_is_no_class(tmp_path: Path) -> None:
    labels, names = load(tmp_path, [*(f"{n / 7}" for n in range(20)), "NA", ""])
    assert (len(labels), names) == (20, ())


def test_a_regression_keeps_the_numbers(tmp_path: Path) -> None:
    labels, names = load(tmp_path, ["1", "2"] * 5, task="regression")
    assert labels == [1.0, 2.0] * 5
    assert names == ()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["a", "b", "a", "b"], "task=regression needs numbers, and .* has 'a', 'b'"),
        (["True", "False", "True"], "needs numbers"),
        (["1", "1", "1"], "all labels of .* are 1; two values are needed"),
        (["1", "inf", "2"], "a label is infinite"),
    ],
)
def test_labels_that_are_no_numbers_are_refused(labels: list[str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason):
        load(tmp_path, labels, task="regression")


def test_iris_is_a_classification() -> None:
    with pytest.raises(InvalidParameter, match="task=regression: needs data=FILE"):
        TrainParams(task="regression")


def test_a_number_that_occurs_once_is_refused_as_a_class_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one row of .3.; each class needs two.* set task=regression"):
        load(tmp_path, ["1", "1", "2", "2", "3"])
