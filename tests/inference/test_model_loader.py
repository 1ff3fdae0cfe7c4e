"""Estimators that take a matrix do not warn of missing names, however they are built.

A warning is an error in tests: what scikit-learn would say fails them.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from registry_tools.inference.model_loader import without_feature_names

SCALED = Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())])
PARTS = [("near", KNeighborsClassifier()), ("line", SCALED)]


@pytest.mark.parametrize(
    "estimator",
    [
        SCALED,
        Pipeline([("model", SVC())]),
        CalibratedClassifierCV(SVC(), ensemble=False, cv=2),
        Pipeline([("model", CalibratedClassifierCV(SCALED, cv=2))]),
        VotingClassifier(PARTS),
        StackingClassifier(PARTS, cv=2),
        BaggingClassifier(SCALED, n_estimators=2, random_state=0),
        RandomForestClassifier(5, random_state=0),
        HistGradientBoostingClassifier(max_iter=3),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_matrix_gets_the_predictions_of_the_table_and_the_estimator_is_unchanged(
    estimator: BaseEstimator,
) -> None:
    features, labels = load_iris(return_X_y=True, as_frame=True)
    estimator.fit(features, labels)
    wanted = estimator.predict(features)
    copied = without_feature_names(estimator)
    np.testing.assert_array_equal(copied.predict(features.to_numpy()), wanted)
    np.testing.assert_array_equal(estimator.predict(features), wanted)
    assert list(estimator.feature_names_in_) == list(features)
