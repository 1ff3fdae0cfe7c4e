"""The join of labels with predictions, and the live accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import DataError
from pipeline.monitoring.data import labels
from pipeline.monitoring.data.window import CurrentWindow
from pipeline.training import baseline
from registry_tools.mlflow_store import stages
from registry_tools.stats.metric import Outcomes
from tests.support.monitored import (
    NAMES,
    LogPart,
    flowers,
    labelled,
    last_run,
    monitor_output,
    predicted_window,
    run_monitor,
    small,
    write_log,
)
from tests.support.registries import Place


def joined(tmp_path: Path, table: dict[str, Any], window: CurrentWindow) -> labels.LabelledPredictions:
    path = tmp_path / "labels.parquet"
    pd.DataFrame(table).to_parquet(path, index=False)
    return labels.join_labels(labels.read_labels(path, "kind"), window, small())


def counted(live: labels.LabelledPredictions) -> tuple[int, int]:
    """Return the number of labelled predictions, and of the correct ones."""
    return live.rows, int((live.outcomes.labels == live.outcomes.predicted).sum())


PREDICTED = ["cat", "dog", "cat", "dog"]
IDS = ["r0", "r1", "r2", "r3"]


def test_labels_are_joined_by_the_id_of_the_request_in_any_order(tmp_path: Path) -> None:
    live = joined(
        tmp_path,
        {"request_id": IDS[::-1], "label": ["cat", "cat", "dog", "cat"]},
        predicted_window(PREDICTED),
    )
    assert (counted(live), live.notes) == ((4, 3), ())


def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    table = {"request_id": ["r1", "r3", "r2"], "kind": ["dog", "cat", None]}
    live = joined(tmp_path, table, predicted_window(PREDICTED))
    assert (counted(live), live.notes) == ((2, 1), ("2 of 4 rows have no label",))


def test_labels_that_were_given_twice_count_once(tmp_path: Path) -> None:
    table = {"_request_id": [*IDS, "r0", "r0"], "label": ["cat", "dog", "cat", "dog", "cat", "cat"]}
    live = joined(tmp_path, table, predicted_window(PREDICTED))
    assert (counted(live), live.notes) == ((4, 4), ("2 labels occur twice; each counts once",))


def test_contradictory_labels_are_left_out_and_reported(tmp_path: Path) -> None:
    table = {"request_id": [*IDS, "r0"], "label": ["cat", "dog", "cat", "dog", "dog"]}
    live = joined(tmp_path, table, predicted_window(PREDICTED))
    assert counted(live) == (3, 3)
    assert "1 rows have labels that contradict each other; they are left out" in live.notes


def test_a_row_with_contradictory_labels_is_not_reported_as_unlabelled(tmp_path: Path) -> None:
    table = {"request_id": [*IDS, "r0"], "label": ["cat", "dog", "cat", "dog", "dog"]}
    assert not [n for n in joined(tmp_path, table, predicted_window(PREDICTED)).notes if "no label" in n]


def test_labels_spelt_differently_from_the_predictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the labels are '0', '1', but the version predicts 'cat', 'dog'"):
        joined(tmp_path, {"request_id": IDS, "label": [0, 1, 0, 1]}, predicted_window(PREDICTED))


def test_labels_of_a_request_of_several_rows_need_a_row_number(tmp_path: Path) -> None:
    window = predicted_window(PREDICTED, requests=["a", "a", "b", "b"], places=[0, 1, 0, 1])
    live = joined(tmp_path, {"request_id": ["a", "b"], "label": ["cat", "cat"]}, window)
    assert live.rows == 0
    assert live.notes[0] == (
        "2 requests have several predictions, and the labels have no column 'row'; they are left out"
    )
    table = {"request_id": ["a", "b", "a"], "row": [1, 0, 0], "label": ["dog", "dog", "cat"]}
    live = joined(tmp_path, table, window)
    assert (counted(live), live.notes) == ((3, 2), ("1 of 4 rows have no label",))


def test_labels_of_other_requests_are_reported(tmp_path: Path) -> None:
    table = {"request_id": ["x", "y"], "label": ["cat", "dog"]}
    live = joined(tmp_path, table, predicted_window(PREDICTED))
    assert live.rows == 0
    assert "the request ids differ: the labels have 'x', the rows have 'r0'" in live.notes


@pytest.mark.slow
def test_late_labels_do_not_stop_the_monitoring_run(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    log = write_log(tmp_path / "log", model, LogPart(1, *flowers(240, shift=3)))
    pd.DataFrame({"request_id": ["of", "yesterday"], "label": "setosa"}).to_csv("l.csv", index=False)
    options = ("--name", model, "--current", str(log), "--labels", "l.csv")
    lines = monitor_output(capsys, *options, code=4)
    assert lines[0].startswith("DRIFT")
    assert any("the request ids differ: the labels have 'of'" in line for line in lines)


def test_labels_without_a_column_to_join_by_are_refused(tmp_path: Path) -> None:
    for table, message in (
        ({"id": IDS, "label": PREDICTED}, "the table has no column 'request_id'; it has 'id', 'label'"),
        ({"request_id": IDS, "class": PREDICTED}, "the table has no column 'label' or 'kind'"),
    ):
        with pytest.raises(DataError, match=message):
            joined(tmp_path, table, predicted_window(PREDICTED))


def test_rows_without_the_id_of_a_request_cannot_be_labelled(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    flowers()[0].to_csv(tmp_path / "now.csv", index=False)
    pd.DataFrame({"request_id": IDS, "label": "setosa"}).to_csv(tmp_path / "l.csv", index=False)
    options = ("--name", model, "--current", "now.csv", "--labels", "l.csv")
    (line,) = monitor_output(capsys, *options, code=1)
    assert "the rows have no column 'request_id'" in line


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_numbers_as_labels_may_have_missing_values(form: str, tmp_path: Path) -> None:
    right = np.array(["0", "1"] * 5, dtype=object)
    own = baseline.make_baseline(pd.DataFrame({"x": np.arange(40.0)}), "kind", Outcomes(right, right))
    table = pd.DataFrame({"request_id": IDS, "kind": [0, 1, np.nan, 0]})
    path = tmp_path / f"labels.{form}"
    table.to_csv(path, index=False) if form == "csv" else table.to_parquet(path, index=False)
    live = labels.join_labels(labels.read_labels(path, "kind"), predicted_window(["0", "1", "0", "1"]), own)
    assert counted(live) == (3, 2)


@pytest.mark.parametrize("text", ["NA", "nan", "None", "NULL", ""])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_label_that_is_not_known_yet_is_missing(form: str, text: str, tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"request_id": [*IDS, "r0"], "label": ["cat", text or None, "cat", text or None, text or None]}
    )
    path = tmp_path / f"labels.{form}"
    table.to_csv(path, index=False) if form == "csv" else table.to_parquet(path, index=False)
    live = labels.join_labels(labels.read_labels(path, "kind"), predicted_window(PREDICTED), small())
    assert (counted(live), live.notes) == ((2, 2), ("2 of 4 rows have no label",))


def test_a_class_with_the_name_of_a_missing_value_is_a_label(tmp_path: Path) -> None:
    right = np.array(["NA", "EU"] * 5, dtype=object)
    own = baseline.make_baseline(pd.DataFrame({"x": np.arange(40.0)}), "region", Outcomes(right, right))
    path = tmp_path / "labels.csv"
    path.write_text("request_id,label\nr0,NA\nr1,NA\nr2,\nr3,null\n")
    live = labels.join_labels(
        labels.read_labels(path, "region"), predicted_window(["NA", "EU", "NA", "EU"]), own
    )
    assert counted(live) == (2, 1)


def test_integers_with_a_text_for_missing_labels_are_classes(tmp_path: Path) -> None:
    right = np.array(["0", "1"] * 5, dtype=object)
    own = baseline.make_baseline(pd.DataFrame({"x": np.arange(40.0)}), "kind", Outcomes(right, right))
    path = tmp_path / "labels.csv"
    path.write_text("request_id,label\nr0,0.0\nr1,1.0\nr2,NA\nr3,0.0\n")
    live = labels.join_labels(labels.read_labels(path, "kind"), predicted_window(["0", "1", "0", "1"]), own)
    assert counted(live) == (3, 2)


def test_labels_that_are_not_known_yet_roll_nothing_back(local: Place, model: str, tmp_path: Path) -> None:
    rows, right = flowers(240)
    log = write_log(tmp_path / "log", model, LogPart(1, rows, right))
    later = ["NA" if n % 2 else name for n, name in enumerate(right)]
    table = pd.DataFrame({"request_id": [f"0-{n}" for n in range(240)], "label": later})
    table.to_csv(tmp_path / "labels.csv", index=False)
    result = run_monitor(model, log, labels=str(tmp_path / "labels.csv"), rollback=True)
    assert result.analysis.performance is not None
    assert (result.analysis.performance.rows, result.analysis.performance.live.value) == (120, 1)
    assert result.actions == ()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_true_and_false_may_be_labels(form: str, tmp_path: Path) -> None:
    right = np.array(["False", "True"] * 5, dtype=object)  # as a training names them
    own = baseline.make_baseline(pd.DataFrame({"x": np.arange(40.0)}), "kind", Outcomes(right, right))
    table = pd.DataFrame({"request_id": IDS, "kind": [False, True, True, True]})
    path = tmp_path / f"labels.{form}"
    table.to_csv(path, index=False) if form == "csv" else table.to_parquet(path, index=False)
    window = predicted_window(["False", "True", "False", "True"])
    live = labels.join_labels(labels.read_labels(path, "kind"), window, own)
    assert counted(live) == (4, 3)


def test_live_accuracy_is_reported_with_its_interval_beside_the_promotion(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    rows, right = flowers(240)
    log = write_log(tmp_path / "log", model, LogPart(1, rows, right))
    path = labelled(tmp_path, right, wrong=12)
    lines = monitor_output(capsys, "--name", model, "--current", log, "--labels", path)
    # Wilson's interval for 228 of 240.
    assert lines[1] == ("accuracy  0.9500 [0.9147, 0.9712] on 240 labelled rows, 0.9667 on 30 at promotion")
    run = local.client.get_run(lines[-1].split()[1])
    assert run.data.metrics["live/accuracy"] == 0.95
    assert run.data.metrics["live/accuracy_low"] == pytest.approx(0.9147, abs=1e-4)
    assert run.data.metrics["promoted/accuracy"] == pytest.approx(29 / 30)
    page = Path(run.info.artifact_uri.removeprefix("file://"), "report.html").read_text()
    assert "0.9147 to 0.9712" in page


def test_an_accuracy_that_has_fallen_is_drift(local: Place, model: str, tmp_path: Path) -> None:
    rows, right = flowers(240)
    log = write_log(tmp_path / "log", model, LogPart(1, rows, right))
    result = run_monitor(model, log, labels=str(labelled(tmp_path, right, wrong=120)))
    assert result.analysis.where() == "live accuracy"
    assert result.analysis.has_worsened
    assert result.actions == ()


def test_too_few_rows_without_predictions_are_unknown_with_labels_as_well(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    rows = flowers(50)[0].assign(request_id=[str(n) for n in range(50)])
    rows.to_csv(tmp_path / "now.csv", index=False)
    pd.DataFrame({"request_id": ["1"], "label": "setosa"}).to_csv("labels.csv", index=False)
    options = ("--name", model, "--current", "now.csv", "--labels", "labels.csv")
    assert monitor_output(capsys, *options)[0].startswith("unknown")


def test_labels_in_codes_are_refused_and_nothing_is_rolled_back(
    local: Place, model: str, tmp_path: Path, capsys: Any
) -> None:
    rows, right = flowers()
    log = write_log(tmp_path / "log", model, LogPart(1, rows, right))
    codes = [NAMES.index(name) for name in right]
    table = pd.DataFrame({"request_id": [f"0-{n}" for n in range(240)], "species": codes})
    table.to_csv(tmp_path / "labels.csv", index=False)
    options = ("--name", model, "--current", log, "--labels", "labels.csv", "--rollback", "true")
    (line,) = monitor_output(capsys, *options, code=1)
    assert "the labels are '0', '1', '2', but the version predicts 'setosa'" in line
    assert stages.stage_holder(local.client, model, "production") == 1
    assert last_run(local, model).info.status == "FAILED"
