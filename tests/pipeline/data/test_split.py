"""Splits and folds keep equal rows and groups whole, respect time, and give chance level by chance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.data.dataset import Dataset
from pipeline.data.folds import check_folds, divide_units, make_folds
from pipeline.data.load import load_dataset
from pipeline.data.split import split_rows
from pipeline.errors import DataError, InvalidParameter
from pipeline.params.definitions import TrainParams
from pipeline.training.fit_pipeline import fit_pipeline
from pipeline.training.model_pipeline import resolve_model
from pipeline.training.scoring import measure, predict_outcomes
from registry_tools.stats.metric import METRICS, find_metric
from registry_tools.task import CLASSIFICATION, REGRESSION
from tests.support.constants import LONG


def load(
    table: pd.DataFrame, folder: Path, target: str = "kind", **values: object
) -> tuple[Dataset, TrainParams]:
    path = folder / "table.csv"
    table.to_csv(path, index=False)
    params = TrainParams(data=str(path), target=target, name="own", **values)
    return load_dataset(params), params


def patients(seed: int = 0, count: int = 30, visits: int = 5) -> pd.DataFrame:
    """Return visits of patients: near copies of one row, all with one random label."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 3)).repeat(visits, axis=0) + rng.normal(0, 1e-3, (count * visits, 3))
    labels = rng.permutation(np.arange(count) % 2).repeat(visits)
    table = pd.DataFrame(rows, columns=["x", "y", "z"]).assign(kind=np.array(["no", "yes"])[labels])
    return table.assign(patient=np.arange(count).repeat(visits)).sample(frac=1, random_state=seed)


def repeated(seed: int = 0, count: int = 50, copies: int = 3) -> pd.DataFrame:
    """Return rows with random labels, each of them several times."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.normal(size=(count, 3)), columns=["x", "y", "z"])
    table["kind"] = np.array(["no", "yes"])[rng.permutation(np.arange(count) % 2)]
    return pd.concat([table] * copies).sample(frac=1, random_state=seed)


def measurements(seed: int = 0, days: int = 60) -> pd.DataFrame:
    """Return three equal measurements a day, with a label of the day."""
    dates = pd.date_range("2026-01-01", periods=days).strftime("%Y-%m-%d")
    table = repeated(seed, days, 1).reset_index(drop=True).assign(day=dates)
    return pd.concat([table] * 3).sample(frac=1, random_state=seed)


@pytest.mark.parametrize("split", ["stratified", "hash"])
@pytest.mark.parametrize("seed", range(5))
def test_rows_of_a_group_share_a_side_and_a_fold(split: str, seed: int, tmp_path: Path) -> None:
    dataset, params = load(patients(), tmp_path, group="patient", split=split, random_state=seed)
    assert "patient" not in dataset.features
    train, holdout = split_rows(dataset, params)
    assert len(train) + len(holdout) == 150
    assert not set(dataset.units[train]) & set(dataset.units[holdout])
    training = dataset.take(train)
    folds = make_folds(training, params)
    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(len(train)))
    for fitted, tested in folds:
        assert not set(training.units[fitted]) & set(training.units[tested])
        assert training.labels.iloc[tested].nunique() == 2


def test_groups_are_held_out_in_the_share_of_rows_and_classes_that_was_asked_for(tmp_path: Path) -> None:
    dataset, params = load(patients(count=100), tmp_path, group="patient", test_size=0.3)
    holdout = split_rows(dataset, params)[1]
    assert len(holdout) == pytest.approx(150, abs=5)
    assert dataset.labels.iloc[holdout].mean() == pytest.approx(0.5, abs=0.05)


def unequal(seed: int, sizes: list[int]) -> pd.DataFrame:
    """Return groups of these numbers of rows, with random labels."""
    rng, rows = np.random.default_rng(seed), sum(sizes)
    table = pd.DataFrame(rng.normal(size=(rows, 2)), columns=["x", "y"])
    table["kind"] = rng.choice(["no", "yes"], rows)
    return table.assign(patient=np.repeat(np.arange(len(sizes)), sizes)).sample(frac=1, random_state=seed)


@pytest.mark.parametrize("seed", range(10))
def test_groups_of_unequal_sizes_leave_no_fold_empty(seed: int, tmp_path: Path) -> None:
    dataset, params = load(unequal(seed, [120] + [8] * 12), tmp_path, group="patient", random_state=seed)
    check_folds(dataset, params)
    for folds in (make_folds(dataset, params), divide_units(dataset, params)):
        assert sorted(len(tested) for _, tested in folds) == [24, 24, 24, 24, 120]
        for fitted, tested in folds:
            assert not set(dataset.units[fitted]) & set(dataset.units[tested])
    train, holdout = split_rows(dataset, params)
    assert not set(dataset.units[train]) & set(dataset.units[holdout])
    assert 32 <= len(holdout) <= 56


def test_groups_of_many_sizes_are_spread_evenly_and_differ_in_each_repeat(tmp_path: Path) -> None:
    for seed in range(5):
        sizes = np.random.default_rng(seed).permutation(np.arange(2, 42)).tolist()
        values = {"group": "patient", "cv": "5x2", "random_state": seed}
        dataset, params = load(unequal(seed, sizes), tmp_path, **values)
        folds = [tested for _, tested in make_folds(dataset, params)]
        assert all(len(tested) == pytest.approx(172, abs=25) for tested in folds)
        assert folds[0].tolist() not in [tested.tolist() for tested in folds[5:]]
        holdout = split_rows(dataset, params)[1]
        assert len(holdout) == pytest.approx(172, abs=25)
        held = np.unique(dataset.units[holdout], return_counts=True)[1]
        assert held.min() < 20 < 25 < held.max()


def test_a_class_in_one_group_is_refused(tmp_path: Path) -> None:
    table = unequal(0, [120] + [8] * 12)
    table["kind"] = np.where(table["patient"] == 0, "ill", table["kind"])
    with pytest.raises(
        DataError, match="class 'ill' are in the group '0', which has 56% of the rows; two groups are needed"
    ):
        load(table, tmp_path, group="patient")


def test_a_class_that_the_training_rows_of_a_fold_lack_is_refused(tmp_path: Path) -> None:
    table = unequal(0, [40, 40, 40])
    kinds = np.array([["a", "b"], ["b", "c"], ["c", "a"]])
    table["kind"] = kinds[table["patient"], np.arange(len(table)) % 2]
    dataset, params = load(table, tmp_path, group="patient", cv="2")
    with pytest.raises(
        InvalidParameter, match=r"cv=2: the training rows of a fold have no '[abc]', .*: use fewer"
    ):
        check_folds(dataset, params)
    assert divide_units(dataset, params) == []
    with pytest.raises(InvalidParameter, match="a group of patient has 33% of the rows; take another test_"):
        split_rows(dataset, params)


@pytest.mark.parametrize("split", ["stratified", "hash"])
def test_equal_rows_with_different_labels_share_a_side_and_a_fold(split: str, tmp_path: Path) -> None:
    table = repeated()
    table["kind"] = np.random.default_rng(1).permutation(table["kind"])
    dataset, params = load(table, tmp_path, split=split)
    assert len(np.unique(dataset.units)) == 50
    train, holdout = split_rows(dataset, params)
    assert not set(dataset.units[train]) & set(dataset.units[holdout])
    training = dataset.take(train)
    for fitted, tested in make_folds(training, params):
        assert not set(training.units[fitted]) & set(training.units[tested])


def test_a_time_column_holds_out_the_latest_rows_and_tests_each_fold_on_later_rows(tmp_path: Path) -> None:
    dataset, params = load(measurements(), tmp_path, time="day", cv="4")
    times = dataset.times
    assert times is not None
    train, holdout = split_rows(dataset, params)
    assert len(holdout) == 36
    assert times[train].max() < times[holdout].min()
    training = dataset.take(train)
    assert training.times is not None
    folds = make_folds(training, params)
    assert len(folds) == 4
    assert [len(fitted) for fitted, _ in folds] == sorted(len(fitted) for fitted, _ in folds)
    for fitted, tested in folds:
        assert training.times[fitted].max() < training.times[tested].min()


def test_a_time_column_may_be_left_out_of_the_features(tmp_path: Path) -> None:
    kept, _ = load(measurements(), tmp_path, time="day")
    dropped, params = load(measurements(), tmp_path, time="day", drop=("day",))
    assert "day" in kept.features
    assert "day" not in dropped.features
    assert len(split_rows(dropped, params)[1]) == 36


def test_rows_with_dates_keep_their_side_of_a_hash_split_in_parquet(tmp_path: Path) -> None:
    table = repeated(copies=1).assign(day=pd.date_range("2026-01-01", periods=50))
    from_csv, params = load(table, tmp_path, split="hash")
    table.to_parquet(tmp_path / "table.parquet", index=False)
    other = load_dataset(
        TrainParams(data=str(tmp_path / "table.parquet"), target="kind", name="own", split="hash")
    )
    assert [rows.tolist() for rows in split_rows(from_csv, params)] == [
        rows.tolist() for rows in split_rows(other, params)
    ]


def test_folds_are_repeated_with_other_seeds(tmp_path: Path) -> None:
    dataset, params = load(repeated(copies=1), tmp_path, cv="4x3")
    folds = make_folds(dataset, params)
    assert len(folds) == 12
    assert folds[0][1].tolist() != folds[4][1].tolist()
    assert folds[0][1].tolist() == make_folds(dataset, params)[0][1].tolist()


SPLITS = [
    pytest.param(repeated, {}, id="rows"),
    pytest.param(repeated, {"split": "hash"}, id="hash", marks=LONG),
    pytest.param(patients, {"group": "patient"}, id="group"),
    pytest.param(
        patients, {"group": "patient", "split": "hash", "test_size": 0.35}, id="group-hash", marks=LONG
    ),
    pytest.param(measurements, {"time": "day", "drop": ("day",)}, id="time"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "values"), SPLITS)
def test_random_labels_give_chance_level_in_every_split(
    make: Callable[[int], pd.DataFrame], values: dict[str, Any], tmp_path: Path
) -> None:
    """A leak gives an error near 0, an r2 near 1, and values near 1 for metrics of classes."""
    found: dict[str, list[float]] = {}
    for seed in range(20):
        table = make(seed)
        table["number"] = (table["kind"] == "yes").astype(float)
        table["code"] = table["x"].round(1).map("c{:.1f}".format)  # text, encoded by the mean of the labels
        for target, other, task in (("kind", "number", CLASSIFICATION), ("number", "kind", REGRESSION)):
            dropped = (*values.get("drop", ()), other)
            given = {**values, "drop": dropped, "target": target, "task": task, "model": "knn", "cv": "3"}
            dataset, params = load(table, tmp_path, random_state=seed, **given)
            params = resolve_model(params.replace(model_params={"n_neighbors": 1}), dataset)
            train, holdout = split_rows(dataset, params)
            training = dataset.take(train)
            pairs = [(dataset, train, holdout), *((training, *fold) for fold in make_folds(training, params))]
            for place, (rows, fitted, tested) in enumerate(pairs):
                for name, value in scores_of_nearest_neighbour(params, rows, fitted, tested).items():
                    found.setdefault(f"{'cv' if place else 'holdout'} {name}", []).append(value)
    means = {name: float(np.nanmean(values)) for name, values in found.items()}
    assert len(means) == 2 * (len(METRICS) + 2)
    for name, mean in means.items():
        if name.endswith(("rmse", "log_loss", "median_absolute_error")):
            assert mean >= 0.35, means
        elif name.endswith("r2"):
            assert mean <= 0.1, means
        else:
            assert mean == pytest.approx(0.5, abs=0.15), means


def test_the_tables_of_random_labels_would_leak_in_a_split_by_rows(tmp_path: Path) -> None:
    values = {"model": "knn", "model_params": {"n_neighbors": 1}, "task": CLASSIFICATION}
    dataset, params = load(patients(), tmp_path, **values)
    train = np.arange(0, 150, 2)
    assert scores_of_nearest_neighbour(params, dataset, train, train + 1)["accuracy"] > 0.9


def scores_of_nearest_neighbour(
    params: TrainParams, dataset: Dataset, fitted: np.ndarray, tested: np.ndarray
) -> dict[str, float]:
    """Return every metric of the task, by name, of an estimator that remembers its rows."""
    model = fit_pipeline(params, dataset.features, dataset.take(fitted))
    tested_rows = dataset.take(tested)
    outcomes = predict_outcomes(model, tested_rows)
    names = [metric.name for metric in METRICS if metric.task == params.task]
    names += ["recall:yes", "precision:yes"] if params.task == CLASSIFICATION else []
    return {name: measure(find_metric(name, params.task), outcomes) for name in names}


def test_unusable_groups_times_and_weights_are_refused(tmp_path: Path) -> None:
    table = patients(count=4).assign(one="a", part=None, day="31/12/2026", below=-1.0)
    table.loc[table.index[0], "part"] = "a"
    for values, reason in (
        ({"group": "one"}, r"group=one: .*table.csv has only the group 'a'; two are needed"),
        ({"group": "part"}, "group=part: .* has 19 rows without a group"),
        ({"group": "ward"}, "group=ward: .* has no such column, only 'x', 'y', 'z', 'kind', 'patient'"),
        ({"time": "day"}, "time=day: row 0 of .* has '31/12/2026', which is no time: write 2026-01-31"),
        ({"weight": "below"}, "weight=below: row 0 of .* has '-1.0', which is no weight"),
        ({"weight": "kind"}, "weight=kind: the column is already target=kind"),
        ({"group": "x", "time": "x"}, "time=x: the column is already group=x"),
        (
            {"group": "patient", "time": "day"},
            "group=patient: time=day already chooses the held-out rows; set",
        ),
        ({"group": "x", "drop": ("x",)}, "group=x: the column is already drop=x"),
        ({"time": "day", "split": "hash"}, "split=hash: time=day already chooses the held-out rows"),
        ({"time": "day", "cv": "5x2"}, "cv=5x2: time gives the same folds in each repeat"),
    ):
        with pytest.raises((DataError, InvalidParameter), match=reason):
            load(table, tmp_path, **values)
    with pytest.raises(InvalidParameter, match="group=patient: needs data=FILE; iris has its own label"):
        TrainParams(group="patient")


def test_fewer_groups_or_times_than_folds_are_refused(tmp_path: Path) -> None:
    dataset, params = load(patients(count=4), tmp_path, group="patient")
    with pytest.raises(InvalidParameter, match="cv=5: group=patient has only 4 groups to train on"):
        check_folds(dataset, params)
    dataset, params = load(measurements(days=5), tmp_path, time="day")
    with pytest.raises(InvalidParameter, match="cv=5: time=day has only 5 different times to train on"):
        check_folds(dataset, params)


def test_a_class_that_one_side_would_lack_is_refused(tmp_path: Path) -> None:
    table = measurements(days=20)
    late, early = table["day"] > "2026-01-16", table["day"] < "2026-01-10"
    with pytest.raises(
        InvalidParameter,
        match=r"test_size=0\.2: no row of class 'new' would be left to train on: take another",
    ):
        split_rows(*load(table.assign(kind=np.where(late, "new", table["kind"])), tmp_path, time="day"))
    with pytest.raises(InvalidParameter, match=r"test_size=0\.2: no row of class 'old' would be held out"):
        split_rows(*load(table.assign(kind=np.where(early, "old", "yes")), tmp_path, time="day"))


def test_first_rows_of_one_class_shorten_the_cross_validation_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = measurements(days=30)
    table.loc[table["day"] < "2026-01-12", "kind"] = "no"
    dataset, params = load(table, tmp_path, time="day")
    check_folds(dataset, params)
    assert "3 folds instead of 5: the first rows have one class" in caplog.text
