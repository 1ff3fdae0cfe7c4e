"""Choose the number of iterations of XGBoost or LightGBM by the loss on a part of the training rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.data.dataset import Dataset
from pipeline.data.folds import divide_units
from pipeline.data.split import split_rows
from pipeline.estimators import ESTIMATORS
from pipeline.params.definitions import TrainParams
from pipeline.training.model_pipeline import build_pipeline

_VALIDATION_SIZE = 0.1  # of the training rows
_RISING = ("auc", "average_precision", "map", "ndcg", "pre")  # metrics that are larger for a better model


@dataclass(frozen=True)
class EarlyStop:
    """The number of iterations with the least loss on the validation rows, and the loss of each iteration."""

    iterations: int
    losses: Mapping[str, list[float]]  # of `train` and `validation`, from the first iteration on


def uses_early_stopping(params: TrainParams) -> bool:
    """Return whether early stopping chooses the number of iterations."""
    return ESTIMATORS[params.model].stops_early and params.early_stopping is not None


def stop_early(
    params: TrainParams, features: pd.DataFrame, training: Dataset, weights: npt.NDArray[np.float64] | None
) -> EarlyStop | None:
    """Fit the model to nine tenths of the training rows until the loss on the others stops falling.

    The validation rows are chosen as the holdout is: whole groups, the latest rows, or stratified ones.

    Parameters
    ----------
    params, features, training
        As for `fit_pipeline`.
    weights
        The weight of each training row, shape (rows,); None without weights.

    Returns
    -------
    result
        None if the model has no early stopping, or if the rows are too few for a validation part.
    """
    if not uses_early_stopping(params):
        return None
    part = params.replace(split="stratified", test_size=_VALIDATION_SIZE, calibrate="none")
    try:
        rows = split_rows(training, part)
    except ValueError:  # InvalidParameter, or an error of scikit-learn for a class with one row
        return None
    fitted, validation = (training.take(each) for each in rows)
    pipeline = build_pipeline(part, features, divide_units(fitted, part))
    prepared = pipeline[:-1].fit_transform(fitted.features, fitted.labels)
    sides = [(prepared, fitted.labels), (pipeline[:-1].transform(validation.features), validation.labels)]
    weighting = None if weights is None else [weights[each] for each in rows]
    return _fit_until_best(params, pipeline[-1], sides, weighting)


def _fit_until_best(params: TrainParams, model: Any, sides: list[Any], weights: Any) -> EarlyStop:
    """Fit a model of XGBoost or LightGBM to the first side, and stop by its loss on the second."""
    weighting = {} if weights is None else {"sample_weight": weights[0]}
    rounds = int(params.early_stopping or 0)
    if params.model == "xgboost":
        model.set_params(early_stopping_rounds=rounds)
        model.fit(*sides[0], eval_set=sides, sample_weight_eval_set=weights, verbose=False, **weighting)
        results = model.evals_result()
    else:
        from lightgbm import early_stopping

        rows, labels = zip(*sides, strict=True)
        stop = early_stopping(rounds, verbose=False)
        weighting |= {"eval_sample_weight": weights}
        model.fit(*sides[0], eval_X=rows, eval_y=labels, callbacks=[stop], **weighting)
        results = model.evals_result_
    # Of several metrics in `eval_metric`, the last one decides.
    names, curves = zip(*(list(metrics.items())[-1] for metrics in results.values()), strict=True)
    # Not `best_iteration_`: it may follow the training rows, and `dart` of LightGBM has none.
    best = np.argmax if names[-1].startswith(_RISING) else np.argmin
    iterations = int(best(curves[-1])) + 1
    return EarlyStop(iterations, dict(zip(("train", "validation"), curves, strict=True)))
