"""Evaluate a version for a protected stage, and sign the verdict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from registry_tools.errors import InputError
from registry_tools.evaluation.eval_data import read_optional_eval_data
from registry_tools.mlflow_store.client import connect
from registry_tools.models.signing import PASSWORD_VARIABLE
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.policy.definition import parse_duration
from registry_tools.policy.policy_file import require_policy
from registry_tools.promotion.signed_verdict import SignedVerdict, evaluate_for_stage
from registry_tools.refs import parse_ref, stage_name


def evaluate(
    ref: str,
    to: str,
    *,
    key: str | Path,
    policy: str | Path | None = None,
    expires: str | timedelta | None = None,
    eval_data: str | Path | None = None,
    target: str | None = None,
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    allow_code: bool = False,
    public_key: str | None = None,
) -> SignedVerdict:
    """Run the gates of a protected stage, and store the signed verdict with the version if all pass.

    No stage moves. The verdict allows one promotion of this version to this stage, as long as the stage
    does not move and the verdict does not expire.

    Parameters
    ----------
    ref
        The candidate: `iris@staging`, `iris/3` or `iris/Staging`.
    to
        The stage that the verdict is for.
    key
        The private key of an evaluator that the policy names for the stage, in PEM format. The password of
        an encrypted key comes from REGISTRY_TOOLS_KEY_PASSWORD.
    policy
        The file with the policy; None takes REGISTRY_TOOLS_POLICY, else `registry.yaml` in your folder.
    expires
        How long the verdict can move the stage, such as `12h`; None takes the time in the policy, which is
        also the longest.
    eval_data, target
        A CSV, JSON or Parquet file of labelled rows to evaluate on, and its label column. None takes the
        held-out rows of the candidate.
    tracking_uri
        The registry; None takes MLflow's own.
    trust, allow_code, public_key
        The types and formats that the models may contain, and the key that must have signed them; as in
        `load_model`.

    Returns
    -------
    SignedVerdict
        The results of the gates, and the signed envelope.

    Raises
    ------
    GateRefused
        If a gate refused; its `promotion` has the verdict, and nothing is stored.
    PolicyError
        If there is no valid policy, or it does not protect the stage.
    InputError
        If the key belongs to no evaluator of the stage, or another option is out of its bounds.
    PromotionError
        If the version is in the stage already, or has no digest.
    UnsupportedOperation
        If the extra `signing` is not installed.
    NotFound, InvalidReference, RegistryUnavailable, AccessDenied
        If there is no such version, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import evaluate
    >>> evaluate("iris/3", to="production", key="ci.pem").evaluator  # doctest: +SKIP
    'ci'
    """
    candidate, stage = parse_ref(ref), stage_name(to)
    found = require_policy(policy)
    try:
        lifetime = parse_duration(expires) if isinstance(expires, str) else expires
    except ValueError as error:
        raise InputError(f"--expires: {error}") from error
    return evaluate_for_stage(
        connect(tracking_uri),
        candidate,
        stage,
        found,
        Path(key),
        password=os.environ.get(PASSWORD_VARIABLE),
        expires=lifetime,
        eval_data=read_optional_eval_data(eval_data, target),
        trust_policy=TrustPolicy.from_environment(trust, allow_code, public_key),
    )
