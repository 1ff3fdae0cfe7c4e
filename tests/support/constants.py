"""The root folder of the project, one row of Iris with its column names, and whether long tests run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IRIS_ROW = [6.0, 2.5, 4.5, 1.5]
IRIS_COLUMNS = [*("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")]
# More examples, and tests that take long and of which other tests show the most: on GitHub, before a release,
# and after a change of their subject.
IS_LONG = "REGISTRY_TOOLS_TEST_LONG" in os.environ
LONG = pytest.mark.skipif(not IS_LONG, reason="it takes long: set REGISTRY_TOOLS_TEST_LONG=1 to run it")
