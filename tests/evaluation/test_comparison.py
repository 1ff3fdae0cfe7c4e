"""The values of two versions side by side."""

from __future__ import annotations

import json

import pytest

from registry_tools.cli.main import main
from registry_tools.evaluation.comparison import Comparison
from registry_tools.mlflow_store.registry import VersionInfo
from tests.support.commands import error_of
from tests.support.constants import LONG
from tests.support.registries import GOOD, POOR, Place


def test_equal_parameters_in_two_forms_are_no_difference() -> None:
    first = VersionInfo("iris", 1, params={"drop": "none", "dtypes": "'{}'", "note": "''", "C": "1.0"})
    second = VersionInfo("iris", 2, params={"dtypes": "{}", "note": "", "C": "2.0"})
    values = {name: pair for kind, name, *pair in Comparison(first, second, None).values() if kind == "param"}
    assert values == {"C": ["1.0", "2.0"], "drop": [None, None], "dtypes": ["{}", "{}"], "note": ["", ""]}


@LONG
@pytest.mark.slow
def test_two_versions_are_compared_by_the_metric_that_the_user_names(
    local: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    name = local.model(GOOD, POOR)
    compare = ["compare", f"{name}/{GOOD}", f"{name}/2", "--tracking-uri", local.uri]
    by_recall = [*compare, "--metric", "recall:versicolor"]
    capsys.readouterr()
    assert main(by_recall) == 0
    assert "on 30 rows that neither was trained on: recall:versicolor " in capsys.readouterr().out
    assert main([*by_recall, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["metric"], found["paired"]["rows"]) == ("recall:versicolor", 10)
    assert "metric=rmse: it is a metric of regression" in error_of(capsys, *compare, "--metric", "rmse")
    assert "metric=recall:cat: the rows lack" in error_of(capsys, *compare, "--metric", "recall:cat")
