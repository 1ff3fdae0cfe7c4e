"""Rows that a version was trained on are found among others, or are said to be unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.params.definitions import TrainParams
from pipeline.training.train import train
from registry_tools.cli.main import main
from registry_tools.evaluation.eval_data import read_eval_data
from registry_tools.evaluation.evaluate import evaluate
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.verdict import Verdict
from tests.support.constants import LONG
from tests.support.registries import Place


def _table(rows: int = 300) -> pd.DataFrame:
    """Two numbers, a code of which text and number differ, and a label that the first decides."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=rows).round(6)
    code = rng.choice(["0100", "100", "1e2", "A7"], rows)
    kind = np.where(x + rng.normal(0, 0.4, rows) > 0, "yes", "no")
    return pd.DataFrame({"x": x, "y": rng.normal(size=rows).round(6), "code": code, "kind": kind})


@pytest.fixture(scope="module")
def name(sqlite_place: Place, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Versions trained on x and y (1), on x (2), on x, y and code (3), each on other rows."""
    made, folder = "columns", tmp_path_factory.mktemp("columns")
    _table().to_csv(folder / "rows.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(sqlite_place.files)
        patch.setenv("MLFLOW_TRACKING_URI", sqlite_place.uri)
        for seed, drop in enumerate([("code",), ("y", "code"), ()], start=1):
            train(
                TrainParams(
                    name=made, data=str(folder / "rows.csv"), target="kind", drop=drop,
                    random_state=seed, plots=False,
                )
            )  # fmt: skip
    return made


def _verdict(place: Place, name: str, candidate: int, champion: int, **options: object) -> Verdict:
    gates = GateOptions(margin=0.9, **options)  # type: ignore[arg-type]
    return evaluate(place.client, place.version(name, candidate), place.version(name, champion), gates)


def _messages(verdict: Verdict) -> dict[str, tuple[bool, str]]:
    return {gate.gate: (gate.passed, gate.message) for gate in verdict.gates}


@pytest.mark.slow
def test_training_rows_with_a_column_that_the_candidate_dropped_are_unknown(local: Place, name: str) -> None:
    passed, message = _messages(_verdict(local, name, candidate=2, champion=1))["champion"]
    assert not passed
    assert message == (
        f"it is unknown which of the rows {name} version 1 was trained on: it was trained with 'y', "
        "which the rows lack; give --eval-data FILE --target COLUMN, with 'y' in the file"
    )


def test_training_rows_are_found_in_a_holdout_with_a_column_more(local: Place, name: str) -> None:
    verdict = _verdict(local, name, candidate=3, champion=1)
    metrics = {gate.gate: gate.metrics for gate in verdict.gates}["champion"]
    assert metrics["rows"] + metrics["excluded_rows"] == 60
    assert 40 <= metrics["excluded_rows"] <= 56  # four rows of five were in the training of both


@LONG
@pytest.mark.slow
def test_evaluation_data_tells_the_training_rows_of_both_versions(
    local: Place, name: str, tmp_path: Path
) -> None:
    new = _table(400)[300:]
    new.to_csv(tmp_path / "new.csv", index=False)
    _table().to_csv(tmp_path / "old.csv", index=False)
    new.drop(columns="y").to_csv(tmp_path / "short.csv", index=False)
    given = _verdict(local, name, 2, 1, eval_data=read_eval_data(tmp_path / "new.csv", "kind"))
    assert {gate.gate: gate.metrics for gate in given.gates}["champion"]["rows"] > 90
    trained_on = _messages(
        _verdict(local, name, 2, 1, eval_data=read_eval_data(tmp_path / "old.csv", "kind"))
    )
    assert trained_on["clean_holdout"][1].startswith("240 of 300 rows are training rows")
    short = read_eval_data(tmp_path / "short.csv", "kind")
    assert "give --eval-data FILE" in _messages(_verdict(local, name, 2, 1, eval_data=short))["champion"][1]
    # The candidate takes y as well: it cannot predict without.
    assert not _verdict(local, name, 1, 2, eval_data=short).passed


@LONG
@pytest.mark.slow
@pytest.mark.parametrize(
    ("learnt", "judged"), [("csv", "parquet"), ("parquet", "csv"), ("parquet", "parquet")]
)
def test_training_rows_with_dates_are_found_in_another_format(
    sqlite_place: Place, learnt: str, judged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sqlite_place.files)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_place.uri)
    table = _table()[["x", "kind"]].assign(day=pd.date_range("2026-01-01", periods=300, freq="D"))
    table.to_csv(tmp_path / "rows.csv", index=False)
    table.to_parquet(tmp_path / "rows.parquet", index=False)
    made = f"dates-{learnt}-{judged}"
    train(TrainParams(name=made, data=str(tmp_path / f"rows.{learnt}"), target="kind", plots=False, cv="2"))
    data = read_eval_data(tmp_path / f"rows.{judged}", "kind")
    verdict = evaluate(sqlite_place.client, sqlite_place.version(made, 1), None, GateOptions(eval_data=data))
    clean = {gate.gate: gate for gate in verdict.gates}["clean_holdout"]
    assert not clean.passed
    assert clean.message.startswith("240 of 300 rows are training rows")


@pytest.mark.slow
def test_codes_in_evaluation_data_are_the_text_that_the_version_was_trained_on(
    local: Place, name: str, tmp_path: Path
) -> None:
    rows = _table()
    rows[rows["code"] != "A7"].to_csv(tmp_path / "codes.csv", index=False)  # all read as 100
    data = read_eval_data(tmp_path / "codes.csv", "kind")
    assert pd.api.types.is_numeric_dtype(data.rows.rows["code"])
    found = {gate.gate: gate for gate in _verdict(local, name, 3, 1, eval_data=data).gates}
    trained = found["clean_holdout"].metrics["shared_rows"] / (rows["code"] != "A7").sum()
    assert found["predictions"].passed
    assert 0.7 < trained < 0.9


@pytest.mark.slow
def test_training_rows_that_were_rounded_to_float32_are_unknown(
    local: Place, name: str, tmp_path: Path
) -> None:
    rows = _table()
    for dtype in ("float64", "float32"):
        rows.astype({"x": dtype, "y": dtype}).to_parquet(tmp_path / f"{dtype}.parquet", index=False)
    wide = _verdict(local, name, 3, 1, eval_data=read_eval_data(tmp_path / "float64.parquet", "kind"))
    assert "240 of 300 rows are training rows" in _messages(wide)["clean_holdout"][1]
    data = read_eval_data(tmp_path / "float32.parquet", "kind")
    found = _messages(_verdict(local, name, 3, 1, eval_data=data))
    for gate, version in (("clean_holdout", 3), ("champion", 1)):
        passed, message = found[gate]
        assert not passed
        assert f"unknown which of the rows {name} version {version} was trained on: 'x'" in message
        assert "float32 values" in message
        assert "as float64 or CSV" in message


@pytest.mark.slow
def test_rows_that_a_version_was_trained_on_as_float32_are_found_among_float64(
    local: Place, tmp_path: Path
) -> None:
    rows = _table().drop(columns="code")
    narrow = rows.astype({"x": "float32", "y": "float32"})
    narrow.to_parquet(tmp_path / "narrow.parquet", index=False)
    train(TrainParams(name="narrow", data=str(tmp_path / "narrow.parquet"), target="kind", plots=False))
    rows.to_csv(tmp_path / "wide.csv", index=False)
    narrow.astype({"x": "float64", "y": "float64"}).to_parquet(tmp_path / "rounded.parquet", index=False)
    for file in ("narrow.parquet", "wide.csv", "rounded.parquet"):
        data = read_eval_data(tmp_path / file, "kind")
        gates = {gate.gate: gate for gate in _verdict(local, "narrow", 1, 1, eval_data=data).gates}
        assert gates["clean_holdout"].message.startswith("240 of 300 rows are training rows"), file
        assert gates["champion"].metrics["rows"] == 60
        assert gates["champion"].metrics["excluded_rows"] == 240


def test_a_comparison_says_that_the_training_rows_are_unknown(
    local: Place, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", f"{name}/2", f"{name}/1"]) == 0
    assert f"not compared on the same rows: it is unknown which of the rows {name} version 1" in (
        capsys.readouterr().out
    )
    _table().drop(columns="y").to_csv("short.csv", index=False)
    short = ["--eval-data", "short.csv", "--target", "kind"]
    capsys.readouterr()
    assert main(["compare", f"{name}/2", f"{name}/1", *short]) == 1
    err = capsys.readouterr().err
    assert "not compared on short.csv: it is unknown" in err
    assert "with 'y' in the file" in err
    assert main(["compare", f"{name}/1", f"{name}/2"]) == 0
    assert "rows that neither was trained on" in capsys.readouterr().out
