"""The values of two versions side by side."""

from __future__ import annotations

from registry_tools.evaluation.comparison import Comparison
from registry_tools.mlflow_store.registry import VersionInfo


def test_equal_parameters_in_two_forms_are_no_difference() -> None:
    first = VersionInfo("iris", 1, params={"drop": "none", "dtypes": "'{}'", "note": "''", "C": "1.0"})
    second = VersionInfo("iris", 2, params={"dtypes": "{}", "note": "", "C": "2.0"})
    values = {name: pair for kind, name, *pair in Comparison(first, second, None).values() if kind == "param"}
    assert values == {"C": ["1.0", "2.0"], "drop": [None, None], "dtypes": ["{}", "{}"], "note": ["", ""]}
