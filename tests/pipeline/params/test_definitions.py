"""Parameters are equal in the dataclass, in MLproject and on the command line."""

from __future__ import annotations

import math
from pathlib import Path

import click
import pytest
import yaml

from pipeline.cli import cli, main
from pipeline.errors import InvalidParameter
from pipeline.estimators import ESTIMATORS
from pipeline.mlproject import render
from pipeline.params.config_file import read_config
from pipeline.params.definitions import MonitorParams, SweepParams, TrainParams
from pipeline.params.types import AUTO, Params, as_text
from tests.support.constants import ROOT


def test_mlproject_is_the_generated_file() -> None:
    assert (ROOT / "MLproject").read_text() == render(), "run make mlproject"


@pytest.mark.parametrize(("command", "params"), [("main", TrainParams), ("monitor", MonitorParams)])
def test_an_entry_point_passes_every_parameter_with_its_default(command: str, params: type[Params]) -> None:
    entry = yaml.safe_load(render())["entry_points"][command]
    fields = dict(params.model_fields)
    if fields["name"].default == AUTO:
        del fields["name"]  # MLflow would log `auto` in place of the name of the model
    assert list(entry["parameters"]) == list(fields)
    for name, field in fields.items():
        assert f"--{name.replace('_', '-')} {{{name}}}" in entry["command"]
        if name != "current":  # has to be given
            assert str(entry["parameters"][name]["default"]) == as_text(field.default), name


def test_the_command_line_has_an_option_for_every_parameter() -> None:
    command = cli.commands["train"]
    options = {option.name for option in command.params if isinstance(option, click.Option)}
    assert options == TrainParams.model_fields.keys() | {"config", "verbose"}


def test_every_parameter_that_an_estimator_takes_exists() -> None:
    names = TrainParams.model_fields.keys()
    for model in ESTIMATORS.values():
        assert {taken.rpartition("__")[2] for taken in model.takes} <= names


def test_the_defaults_are_equal_after_conversion_to_text_and_back() -> None:
    assert TrainParams(**{name: as_text(value) for name, value in TrainParams()}) == TrainParams()


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [
        ("test_size", "abc", "a fraction above 0 and below 1"),
        ("test_size", "0", "a fraction above 0 and below 1"),
        ("test_size", "1.0", "a fraction above 0 and below 1"),
        ("test_size", "nan", "a fraction above 0 and below 1"),
        ("test_size", "-5", "a whole number of rows from 1"),
        ("max_iter", "0", "from 1 to 1000000"),
        ("max_iter", "2.5", "from 1 to 1000000"),
        ("random_state", "-1", "from 0 to 4294967295"),
        ("random_state", "4294967296", "from 0 to 4294967295"),
        ("subset_size", "0", "a whole number of rows from 1"),
        ("subset_size", "-3", "a whole number of rows from 1"),
        ("model", "resnet", "logistic_regression, random_forest"),
        ("model_params", "C=1", "a JSON object"),
        ("model_params", "[1]", "a JSON object"),
        ("split", "random", "stratified or hash"),
        ("data", "", "'iris', the path or URL"),
        ("name", "a/b", "must not be empty"),
        ("stage", "v1", "MLflow reserves"),
        ("stage", "two words", "not a legal alias"),
        ("target", "kind", "iris has its own label"),
        ("drop", "a,,b", "column names separated by commas"),
        ("drop", "a,a", "different column names"),
        ("drop", '"a', "column names separated by commas"),
        ("drop", "a", "needs data=FILE"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_parameter_and_bounds(
    name: str, value: str, bounds: str
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        TrainParams(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}={value}: ")
    assert bounds in message
    assert "\n" not in message


def test_a_table_needs_a_target_and_hash_needs_a_fraction() -> None:
    with pytest.raises(InvalidParameter, match="target=none: a table needs"):
        TrainParams(data="table.csv")
    with pytest.raises(InvalidParameter, match="test_size=30: split=hash needs a fraction"):
        TrainParams(split="hash", test_size="30")


@pytest.mark.parametrize("given", [{}, {"name": "auto"}])
def test_your_own_table_needs_a_name_and_iris_has_one(given: dict[str, str]) -> None:
    assert TrainParams(**given).name == SweepParams(**given).name == "iris"
    for params in (TrainParams, SweepParams):
        with pytest.raises(InvalidParameter, match=r"^name=auto: data=t.csv needs .*: set name=MODEL$"):
            params(data="t.csv", target="kind", **given)
    assert TrainParams(data="t.csv", target="kind", name="iris").name == "iris"


def test_columns_to_leave_out_are_a_line_of_csv() -> None:
    texts = {"data": "table.csv", "target": "kind", "name": "own", "drop": 'id, "last, first"'}
    params = TrainParams(**texts)
    assert params.drop == ("id", "last, first")
    assert params.as_text()["drop"] == 'id,"last, first"'
    with pytest.raises(InvalidParameter, match="drop=kind: the label column cannot"):
        TrainParams(**{**texts, "drop": "kind"})


def test_a_stage_is_accepted_in_upper_and_lower_case() -> None:
    assert TrainParams(stage="Production").stage == "production"


@pytest.mark.parametrize(
    "values", [{"model": "resnet"}, {"max_iter": 0}, {"subset_size": -3}, {"stage": "v1"}, {"split": "x"}]
)
def test_the_constructor_checks_the_bounds(values: dict) -> None:
    with pytest.raises(InvalidParameter):
        TrainParams(**values)


def config(folder: Path, text: str) -> str:
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_a_file_gives_the_same_parameters_as_options(tmp_path: Path) -> None:
    text = """
        data: table.csv
        target: kind
        name: own
        drop: [id, "last, first"]
        dtypes: {zip: text}
        model_params: {C: 0.5}
        class_weight: {yes: 5, "no": 1.5}
        scale: false
        cv: 3
        test_size: 30
        plots: false
        subset_size: null
    """
    options = {
        "data": "table.csv", "target": "kind", "name": "own",
        "drop": 'id,"last, first"', "dtypes": "zip:text",
        "model_params": '{"C": 0.5}', "class_weight": '{"yes": 5, "no": 1.5}', "scale": "false", "cv": "3",
        "test_size": "30", "plots": "false", "subset_size": "none",
    }  # fmt: skip
    read = read_config(config(tmp_path, text.replace("yes:", '"yes":')))
    params = TrainParams(**read)
    assert params == TrainParams(**options)
    assert TrainParams(**read_config(config(tmp_path, params.as_yaml()))) == params


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("test_sze: 0.3", "test_sze=0.3: there is no such parameter; did you mean 'test_size'?"),
        ("test_size: 2.5", "test_size=2.5: must be a fraction above 0 and below 1"),
        ("max_iter: true", "max_iter=true: must be a whole number from 1 to 1000000"),
        ("max_iter: 5.0", "max_iter=5.0: must be a whole number from 1 to 1000000"),
        ("random_state: null", "random_state=none: must be a whole number from 0 to 4294967295"),
        ("model_params: [1]", "model_params=1: must be a JSON object"),
        ("class_weight: {a: -1}", 'class_weight={"a": -1}: must be balanced, or a JSON object'),
        ("cv: 1", "cv=1: must be a number of folds from 2 to 100"),
        ("class_weight: {1: 5, other: -2}", 'class_weight={"1": 5, "other": -2}: must be balanced'),
        ("data: http://[::1/t.csv\ntarget: a", "data=…: a URL is malformed"),
        ("name: 2026-02-30", "is not YAML"),
        ("name: a\nname: b", "is not YAML: line 1: name occurs twice"),
        ("name: [a", "is not YAML: line 1: expected ',' or ']'"),
        ("- a", "needs one parameter a line"),
        ("5: a", "needs one parameter a line"),
        ("", "needs one parameter a line"),
    ],
)
def test_a_wrong_file_is_one_line_with_exit_code_2(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--config", config(tmp_path, text)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_file_that_does_not_exist_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: cannot be read: No such file or directory" in capsys.readouterr().err


def test_options_override_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = config(tmp_path, "model: knn\nmax_iter: 0\n")
    assert main(["train", "--config", file, "--max-iter", "5", "--model", "resnet"]) == 2
    assert "model=resnet: must be auto or one of" in capsys.readouterr().err


def test_an_empty_key_of_a_file_is_no_value(tmp_path: Path) -> None:
    text = "data: t.csv\ntarget: kind\nname: own\ndrop:\ndtypes:\nmodel_params:\nthreshold:\n"
    assert TrainParams(**read_config(config(tmp_path, text))) == TrainParams(
        data="t.csv", target="kind", name="own"
    )


def test_nan_and_infinity_of_model_params_are_kept_in_the_file(tmp_path: Path) -> None:
    given = '{"missing": NaN, "max_delta_step": Infinity}'
    params = TrainParams(model="xgboost", model_params=given)
    again = TrainParams(**read_config(config(tmp_path, params.as_yaml())))
    assert again.as_text() == params.as_text()
    assert math.isnan(again.model_params["missing"])


def test_a_value_that_is_switched_off_is_logged_if_it_is_on_by_default() -> None:
    params = TrainParams(early_stopping=None, calibrate="none")
    assert params.as_text().items() >= {"early_stopping": "none", "calibrate": "none"}.items()
    assert "threshold" not in params.as_text()
    assert TrainParams(**params.as_text()) == params


@pytest.mark.parametrize(
    "address",
    [
        "https://user:hunter2@host/rows.csv",
        "https://host/rows.csv?sig=hunter2",
        "simplecache::https://user:hunter2@host/rows.csv",
        "zip://x.csv::https://host/a.zip?sig=hunter2",
    ],
)
def test_an_address_with_a_key_is_refused_without_showing_it(address: str) -> None:
    for params, values in (
        (TrainParams, {"data": address, "target": "a"}),
        (MonitorParams, {"current": "log", "retrain": address}),
    ):
        with pytest.raises(InvalidParameter, match="must hold no key") as caught:
            params(**values)
        assert "hunter2" not in str(caught.value)


def test_the_options_of_an_s3_address_and_a_container_of_azure_are_no_keys() -> None:
    for address in ("s3://bucket/t.csv?region=eu", "abfs://rows@team.dfs.core.windows.net/t.csv"):
        assert TrainParams(data=address, target="a", name="own").data == address
