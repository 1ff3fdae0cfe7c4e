"""Helpers of the monitoring tests: rows, prediction logs, labels, runs and baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.entities import Run
from sklearn.datasets import load_iris

from pipeline.cli import main
from pipeline.monitoring import figures
from pipeline.monitoring.data.window import CurrentWindow
from pipeline.monitoring.monitor import MonitorResult, monitor
from pipeline.params.definitions import MonitorParams
from pipeline.training import baseline
from registry_tools.evaluation import evaluate
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import GateResult, Verdict
from registry_tools.promotion import promote, rollback
from registry_tools.refs import ModelRef
from registry_tools.stats.metric import Outcomes
from tests.support.registries import Place

IRIS = load_iris(as_frame=True)
NAMES = [str(name) for name in IRIS.target_names]
SHIFTED = "sepal length (cm)"


def flowers(count: int = 240, seed: int = 0, shift: float = 0) -> tuple[pd.DataFrame, list[str]]:
    """Return rows drawn from Iris with one shifted column, and their correct class names."""
    chosen = np.random.default_rng(seed).integers(0, 150, count)
    rows = IRIS.data.iloc[chosen].reset_index(drop=True)
    rows[SHIFTED] += shift
    return rows, [NAMES[code] for code in IRIS.target[chosen]]


@dataclass(frozen=True)
class LogPart:
    """Rows that one version predicted, for one file of the prediction log."""

    version: int
    rows: pd.DataFrame
    predictions: Sequence[Any]  # names of classes; with `named` false, any values
    requests: Sequence[str] | None = None
    places: Sequence[int] | None = None  # in the request
    at: datetime | Sequence[datetime] | None = None
    named: bool = True
    probabilities: Sequence[Sequence[float]] | None = None


def write_log(folder: Path, name: str, *parts: LogPart) -> Path:
    """Write a prediction log; a test compares it with a log of the real server."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    before = len(list((folder / name).glob("*.parquet")))
    for number, part in enumerate(parts, before):
        count = len(part.rows)
        at = part.at if part.at is not None else datetime.now(timezone.utc)
        columns: dict[str, Any] = {
            str(column): pa.array(part.rows[column], from_pandas=True) for column in part.rows
        }
        codes = [NAMES.index(each) if each in NAMES else 0 for each in part.predictions]
        columns |= {
            "_request_id": pa.array(part.requests or [f"{number}-{row}" for row in range(count)]),
            "_row": pa.array(part.places or [0] * count, pa.int32()),
            "_at": pa.array([at] * count if isinstance(at, datetime) else at)
            .cast(pa.timestamp("us", "UTC")),
            "_model": pa.array([name] * count).dictionary_encode(),
            "_version": pa.array([part.version] * count, pa.int32()),
            "_prediction": pa.array(codes if part.named else list(part.predictions)),
        }  # fmt: skip
        if part.named:
            columns["_prediction_name"] = pa.array(list(part.predictions))
        if part.probabilities is not None:
            columns["_probabilities"] = pa.array(list(part.probabilities), pa.list_(pa.float64()))
        file = f"20260101T{number:06}-version-{part.version}-1-{number}.parquet"
        pq.write_table(pa.table(columns), folder / name / file)
    return folder


def run_monitor(name: str, current: Path | str, **options: Any) -> MonitorResult:
    return monitor(MonitorParams(name=name, current=str(current), **options))


def monitor_output(capsys: Any, *argv: str | Path, code: int = 0) -> list[str]:
    """Run the command and return its lines; of an error, the one that stands on stderr."""
    assert main(["monitor", *map(str, argv)]) == code, capsys.readouterr()
    out, err = capsys.readouterr()
    if code in {0, 4}:
        return out.splitlines()
    assert err.startswith("pipeline: error: ")
    assert err.count("\n") == 1, err
    assert "unexpected" not in err
    return [err.strip()]


def action_outcomes(result: MonitorResult) -> list[tuple[str, str]]:
    return [(action.action, action.outcome) for action in result.actions]


def run_of(place: Place, result: MonitorResult) -> Run:
    return place.client.get_run(result.run_id)


def last_run(place: Place, name: str) -> Any:
    experiment = place.client.get_experiment_by_name(f"{name}-monitoring")
    return place.client.search_runs([experiment.experiment_id], "tags.kind = 'monitoring'", max_results=1)[0]


_png = figures._png


@pytest.fixture(autouse=True)
def fewer_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw only one feature and save no figure, because drawing takes most of the time of a run."""
    monkeypatch.setattr(figures, "MAX_FEATURES", 1)
    monkeypatch.setattr(figures, _png.__name__, lambda _: b"not drawn")


@pytest.fixture
def drawn(fewer_figures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the figures after all, for tests of rows that are difficult to draw."""
    monkeypatch.setattr(figures, _png.__name__, _png)


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every gate pass, to save time in tests that are not about gates."""
    verdict = Verdict((GateResult("none", True, "not judged here"),))
    monkeypatch.setattr(promote, evaluate.evaluate.__name__, lambda *_: verdict)
    monkeypatch.setattr(rollback, evaluate.evaluate_rollback.__name__, lambda *_: verdict)


def promoted_versions(place: Place, *versions: int) -> str:
    """Register versions of a new model, promote each to production in turn, and return the name."""
    name = place.model(*versions)
    for version in range(1, len(versions) + 1):
        ref = ModelRef(name, version=version)
        promote.promote(place.client, ref, "production", GateOptions(), reason="test")
    return name


def labelled(folder: Path, right: Sequence[str], wrong: int) -> Path:
    """Write labels for a log of one part; `wrong` of the predictions are incorrect."""
    other = {name: NAMES[(NAMES.index(name) + 1) % 3] for name in NAMES}
    given = [other[name] if n < wrong else name for n, name in enumerate(right)]
    path = folder / "labels.csv"
    ids = [f"0-{n}" for n in range(len(right))]
    pd.DataFrame({"request_id": ids, "label": given}).to_csv(path, index=False)
    return path


def grown_table(folder: Path, shift: float = 2, count: int = 600) -> Path:
    """Write a table for a retraining: the rows of Iris, and labelled production data."""
    current, right = flowers(count, seed=3, shift=shift)
    random = np.random.default_rng(4)
    current += random.normal(0, 0.05, current.shape)
    before = IRIS.data.assign(species=[NAMES[code] for code in IRIS.target])
    path = folder / "grown.csv"
    pd.concat([before, current.assign(species=right)]).to_csv(path, index=False)
    return path


def small(columns: dict[str, Any] | None = None) -> baseline.TrainingBaseline:
    """Return a baseline with the classes cat and dog, with 9 of 10 holdout predictions correct."""
    right = np.array(["cat", "dog"] * 5, dtype=object)
    predicted = right.copy()
    predicted[0] = "dog"
    training = pd.DataFrame(columns or {"x": np.arange(40.0)})
    return baseline.make_baseline(training, "kind", Outcomes(right, predicted))


def predicted_window(
    predictions: Sequence[str],
    columns: dict[str, Any] | None = None,
    requests: Sequence[str] | None = None,
    places: Sequence[int] | None = None,
) -> CurrentWindow:
    count = len(predictions)
    keys = {
        "request": pa.array(requests or [f"r{n}" for n in range(count)]),
        "row": pa.array(places or [0] * count, pa.int64()),
    }
    table = pa.table(columns or {"x": np.zeros(count)})
    return CurrentWindow(table, pa.chunked_array([pa.array(predictions, pa.string())]), pa.table(keys))


def mixed(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    colour = random.choice(["red", "green", "blue"], rows).astype(object)
    tame = random.choice([True, False], rows).astype(object)
    tame[random.random(rows) < 0.3] = None
    size = random.normal(0, 1, rows)
    size[random.random(rows) < 0.2] = np.nan
    return pd.DataFrame(
        {
            "size": size,
            "colour": np.where(random.random(rows) < 0.1, None, colour),
            "tame": tame,
            "sold": random.random(rows) < 0.5,
            "planet": "earth",
        }
    )
