"""Parameters of trusted types that reach files, processes or callables."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import all_estimators
from sklearn.utils._param_validation import Hidden, Interval, MissingValues, Options, StrOptions

from registry_tools.errors import VerificationError
from registry_tools.models.inspection.parameters import JUDGED
from tests.support.crafted_models import load, save_model

_TEXTS = ["good day", "bad night", "good night", "bad day"]
_LABELS = [1, 0, 1, 0]
_X, _Y = np.arange(40.0).reshape(20, 2) + 1, np.arange(20) % 2
_VECTORIZER = "sklearn.feature_extraction.text.CountVectorizer"
# Constraints of a parameter that takes numbers, fixed words and arrays of numbers alone.
_PLAIN = (Interval, MissingValues, Options)
_PLAIN_WORDS = {"array-like", "boolean", "random_state", "sparse matrix", "verbose", None}


def fitted(vectorizer: Any, **attributes: Any) -> Any:
    pipeline = make_pipeline(vectorizer, LogisticRegression()).fit(_TEXTS, _LABELS)
    vars(vectorizer).update(attributes)
    return pipeline


@pytest.mark.parametrize("value", ["filename", "file", None, 1, ["content"]])
@pytest.mark.parametrize(
    "vectorizer",
    [CountVectorizer(), HashingVectorizer(n_features=9), TfidfVectorizer()],
    ids=lambda each: type(each).__name__,
)
def test_a_vectorizer_that_reads_files_is_refused(vectorizer: Any, value: Any, tmp_path: Path) -> None:
    folder = save_model(tmp_path, fitted(clone(vectorizer), input=value))
    name = type(vectorizer).__name__
    with pytest.raises(VerificationError, match=f"{name} with input=.*, which accesses files") as caught:
        load(folder)
    assert str(caught.value).endswith(f"use --trust sklearn.feature_extraction.text.{name}.input")


def test_a_vectorizer_is_found_wherever_it_is(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": _TEXTS})
    vectorizer = CountVectorizer()
    columns = ColumnTransformer([("words", vectorizer, "text")])
    inner = make_pipeline(columns, LogisticRegression())
    model = StackingClassifier([("a", inner), ("b", inner)], cv=2).fit(table, _LABELS)
    trust = "sklearn.utils._bunch.Bunch"
    loaded = load(save_model(tmp_path / "good", model), trust).estimator
    assert loaded.predict(table).tolist() == model.predict(table).tolist()
    fitted_one = model.estimators_[1].named_steps["columntransformer"].named_transformers_["words"]
    fitted_one.input = "filename"
    with pytest.raises(VerificationError, match="CountVectorizer with input='filename'"):
        load(save_model(tmp_path / "bad", model), trust)


def test_the_operator_can_trust_a_parameter(tmp_path: Path) -> None:
    folder = save_model(tmp_path, fitted(CountVectorizer(), input="filename"))
    with pytest.raises(VerificationError):
        load(folder, f"{_VECTORIZER}.encoding")
    words = tmp_path / "words.txt"
    words.write_text("good day")
    assert load(folder, f"{_VECTORIZER}.input").estimator.predict([str(words)]).tolist() == [1]


def test_a_pipeline_with_a_folder_for_its_memory_is_refused(tmp_path: Path) -> None:
    model = make_pipeline(LogisticRegression(), memory=str(tmp_path / "cache")).fit(_X, _Y)
    with pytest.raises(VerificationError, match=r"use --trust sklearn\.pipeline\.Pipeline\.memory$"):
        load(save_model(tmp_path / "model", model))


@pytest.mark.parametrize(
    ("jobs", "refused"), [(257, True), ("all", True), (2.0, True), (-1, False), (8, False)]
)
def test_very_many_threads_are_refused(jobs: Any, refused: bool, tmp_path: Path) -> None:
    model = RandomForestClassifier(2).fit(_X, _Y)
    model.n_jobs = jobs
    folder = save_model(tmp_path, model)
    if refused:
        with pytest.raises(VerificationError, match=f"n_jobs={jobs!r}, and at most 256 are allowed"):
            load(folder)
    else:
        assert load(folder).estimator.n_jobs == jobs


def test_numeric_functions_are_taken_and_others_need_trust(tmp_path: Path) -> None:
    logarithm = make_pipeline(FunctionTransformer(np.log1p), Ridge()).fit(_X, _Y)
    model = TransformedTargetRegressor(logarithm, func=np.log1p, inverse_func=np.expm1).fit(_X, _Y)
    loaded = load(save_model(tmp_path / "ufunc", model)).estimator
    assert loaded.predict(_X).tolist() == model.predict(_X).tolist()

    finite = make_pipeline(FunctionTransformer(np.nan_to_num), Ridge()).fit(_X, _Y)
    folder = save_model(tmp_path / "function", finite)
    with pytest.raises(VerificationError, match=r"untrusted types: numpy\.nan_to_num"):
        load(folder)
    assert load(folder, "numpy.nan_to_num").estimator.predict(_X).tolist() == finite.predict(_X).tolist()


@pytest.mark.parametrize("parameter", ["tokenizer", "preprocessor", "analyzer", "strip_accents"])
def test_a_callable_that_starts_a_process_is_refused(parameter: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path, fitted(CountVectorizer(), **{parameter: os.system}))
    with pytest.raises(VerificationError, match=r"untrusted types: posix\.system"):
        load(folder)


def reaching_parameters() -> dict[str, str]:
    """Return the parameters of scikit-learn that take more than numbers, arrays and fixed words."""
    found = {}
    for name, kind in all_estimators():
        constraints = getattr(kind, "_parameter_constraints", {})
        for parameter in inspect.signature(kind).parameters:
            allowed = constraints.get(parameter, [object])
            if allowed == "no_validation" or any(not is_plain(each) for each in allowed):
                found[parameter] = name
    return found


def is_plain(constraint: Any) -> bool:
    if isinstance(constraint, Hidden):
        return is_plain(constraint.constraint)
    if isinstance(constraint, StrOptions):
        return not constraint.options & {"file", "filename", "path"}
    return isinstance(constraint, _PLAIN) or constraint is np.ndarray or constraint in _PLAIN_WORDS


def test_every_parameter_of_scikit_learn_that_may_reach_further_is_judged() -> None:
    found = reaching_parameters()
    assert {"input", "memory", "n_jobs", "tokenizer", "func", "estimator"} <= set(found)
    missing = {f"{estimator}.{name}" for name, estimator in found.items() if name not in JUDGED}
    assert not missing, "judge these in registry_tools/models/inspection/parameters.py"
