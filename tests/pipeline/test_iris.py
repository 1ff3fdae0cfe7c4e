"""The four functions on Iris, compared with scikit-learn and NumPy called directly."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

from pipeline import iris, load_model, predict_sample, save_model, train_iris_model

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def by_hand(
    test_size: Any = 0.2, random_state: Any = 42, max_iter: Any = 200, subset_size: Any = None
) -> tuple[Any, ...]:
    """Train as a lesson on scikit-learn does."""
    iris = load_iris()
    X, y = iris.data, iris.target
    if subset_size is not None:
        rows = np.random.RandomState(random_state).choice(len(X), size=subset_size, replace=False)
        X, y = X[rows], y[rows]
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=test_size, random_state=random_state, stratify=y
    )
    model = LogisticRegression(max_iter=max_iter, random_state=random_state).fit(X_train, y_train)
    return model, accuracy_score(y_test, model.predict(X_test)), X_test, y_test, iris.target_names


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"test_size": 0.3, "random_state": 7},
        {"test_size": 40},
        {"max_iter": 5},
        {"subset_size": 60},
        {"subset_size": 90, "random_state": 0, "test_size": 0.25},
        {"subset_size": 150},
        {"subset_size": np.int64(31), "test_size": np.float64(0.5)},
    ],
)
def test_the_model_is_that_of_scikit_learn(arguments: dict[str, Any]) -> None:
    ours, theirs = train_iris_model(**arguments), by_hand(**arguments)
    assert type(ours[0]) is LogisticRegression
    assert ours[0].get_params() == theirs[0].get_params()
    np.testing.assert_array_equal(ours[0].coef_, theirs[0].coef_)
    assert type(ours[1]) is float
    assert ours[1] == theirs[1]
    for mine, other in zip(ours[2:], theirs[2:], strict=True):
        assert type(mine) is np.ndarray
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize(
    "arguments",
    [
        {"test_size": 0},
        {"test_size": 1.0},
        {"test_size": -0.2},
        {"test_size": 150},
        {"test_size": 2},
        {"test_size": 0.001},
        {"test_size": "many"},
        {"max_iter": -1},
        {"max_iter": 1.5},
        {"random_state": -1},
        {"random_state": 2**32},
        {"subset_size": 151},
        {"subset_size": 0},
        {"subset_size": -5},
        {"subset_size": 4},
        {"subset_size": 9},
    ],
)
def test_it_refuses_with_value_error_where_they_do(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each library words its own
        by_hand(**arguments)
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        train_iris_model(**arguments)
    assert str(refused.value)


def test_a_refusal_names_the_value_and_its_bounds() -> None:
    with pytest.raises(ValueError, match=r"^subset_size=151: the table has only 150 rows$"):
        train_iris_model(subset_size=151)
    with pytest.raises(ValueError, match=r"^test_size=1\.5: .*above 0 and below 1"):
        train_iris_model(test_size=1.5)
    with pytest.raises(ValueError, match=r"^max_iter=0: "):
        train_iris_model(max_iter=0)
    with pytest.raises(TypeError):
        train_iris_model(0.2)  # type: ignore[misc]


def test_few_iterations_warn_as_in_scikit_learn() -> None:
    with pytest.warns(ConvergenceWarning):
        train_iris_model(max_iter=1)


def test_a_saved_model_predicts_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, _, X_test, _, target_names = train_iris_model()
    path = save_model(model, "models/new/iris_model.joblib")
    assert path == tmp_path.resolve() / "models" / "new" / "iris_model.joblib"
    assert save_model(model, path) == path  # once more, over the first
    assert [each.name for each in path.parent.iterdir()] == ["iris_model.joblib"]
    loaded = load_model(str(path))
    np.testing.assert_array_equal(loaded.predict(X_test), model.predict(X_test))
    assert type(joblib.load(path)) is LogisticRegression
    for sample in ([6.0, 2.5, 4.5, 1.5], (6, 2.5, 4.5, 1.5), np.array([[6.0, 2.5, 4.5, 1.5]])):
        assert predict_sample(loaded, sample) == (1, "versicolor")
    assert predict_sample(loaded, X_test[0], target_names)[1] in set(target_names)
    index, name = predict_sample(loaded, X_test[0], target_names=["a", "b", "c"])
    assert (type(index), type(name), name) == (int, str, "abc"[index])


def test_a_wrong_sample_or_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expecting 4 features"):
        predict_sample(train_iris_model()[0], [6.0, 2.5, 4.5])
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.joblib")


def test_importing_the_package_is_free() -> None:
    code = (
        "import sys, pipeline\n"
        "assert not {'mlflow', 'sklearn', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert {*pipeline.__all__} <= {*dir(pipeline)}\n"
        "from pipeline import train_iris_model\n"
        "assert 'mlflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_examples_of_the_docstrings_are_right() -> None:
    assert doctest.testmod(iris).failed == 0
