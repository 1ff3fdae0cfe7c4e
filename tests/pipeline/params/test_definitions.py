"""Parameters are equal in the dataclass, in MLproject and on the command line."""

from __future__ import annotations

from dataclasses import fields

import click
import pytest
import yaml

from pipeline.cli import cli
from pipeline.errors import InvalidParameter
from pipeline.estimators import ESTIMATORS
from pipeline.params.definitions import TrainParams
from pipeline.params.fields import as_text
from registry_tools.cli.main import cli as registry_cli
from tests.support.constants import ROOT


def entry_point(name: str) -> dict:
    return yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"][name]


def test_mlproject_has_the_parameters_of_the_dataclass_with_its_defaults() -> None:
    declared = entry_point("main")["parameters"]
    assert list(declared) == [spec.name for spec in fields(TrainParams)]
    for spec in fields(TrainParams):
        default = getattr(TrainParams(), spec.name)
        assert str(declared[spec.name]["default"]) == as_text(default), spec.name
        number = isinstance(default, (int, float)) and not isinstance(default, bool)
        assert declared[spec.name]["type"] == ("float" if number else "string"), spec.name


def test_mlproject_passes_every_parameter_to_its_option() -> None:
    command = entry_point("main")["command"].split()
    assert command[:4] == ["python", "-m", "pipeline", "train"]
    passed = dict(zip(command[4::2], command[5::2], strict=True))
    assert passed == {f"--{spec.name.replace('_', '-')}": f"{{{spec.name}}}" for spec in fields(TrainParams)}


def test_the_command_line_has_an_option_for_every_parameter() -> None:
    command = cli.commands["train"]
    options = {option.name for option in command.params if isinstance(option, click.Option)}
    assert options == {spec.name for spec in fields(TrainParams)} | {"verbose"}


def test_every_parameter_that_an_estimator_takes_exists() -> None:
    names = {spec.name for spec in fields(TrainParams)}
    for model in ESTIMATORS.values():
        assert {taken.rpartition("__")[2] for taken in model.takes} <= names


@pytest.mark.parametrize("name", ["serve", "promote"])
def test_the_entry_points_of_the_registry_have_the_defaults_of_their_commands(name: str) -> None:
    entry, program = entry_point(name), registry_cli.commands[name]
    command = entry["command"].split()
    assert command[:5] == ["python", "-m", "registry_tools", name, "{ref}"]
    passed = dict(zip(command[5::2], command[6::2], strict=True))
    assert {value.strip("{}") for value in passed.values()} == set(entry["parameters"]) - {"ref"}
    context = click.Context(program)
    if name == "promote":
        assert passed.pop("--to") == "{to}"  # the command has no default
    for option in program.params:
        name = f"--{str(option.name).replace('_', '-')}"
        if name in passed:
            assert passed.pop(name) == f"{{{option.name}}}"
            declared = str(entry["parameters"][option.name]["default"])
            assert option.type_cast_value(context, declared) == option.default, option.name
    assert not passed


def test_the_defaults_are_equal_after_conversion_to_text_and_back() -> None:
    texts = {spec.name: as_text(getattr(TrainParams(), spec.name)) for spec in fields(TrainParams)}
    assert TrainParams.from_text(texts) == TrainParams()


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
        ("data", "", "'iris', or the path"),
        ("data", "table.xlsx", ".csv or .parquet"),
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
    texts = {"target": "kind", name: value} if value == "table.xlsx" else {name: value}
    with pytest.raises(InvalidParameter) as caught:
        TrainParams.from_text(texts)
    message = str(caught.value)
    assert message.startswith(f"{name}={value}: ")
    assert bounds in message
    assert "\n" not in message


def test_a_table_needs_a_target_and_hash_needs_a_fraction() -> None:
    with pytest.raises(InvalidParameter, match="target=none: a table needs"):
        TrainParams.from_text({"data": "table.csv"})
    with pytest.raises(InvalidParameter, match="test_size=30: split=hash needs a fraction"):
        TrainParams.from_text({"split": "hash", "test_size": "30"})


def test_columns_to_leave_out_are_a_line_of_csv() -> None:
    texts = {"data": "table.csv", "target": "kind", "drop": 'id, "last, first"'}
    params = TrainParams.from_text(texts)
    assert params.drop == ("id", "last, first")
    assert params.as_text()["drop"] == 'id,"last, first"'
    with pytest.raises(InvalidParameter, match="drop=kind: the label column cannot"):
        TrainParams.from_text({**texts, "drop": "kind"})


def test_a_stage_is_accepted_in_upper_and_lower_case() -> None:
    assert TrainParams.from_text({"stage": "Production"}).stage == "production"


@pytest.mark.parametrize(
    "values", [{"model": "resnet"}, {"max_iter": 0}, {"subset_size": -3}, {"stage": "v1"}, {"split": "x"}]
)
def test_the_constructor_checks_the_bounds(values: dict) -> None:
    with pytest.raises(InvalidParameter):
        TrainParams(**values)
