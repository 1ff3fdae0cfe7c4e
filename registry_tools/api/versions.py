"""Work on versions: compare, verify, copy, adopt and register them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from registry_tools.evaluation import adopt as adoption
from registry_tools.evaluation import comparison, registration
from registry_tools.evaluation.adopt import Adoption
from registry_tools.evaluation.comparison import Comparison
from registry_tools.evaluation.eval_data import read_eval_data, read_optional_eval_data
from registry_tools.evaluation.registration import Registration
from registry_tools.evaluation.verdict import Verdict
from registry_tools.mlflow_store import registry
from registry_tools.mlflow_store.client import connect, connect_or_create
from registry_tools.models import copy as copies
from registry_tools.models import joblib_file
from registry_tools.models.copy import CopiedVersion
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.policy.policy_file import find_policy
from registry_tools.promotion import recovery
from registry_tools.refs import model_name, parse_ref


def compare(
    first: str,
    second: str,
    *,
    eval_data: str | Path | None = None,
    target: str | None = None,
    metric: str | None = None,
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    allow_code: bool = False,
    public_key: str | None = None,
) -> Comparison:
    """Compare two versions: parameters, metrics, and both on rows that neither was trained on.

    Parameters
    ----------
    first, second
        References such as `iris/1` and `iris@production`.
    eval_data, target
        A table of labelled rows to compare on, and its label column. None takes the held-out rows of
        the first version.
    metric
        The metric of the paired test, as for `promote`. None takes `accuracy`, or `rmse` for a
        regressor.
    tracking_uri
        The registry; None takes MLflow's own.
    trust, allow_code, public_key
        The types and formats that the models may contain, and the key that must have signed
        them; as in `load_model`.

    Returns
    -------
    Comparison
        Both versions, and the paired test of their predictions. If they cannot predict the same rows,
        `paired` is None and `not_paired_because` gives the reason.

    Raises
    ------
    InputError
        If both references mean the same version, `eval_data` cannot be read, or the versions
        cannot be compared by the metric.
    VerificationError
        If the versions cannot be compared on `eval_data`.
    NotFound, InvalidReference, RegistryUnavailable, AccessDenied
        If there is no such version, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import compare
    >>> result = compare("iris/1", "iris/2")  # doctest: +SKIP
    >>> result.paired.difference, result.paired.p_worse  # doctest: +SKIP
    (-0.0333, 0.5)
    >>> result.to_pandas()  # parameters and metrics, a column for each version  # doctest: +SKIP
    """
    refs = parse_ref(first), parse_ref(second)
    rows = read_optional_eval_data(eval_data, target)
    trust_policy = TrustPolicy.from_environment(trust, allow_code, public_key)
    return comparison.compare(connect(tracking_uri), *refs, trust_policy, rows, metric)


def verify(
    ref: str,
    *,
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    allow_code: bool = False,
    public_key: str | None = None,
) -> Verdict:
    """Check files, format, recorded predictions, history, and verdicts by the policy in your folder.

    Parameters
    ----------
    ref
        `iris@production`, `iris/3` or `iris/Production`.
    tracking_uri
        The registry; None takes MLflow's own.
    trust, allow_code, public_key
        The types and formats that the version may contain, and the key that must have signed it;
        as in `load_model`.

    Returns
    -------
    Verdict
        The result of each check. A check that does not pass raises nothing: look at `passed`.

    Raises
    ------
    NotFound, InvalidReference, RegistryUnavailable, AccessDenied
        If there is no such version, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import verify
    >>> verdict = verify("iris@production")  # doctest: +SKIP
    >>> verdict.passed, [gate.message for gate in verdict.refusals]  # doctest: +SKIP
    (True, [])
    """
    trust_policy = TrustPolicy.from_environment(trust, allow_code, public_key)
    return recovery.verify(connect(tracking_uri), parse_ref(ref), trust_policy, find_policy())


def copy(
    ref: str,
    *,
    to_uri: str,
    name: str | None = None,
    tracking_uri: str | None = None,
    public_key: str | None = None,
) -> CopiedVersion:
    """Copy a version to another registry, completely or not at all; no stage is set there.

    Parameters
    ----------
    ref
        `iris@production`, `iris/3` or `iris/Production`.
    to_uri
        The other registry; an SQLite store is made if its folder exists.
    name
        The name of the model there; None keeps the name.
    tracking_uri
        The registry that has the version; None takes MLflow's own.
    public_key
        The key that must have signed the files; None takes REGISTRY_TOOLS_PUBLIC_KEY.

    Returns
    -------
    CopiedVersion
        The version in the other registry; `made` is False if an earlier call copied it.

    Raises
    ------
    VerificationError
        If the files differ from the registered files, or changed on the way.
    PromotionError
        If both registries are one and the name is the same.
    UnsupportedOperation
        If the version came from no run.
    NotFound, InvalidReference, RegistryUnavailable, AccessDenied
        If there is no such version, or a registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import copy
    >>> copy("iris/3", to_uri="http://production:5000").version  # doctest: +SKIP
    1
    """
    model_ref, new_name = parse_ref(ref), model_name(name) if name is not None else None
    source = connect(tracking_uri)
    registry.find_version(source, model_ref)  # a wrong reference must not leave a new, empty registry
    trust_policy = TrustPolicy.from_environment(public_key=public_key)
    return copies.copy(source, model_ref, connect_or_create(to_uri), new_name, trust_policy)


def adopt(
    ref: str,
    *,
    eval_data: str | Path,
    target: str,
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    allow_code: bool = False,
    public_key: str | None = None,
) -> Adoption:
    """Make the evidence of a version that plain `log_model` registered without any.

    Its files stay unchanged. The holdout, the recorded predictions and the manifest are stored
    with its run, and two digests as its tags.

    Parameters
    ----------
    ref
        `iris/3`, `iris@staging` or `iris/Staging`.
    eval_data, target
        A CSV, JSON or Parquet file of labelled rows that the version was not trained on, and its
        label column. The rows become the holdout of the version.
    tracking_uri
        The registry; None takes MLflow's own.
    trust, allow_code, public_key
        The types and formats that the version may contain, and the key that must have signed it;
        as in `load_model`.

    Returns
    -------
    Adoption
        The digests, and the metric on the rows; `made` is False if the evidence existed already.

    Raises
    ------
    UnsupportedOperation
        If the version came from no run, has no signature, or has other evidence.
    VerificationError
        If its files differ from their digest, or it does not predict these labels significantly
        better than their commonest class or, for numbers, their mean.
    InputError
        If the rows are too few, or cannot be read or recorded.
    NotFound, InvalidReference, RegistryUnavailable, AccessDenied
        If there is no such version, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import adopt
    >>> adopt("iris/1", eval_data="rows.csv", target="species").value  # doctest: +SKIP
    0.96
    """
    model_ref, rows = parse_ref(ref), read_eval_data(Path(eval_data), target)
    trust_policy = TrustPolicy.from_environment(trust, allow_code, public_key)
    return adoption.adopt(connect(tracking_uri), model_ref, rows, trust_policy)


def register(
    path: str | Path,
    name: str,
    *,
    eval_data: str | Path,
    target: str,
    target_names: Sequence[str] = (),
    allow_code: bool = False,
    trust: Sequence[str] = (),
    tracking_uri: str | None = None,
) -> Registration:
    """Register the classifier or regressor in a joblib file as a new version, in the skops format.

    The version gets evidence, as `adopt` makes it, and no stage. Nothing is written to the
    registry before a clean process has loaded the skops file and predicted the labelled rows.

    Parameters
    ----------
    path
        A file that `joblib.dump` wrote: a fitted scikit-learn classifier, regressor or Pipeline.
    name
        The registered model; it may be new.
    eval_data, target
        A CSV, JSON or Parquet file of labelled rows that the model was not trained on, and its
        label column. For a model that was trained on an array, its other columns name the columns
        of that array, in order.
    target_names
        The class names, if the model predicts the codes 0, 1, …; empty if it predicts names.
    allow_code
        Must be True: reading a joblib file runs the code in it.
    trust
        Types that the model may contain besides `trust_policy.TRUSTED_TYPES` and REGISTRY_TOOLS_TRUST.
    tracking_uri
        The registry; None takes MLflow's own. A new SQLite store is made if its folder exists.

    Returns
    -------
    Registration
        The version, its digests, and its metric on the rows.

    Raises
    ------
    VerificationError
        If `allow_code` is False, the model contains types that are not trusted, or it does not
        predict these labels significantly better than their commonest class or, for numbers, their
        mean.
    UnsupportedOperation
        If the file contains anything but a fitted classifier or regressor with one output.
    InputError
        If a file cannot be read, or its columns, rows or labels do not fit the model.
    InvalidReference, RegistryUnavailable, AccessDenied
        If the name is not valid, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import register
    >>> register(
    ...     "iris_model.joblib", "iris", eval_data="rows.csv", target="species", allow_code=True
    ... ).version  # doctest: +SKIP
    1
    """
    model, trust_policy = model_name(name), TrustPolicy.from_environment(trust, allow_code)
    estimator = joblib_file.read_estimator(Path(path), trust_policy)
    rows = read_eval_data(Path(eval_data), target)
    source = registration.SourceModel(Path(path), estimator, tuple(target_names))
    return registration.register(lambda: connect_or_create(tracking_uri), model, source, rows, trust_policy)
