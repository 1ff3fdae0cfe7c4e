"""Train an Iris classifier, keep it in a joblib file, and predict with it: no MLflow, no registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from pipeline.data.load import load_dataset
from pipeline.errors import InvalidParameter
from pipeline.params.definitions import TrainParams
from pipeline.training.model_pipeline import create_estimator
from registry_tools.files.output_file import output_file


def train_iris_model(
    *, test_size: float = 0.2, random_state: int = 42, max_iter: int = 200, subset_size: int | None = None
) -> tuple[LogisticRegression, float, npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.str_]]:
    """Train a logistic regression on Iris, and measure its accuracy on held-out rows.

    Parameters
    ----------
    test_size
        The rows to hold out, stratified by class: a fraction, or a whole number of rows.
    random_state
        The seed of the subset, the split and the estimator.
    max_iter
        The most iterations of the estimator.
    subset_size
        Train and test on so many rows, drawn at random without replacement; None takes all 150.

    Returns
    -------
    model : LogisticRegression
        Fitted on arrays of shape (rows, 4).
    accuracy : float
        The share of held-out rows that it predicts correctly.
    X_test : ndarray of shape (held-out rows, 4)
        The held-out measurements, in cm.
    y_test : ndarray of shape (held-out rows,)
        Their class codes.
    target_names : ndarray of shape (3,)
        The class names in code order.

    Raises
    ------
    ValueError
        If a parameter is out of its bounds, or leaves too few rows of a class.

    Examples
    --------
    >>> from pipeline import train_iris_model
    >>> model, accuracy, X_test, y_test, target_names = train_iris_model()
    >>> round(accuracy, 4), X_test.shape, target_names.tolist()
    (0.9667, (30, 4), ['setosa', 'versicolor', 'virginica'])
    """
    params = TrainParams(
        test_size=test_size, random_state=random_state, max_iter=max_iter, subset_size=subset_size
    )
    iris = load_dataset(TrainParams())
    X, y = iris.features.to_numpy(), iris.labels.to_numpy()
    if params.subset_size is not None:
        if params.subset_size > len(X):
            raise InvalidParameter("subset_size", params.subset_size, f"the table has only {len(X)} rows")
        # As NumPy draws, which differs from the stratified subset of `pipeline.data.load`.
        seed = np.random.RandomState(params.random_state)
        drawn = seed.choice(len(X), size=params.subset_size, replace=False)
        X, y = X[drawn], y[drawn]
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=params.test_size, random_state=params.random_state, stratify=y
    )
    model = create_estimator(params).fit(X_train, y_train)
    return model, float(model.score(X_test, y_test)), X_test, y_test, np.array(iris.target_names)


def save_model(model: Any, path: str | Path) -> Path:
    """Write a model to a joblib file; missing folders are made.

    Parameters
    ----------
    model
        Any fitted estimator.
    path
        The file; an existing one is replaced once the new one is complete.

    Returns
    -------
    Path
        The resolved path of the file.

    Raises
    ------
    InputError
        If the file cannot be written.

    Examples
    --------
    >>> from pipeline import save_model, train_iris_model
    >>> save_model(train_iris_model()[0], "models/iris_model.joblib").name  # doctest: +SKIP
    'iris_model.joblib'
    """
    resolved = Path(path).resolve()
    resolved.parent.mkdir(parents=True, exist_ok=True)
    with output_file(resolved) as part:
        joblib.dump(model, part)
    return resolved


def load_model(path: str | Path) -> Any:
    """Read a model from a joblib file, which runs the code in it: read only files that you trust.

    Parameters
    ----------
    path
        The file that `save_model` wrote.

    Returns
    -------
    estimator
        The fitted estimator.

    Raises
    ------
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> from pipeline import load_model
    >>> load_model("models/iris_model.joblib").predict([[6.0, 2.5, 4.5, 1.5]])  # doctest: +SKIP
    array([1])
    """
    return joblib.load(path)


def predict_sample(
    model: Any, sample: npt.ArrayLike, target_names: Sequence[str] | npt.NDArray[np.str_] | None = None
) -> tuple[int, str]:
    """Predict the class of one flower.

    Parameters
    ----------
    model
        A fitted classifier that predicts class codes.
    sample
        Its four measurements in cm, shape (4,) or (1, 4).
    target_names
        The class names in code order; None takes those of Iris.

    Returns
    -------
    index : int
        The class code.
    name : str
        The class name.

    Raises
    ------
    ValueError
        If the sample is not one row of as many numbers as the model takes.

    Examples
    --------
    >>> from pipeline import predict_sample, train_iris_model
    >>> predict_sample(train_iris_model()[0], [6.0, 2.5, 4.5, 1.5])
    (1, 'versicolor')
    """
    row = np.asarray(sample, dtype=float).reshape(1, -1)
    index = int(model.predict(row)[0])
    names = load_dataset(TrainParams()).target_names if target_names is None else target_names
    return index, str(names[index])
