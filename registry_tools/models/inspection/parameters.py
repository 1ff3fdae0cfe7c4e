"""The parameters of scikit-learn's estimators that may reach files, processes or callables.

skops checks the type of each object, and not the effect of a trusted estimator's parameters:
`CountVectorizer(input="filename")` opens the files that a request names. A test goes through all
estimators of the installed scikit-learn, and fails for a parameter that takes more than numbers,
arrays and fixed words and that has no entry here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from registry_tools.errors import VerificationError

# The only values of a parameter that open no file: any other needs the operator's trust.
ALLOWED_VALUES: Mapping[str, tuple[Any, ...]] = {
    "input": ("content",),  # "filename" opens the file that a row names, "file" reads from an object
    "memory": (None,),  # a path: joblib unpickles the files there
}

# The numbers of threads or processes that an estimator starts while it predicts.
PARALLEL = ("n_jobs", "_n_threads")
MOST_JOBS = 256

# skops builds no method, and no function except NumPy's and SciPy's ufuncs and functions that the
# operator trusts by name: the allow-list decides about these.
CALLABLE = (
    *("affinity", "analyzer", "callback", "connectivity", "feature_name_combiner", "feature_names_out"),
    *("fun", "func", "importance_getter", "init", "inverse_func", "is_data_valid", "is_model_valid"),
    *("kernel", "loss", "max_features", "metric", "oob_score", "optimizer", "pooling_func"),
    *("preprocessor", "refit", "score_func", "scoring", "strategy", "strip_accents", "tokenizer"),
    *("verbose_feature_names_out", "weights"),
)

# Arguments that an estimator passes on to a callable of the line above.
ARGUMENTS = ("fun_args", "inv_kw_args", "kernel_params", "kw_args", "metric_params", "solver_options")

# Other estimators: each is inspected by itself, wherever it is.
ESTIMATORS = (
    *("covariance_estimator", "estimator", "estimators", "final_estimator", "n_clusters", "regressor"),
    *("remainder", "steps", "transformer", "transformer_list", "transformers"),
)

# Text and collections that an estimator compares, looks up, or splits text with.
VALUES = (
    *("categories", "chain_method", "class_weight", "constant", "dtype", "encoded_missing_value"),
    *("encoding", "feature_range", "fill_value", "interaction_cst", "monotonic_cst", "ngram_range"),
    *("neg_label", "outlier_label", "patch_size", "pos_label", "quantile_range", "separator"),
    *("stop_words", "threshold", "token_pattern", "transform_input", "transformer_weights"),
    *("unknown_value", "vocabulary"),
)

# Used by `fit` alone, which nothing here calls.
ONLY_FIT = (
    *("U_init", "V_init", "alpha", "beta_loss", "code_init", "criterion", "cv", "dict_init", "epsilon"),
    *("error_score", "n_subsamples", "param_distributions", "param_grid", "pre_dispatch", "precompute"),
    *("solver", "verbose"),
)

JUDGED = frozenset((*ALLOWED_VALUES, *PARALLEL, *CALLABLE, *ARGUMENTS, *ESTIMATORS, *VALUES, *ONLY_FIT))


def check_parameters(value: Any, trusted: Collection[str]) -> None:
    """Refuse an estimator that reaches files or starts many processes when it predicts.

    Parameters
    ----------
    value
        An estimator, or any other object of a model.
    trusted
        The operator's own names. `module.Class.parameter` trusts any value of that parameter.

    Raises
    ------
    VerificationError
        Names the class, the parameter, the value and the name to trust.
    """
    attributes = {} if isinstance(value, type) else getattr(value, "__dict__", {})
    type_name = f"{type(value).__module__}.{type(value).__qualname__}"
    for name, allowed in ALLOWED_VALUES.items():
        if name in attributes and not _is_one_of(attributes[name], allowed):
            _refuse(type_name, name, attributes[name], "which reaches files", trusted)
    for name in PARALLEL:
        jobs = attributes.get(name)
        if jobs is not None and (not isinstance(jobs, int) or jobs > MOST_JOBS):
            _refuse(type_name, name, jobs, f"and at most {MOST_JOBS} may be started", trusted)


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    return any(type(value) is type(each) and value == each for each in allowed)


def _refuse(type_name: str, parameter: str, value: Any, why: str, trusted: Collection[str]) -> None:
    name = f"{type_name}.{parameter}"
    if name not in trusted:
        shown = repr(value)[:60] if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
        raise VerificationError(
            f"the model holds a {type_name.rpartition('.')[2]} with {parameter}={shown}, {why}; change it "
            f"before you save the model, or, if you need it, say --trust {name}"
        )
