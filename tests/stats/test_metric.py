"""The metrics that decide, against scikit-learn on random predictions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from registry_tools.errors import InputError
from registry_tools.stats.metric import METRICS, Outcomes, find_metric
from registry_tools.task import CLASSIFICATION, REGRESSION


def _classified(classes: tuple[str, ...], rows: int = 200) -> Outcomes:
    rng = np.random.default_rng(len(classes))
    probabilities = rng.dirichlet(np.ones(len(classes)), rows)
    labels = np.asarray(classes, dtype=object)[rng.integers(0, len(classes), rows)]
    predicted = np.asarray(classes, dtype=object)[probabilities.argmax(axis=1)]
    return Outcomes(labels, predicted, probabilities, classes)


@pytest.mark.parametrize("classes", [("no", "yes"), ("a", "b", "c")])
def test_metrics_of_classes_are_those_of_scikit_learn(classes: tuple[str, ...]) -> None:
    o = _classified(classes)
    assert o.probabilities is not None
    scores = o.probabilities[:, 1] if len(classes) == 2 else o.probabilities
    codes = np.searchsorted(np.asarray(classes, dtype=str), o.labels.astype(str))
    by_class = codes if len(classes) == 2 else np.eye(len(classes))[codes]
    expected = {
        "accuracy": sk.accuracy_score(o.labels, o.predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(o.labels, o.predicted),
        "f1_macro": sk.f1_score(o.labels, o.predicted, average="macro"),
        "roc_auc": sk.roc_auc_score(codes, scores, multi_class="ovr"),
        "average_precision": sk.average_precision_score(by_class, scores),
        "log_loss": sk.log_loss(codes, o.probabilities),
        f"recall:{classes[1]}": sk.recall_score(o.labels, o.predicted, labels=[classes[1]], average=None)[0],
        f"precision:{classes[0]}": sk.precision_score(
            o.labels, o.predicted, labels=[classes[0]], average=None
        )[0],
    }
    assert {m.name for m in METRICS if m.task == CLASSIFICATION} <= set(expected)
    for name, value in expected.items():
        assert find_metric(name, CLASSIFICATION).compute(o) == pytest.approx(value), name


def test_metrics_of_numbers_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(0, 1, 100)
    o = Outcomes(labels, labels + rng.normal(0, 0.5, 100))
    expected = {
        "rmse": np.sqrt(np.mean((labels - o.predicted) ** 2)),
        "mae": np.mean(np.abs(labels - o.predicted)),
        "median_absolute_error": np.median(np.abs(labels - o.predicted)),
        "r2": sk.r2_score(labels, o.predicted),
    }
    assert {name: find_metric(name, REGRESSION).compute(o) for name in expected} == pytest.approx(expected)
    assert find_metric("rmse", REGRESSION).is_better(1.0, 2.0)
    assert find_metric("r2", REGRESSION).is_better(0.9, 0.8)


def test_an_undefined_metric_is_nan() -> None:
    o = _classified(("no", "yes")).take(np.arange(3))
    only_yes = Outcomes(np.array(["yes"] * 3, dtype=object), o.predicted, o.probabilities, o.classes)
    for name in ("roc_auc", "average_precision", "recall:no", "precision:maybe"):
        assert np.isnan(find_metric(name, CLASSIFICATION).compute(only_yes)), name
    unknown = Outcomes(np.array(["other"] * 3, dtype=object), o.predicted, o.probabilities, o.classes)
    assert np.isnan(find_metric("log_loss", CLASSIFICATION).compute(unknown))


def test_a_function_of_the_user_is_a_metric() -> None:
    o = _classified(("no", "yes"))
    metric = find_metric("sklearn.metrics:matthews_corrcoef", CLASSIFICATION)
    assert metric.compute(o) == pytest.approx(sk.matthews_corrcoef(o.labels, o.predicted))


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("acuracy", CLASSIFICATION, "did you mean accuracy"),
        ("rmse", CLASSIFICATION, "it is a metric of regression"),
        ("accuracy", REGRESSION, "it is a metric of classification"),
        ("recall:", CLASSIFICATION, "a classification has accuracy"),
        ("recall:yes", REGRESSION, "a regression has rmse"),
        ("no_such_module:score", REGRESSION, "cannot be imported: No module named 'no_such_module'"),
        ("math:pi", REGRESSION, "it is not a function"),
    ],
)
def test_an_unknown_metric_is_refused(name: str, task: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^metric={name}: .*{message}"):
        find_metric(name, task)


def test_a_metric_of_probabilities_needs_them() -> None:
    o = _classified(("no", "yes"))
    with pytest.raises(InputError, match="metric=log_loss: the model has no probabilities"):
        find_metric("log_loss", CLASSIFICATION).compute(Outcomes(o.labels, o.predicted))
    with pytest.raises(InputError, match="metric=math:sqrt: the function failed"):
        find_metric("math:sqrt", CLASSIFICATION).compute(o)
