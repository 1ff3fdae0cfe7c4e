"""Check the parameters of scikit-learn's estimators that can access files, processes or callables.

skops checks the type of each object, but not the effect of its parameters:
`CountVectorizer(input="filename")` opens the files that a request names. A test iterates over all
estimators of the installed scikit-learn. It fails for a parameter that accepts more than numbers, arrays
and fixed words and is not listed in this module.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from registry_tools.errors import VerificationError

# The values of these parameters that open no file; any other value needs the operator's trust.
ALLOWED_VALUES: Mapping[str, tuple[Any, ...]] = {
    "input": ("content",),  # "filename" opens files that the rows name, "file" reads from objects
    "memory": (None,),  # with a path, joblib unpickles files from there
}

# The number of threads or processes that an estimator starts while it predicts.
PARALLEL = ("n_jobs", "_n_threads")
MOST_JOBS = 256

# Callables. The allow-list already covers them: skops creates no methods, and only the functions that the
# operator trusts by name and the ufuncs of NumPy and SciPy.
CALLABLE = (
    *("affinity", "analyzer", "callback", "connectivity", "feature_name_combiner", "feature_names_out"),
    *("fun", "func", "importance_getter", "init", "inverse_func", "is_data_valid", "is_model_valid"),
    *("kernel", "loss", "max_features", "metric", "oob_score", "optimizer", "pooling_func"),
    *("preprocessor", "refit", "score_func", "scoring", "strategy", "strip_accents", "tokenizer"),
    *("verbose_feature_names_out", "weights"),
)

# Arguments that an estimator passes to one of these callables.
ARGUMENTS = ("fun_args", "inv_kw_args", "kernel_params", "kw_args", "metric_params", "solver_options")

# Inner estimators, which are inspected as objects of their own.
ESTIMATORS = (
    *("covariance_estimator", "estimator", "estimators", "final_estimator", "n_clusters", "regressor"),
    *("remainder", "steps", "transformer", "transformer_list", "transformers"),
)

# Text and collections that an estimator uses to compare, look up or split values.
VALUES = (
    *("categories", "chain_method", "class_weight", "constant", "dtype", "encoded_missing_value"),
    *("encoding", "feature_range", "fill_value", "interaction_cst", "monotonic_cst", "ngram_range"),
    *("neg_label", "outlier_label", "patch_size", "pos_label", "quantile_range", "separator"),
    *("stop_words", "threshold", "token_pattern", "transform_input", "transformer_weights"),
    *("unknown_value", "vocabulary"),
)

# Parameters of `fit` only, which this package never calls.
ONLY_FIT = (
    *("U_init", "V_init", "alpha", "beta_loss", "code_init", "criterion", "cv", "dict_init", "epsilon"),
    *("error_score", "n_subsamples", "param_distributions", "param_grid", "pre_dispatch", "precompute"),
    *("solver", "verbose"),
)

JUDGED = frozenset((*ALLOWED_VALUES, *PARALLEL, *CALLABLE, *ARGUMENTS, *ESTIMATORS, *VALUES, *ONLY_FIT))


def check_parameters(value: Any, trusted: Collection[str]) -> None:
    """Refuse an estimator that accesses files or starts many processes when it predicts.

    Parameters
    ----------
    value
        An estimator, or any other object of a model.
    trusted
        The names that the operator trusts. `module.Class.parameter` trusts any value of a parameter.

    Raises
    ------
    VerificationError
        If the estimator is refused; the message names the class, the parameter, the value and the
        name to trust.
    """
    attributes = {} if isinstance(value, type) else getattr(value, "__dict__", {})
    type_name = f"{type(value).__module__}.{type(value).__qualname__}"
    for name, allowed in ALLOWED_VALUES.items():
        if name in attributes and not _is_one_of(attributes[name], allowed):
            _refuse(type_name, name, attributes[name], "which accesses files", trusted)
    for name in PARALLEL:
        jobs = attributes.get(name)
        if jobs is not None and (not isinstance(jobs, int) or jobs > MOST_JOBS):
            _refuse(type_name, name, jobs, f"and at most {MOST_JOBS} are allowed", trusted)


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    return any(type(value) is type(each) and value == each for each in allowed)


def _refuse(type_name: str, parameter: str, value: Any, why: str, trusted: Collection[str]) -> None:
    name = f"{type_name}.{parameter}"
    if name not in trusted:
        shown = repr(value)[:60] if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
        raise VerificationError(
            f"the model holds a {type_name.rpartition('.')[2]} with {parameter}={shown}, {why}; change it "
            f"before you save the model or, if you need it, use --trust {name}"
        )
