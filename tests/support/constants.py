"""The root folder of the project, and one row of Iris with its column names."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
IRIS_ROW = [6.0, 2.5, 4.5, 1.5]
IRIS_COLUMNS = [*("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")]
