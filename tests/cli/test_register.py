"""The command `register`: from a joblib file to a version with evidence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from mlflow import MlflowClient
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline import save_model, train_iris_model
from registry_tools import VerificationError, load_model, register, verify
from registry_tools.cli.main import main
from registry_tools.mlflow_store import runs
from registry_tools.models import artifacts
from registry_tools.policy.tag_names import DIGEST_TAG
from tests.support.commands import error_of, run
from tests.support.constants import IRIS_COLUMNS, IRIS_ROW, LONG
from tests.support.estimators import Tracer
from tests.support.registries import Place

NAMES = ["setosa", "versicolor", "virginica"]
IRIS = load_iris(as_frame=True)


def options(data: str = "rows.csv", target: str = "species", *others: str) -> list[str]:
    return ["--name", "lesson", "--eval-data", data, "--target", target, *others]


ALLOWED = [*options(), "--allow-code", "--target-names", ",".join(NAMES)]


@pytest.fixture
def files(store: str, tmp_path: Path) -> Path:
    """An empty registry, and in the current folder a model and the rows that it did not train on."""
    model, _, X_test, y_test, target_names = train_iris_model()
    save_model(model, "iris_model.joblib")
    rows = pd.DataFrame(X_test, columns=IRIS_COLUMNS)
    rows.assign(species=target_names[y_test]).to_csv("rows.csv", index=False)
    rows.assign(species=y_test).to_csv("codes.csv", index=False)
    return tmp_path


def test_a_model_of_arrays_becomes_a_version_with_evidence(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["register", "iris_model.joblib", *ALLOWED]) == 0
    assert capsys.readouterr().out == (
        "registered  lesson version 1: LogisticRegression, 20 recorded predictions\n"
        "accuracy    0.9667 on 30 held-out rows, 0.3333 for always predicting the commonest class\n"
        "unknown     training rows of lesson version 1: no check can show that the held-out rows are not "
        "among them\n"
    )
    model = load_model("lesson/1")  # without allow_code: it is skops, and warnings are errors here
    assert model.predict_names([IRIS_ROW]).tolist() == ["versicolor"]
    assert [column.name for column in model.info.signature or ()] == IRIS_COLUMNS
    assert verify("lesson/1").passed
    shown = run(capsys, "show", "lesson/1")
    assert shown["metrics"]["accuracy"] == pytest.approx(29 / 30)
    assert (shown["stages"], shown["last_event"]) == ([], None)


@pytest.mark.slow
def test_a_pipeline_is_asked_for_its_columns_by_name(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = IRIS.data.round().astype(int)
    names = IRIS.target_names[IRIS.target]
    model = make_pipeline(StandardScaler(), LogisticRegression())
    joblib.dump(model.fit(rows[::2], names[::2]), "named.joblib")
    held_out = rows[1::2].iloc[:, ::-1].assign(day=range(75), species=names[1::2])
    held_out.to_csv("named.csv", index=False)
    run(capsys, "register", "named.joblib", *options("named.csv"), "--allow-code")
    info = load_model("lesson/1").info
    assert [(column.name, column.type) for column in info.signature or ()] == [
        (name, "double") for name in IRIS_COLUMNS
    ]
    assert info.target_names is None
    held_out.drop(columns=IRIS_COLUMNS[0]).to_csv("named.csv", index=False)
    err = error_of(capsys, "register", "named.joblib", *options("named.csv"), "--allow-code")
    assert f"named.csv has no column {IRIS_COLUMNS[0]!r}, which named.joblib was trained on; it has" in err


@pytest.mark.slow
def test_a_pipeline_of_arrays_predicts_named_rows_without_a_warning(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    joblib.dump(model.fit(IRIS.data.to_numpy()[::2], IRIS.target[::2]), "scaled.joblib")
    run(capsys, "register", "scaled.joblib", *ALLOWED)
    assert load_model("lesson/1").predict([IRIS_ROW]).tolist() == [1]


def test_no_code_of_the_file_runs_unless_you_allow_it(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joblib.dump(Tracer(str(files / "executed")).fit(IRIS.data, IRIS.target > 0), "hostile.joblib")
    err = error_of(capsys, "register", "hostile.joblib", *options())
    assert "hostile.joblib: reading a joblib file runs the code in it" in err
    assert "give --allow-code" in err
    assert not (files / "executed").exists()
    with pytest.raises(VerificationError, match="allow_code=True"):
        register("hostile.joblib", "x", eval_data="rows.csv", target="species")
    assert not (files / "executed").exists()
    # With it the code runs here, but the version would need the type wherever it is loaded.
    rows = IRIS.data.assign(species=IRIS.target > 0)
    rows.to_csv("two.csv", index=False)
    err = error_of(capsys, "register", "hostile.joblib", *options("two.csv"), "--allow-code")
    assert (files / "executed").exists()
    assert "types that are not trusted: tests.support.estimators.Tracer" in err
    assert "--trust TYPE" in err


def write_text(path: Path) -> None:
    path.write_text("no model")


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


def write_array(path: Path) -> None:
    joblib.dump(np.arange(3), path)


def write_unfitted(path: Path) -> None:
    joblib.dump(LogisticRegression(), path)


def write_unfitted_regressor(path: Path) -> None:
    joblib.dump(LinearRegression(), path)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (write_text, "joblib cannot read it"),
        (write_nothing, "joblib cannot read it: EOFError"),
        (write_array, "contains a ndarray, not a fitted scikit-learn classifier"),
        (write_unfitted, "contains a LogisticRegression, not a fitted scikit-learn classifier"),
        (write_unfitted_regressor, "contains a LinearRegression, not a fitted scikit-learn classifier"),
    ],
)
def test_a_file_without_a_fitted_classifier_is_refused(
    write: Callable[[Path], None], reason: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(files / "other.joblib")
    err = error_of(capsys, "register", "other.joblib", *ALLOWED)
    assert f"other.joblib{': ' if reason.startswith('joblib') else ' '}{reason}" in err
    assert "joblib.dump(model, path)" in err or "with joblib.dump" in err


def test_a_type_beyond_the_allow_list_is_named(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_pipeline(
        StandardScaler(), MLPClassifier((10,), learning_rate_init=0.1, tol=1e-3, random_state=0)
    )
    joblib.dump(model.fit(IRIS.data.to_numpy(), IRIS.target), "network.joblib")
    adam = "sklearn.neural_network._stochastic_optimizers.AdamOptimizer"
    err = error_of(capsys, "register", "network.joblib", *ALLOWED)
    assert f"types that are not trusted: {adam}; if you know them, give --trust TYPE" in err
    assert main(["list", "lesson"]) == 1  # nothing was registered
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.joblib", *ALLOWED], "none.joblib: the file does not exist (looked in "),
        (["iris_model.joblib", *options(), "--allow-code"], "name the classes in this order with --target"),
        (
            ["iris_model.joblib", *ALLOWED[:-1], "setosa,versicolor"],
            "--target-names setosa,versicolor: 2 names, but iris_model.joblib predicts 0, 1, 2: give a name",
        ),
        (["iris_model.joblib", *options("none.csv"), "--allow-code"], "none.csv: the file does not exist"),
        (["iris_model.joblib", *options(target="kind"), "--allow-code"], "--target kind: rows.csv has no"),
        (
            ["iris_model.joblib", *options("wide.csv"), *ALLOWED[6:]],
            "wide.csv has 5 columns besides 'species', but iris_model.joblib was trained on 4 without names",
        ),
        (["iris_model.joblib", *options("few.csv"), *ALLOWED[6:]], "few.csv has 10 rows, 20 are needed"),
        pytest.param(
            ["iris_model.joblib", *options("shuffled.csv"), *ALLOWED[6:]],
            "iris_model.joblib predicts 'species' with accuracy ",
            marks=pytest.mark.slow,
        ),
        (["iris_model.joblib", *options("text.csv"), *ALLOWED[6:]], "cannot predict these rows: could not"),
    ],
)
def test_a_refusal_names_the_value_and_registers_nothing(
    arguments: list[str], reason: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pd.read_csv("rows.csv")
    rows.assign(day=range(30)).to_csv("wide.csv", index=False)
    rows.head(10).to_csv("few.csv", index=False)
    rows.assign(**{IRIS_COLUMNS[0]: "long"}).to_csv("text.csv", index=False)
    mixed = rows["species"].sample(frac=1, random_state=0).to_numpy()
    rows.assign(species=mixed).to_csv("shuffled.csv", index=False)
    assert reason in error_of(capsys, "register", *arguments)
    assert run(capsys, "list") == []


def test_the_options_that_it_needs_are_asked_for(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["register", "iris_model.joblib"]) == 2
    assert "Missing option '--name'" in capsys.readouterr().err
    err = error_of(capsys, "register", "iris_model.joblib", *ALLOWED[2:], "--name", "a/b", code=2)
    assert "model name 'a/b' is not usable" in err


@LONG
@pytest.mark.slow
def test_a_new_registry_is_made_only_for_a_version(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{files}/new.db"
    error_of(capsys, "register", "iris_model.joblib", *options("codes.csv"), "--tracking-uri", uri)
    assert not (files / "new.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    # Codes as labels, without names.
    done = run(capsys, "register", "iris_model.joblib", *options("codes.csv"), "--allow-code")
    assert (done["version"], done["estimator"], done["training_rows"]) == (1, "LogisticRegression", None)
    assert load_model("lesson/1").info.target_names is None
    assert verify("lesson/1", tracking_uri=uri).passed


@pytest.mark.slow
def test_a_failed_upload_ends_the_run_as_failed(
    files: Path, local: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)

    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "add_files", full)
    assert main(["register", "iris_model.joblib", *ALLOWED]) == 1
    experiment = local.client.get_experiment_by_name("lesson")
    (run_of,) = local.client.search_runs([experiment.experiment_id])
    assert run_of.info.status == "FAILED"


@pytest.mark.slow
def test_the_files_hold_nothing_that_needs_trust(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "register", "iris_model.joblib", *ALLOWED)
    client = MlflowClient()
    with artifacts.model_files(client, "lesson", 1) as folder:
        assert skops.io.get_untrusted_types(file=folder / "model.skops") == []
        assert not list(folder.glob("*.pkl"))
    assert DIGEST_TAG in client.get_model_version("lesson", "1").tags


@LONG
@pytest.mark.slow
def test_a_version_with_a_trusted_type_is_promoted(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_pipeline(
        StandardScaler(), MLPClassifier((10,), learning_rate_init=0.1, tol=1e-3, random_state=0)
    )
    joblib.dump(model.fit(IRIS.data.to_numpy(), IRIS.target), "network.joblib")
    trust = ["--trust", "sklearn.neural_network._stochastic_optimizers.AdamOptimizer"]
    assert run(capsys, "register", "network.joblib", *ALLOWED, *trust)["version"] == 1
    assert main(["promote", "lesson/1", "--to", "production", *trust]) == 0
    assert "moved   lesson production: version none → 1" in capsys.readouterr().out
