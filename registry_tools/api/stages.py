"""Move stages: promote a version through the gates, roll back, and empty a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from registry_tools.evaluation.eval_data import read_optional_eval_data
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.mlflow_store.client import connect
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.policy.policy_file import find_policy
from registry_tools.promotion import promote as promotion
from registry_tools.promotion import rollback as rollbacks
from registry_tools.promotion.event import Event
from registry_tools.promotion.promote import Promotion
from registry_tools.refs import model_name, parse_ref, stage_name


def promote(
    ref: str,
    to: str,
    *,
    reason: str = "",
    actor: str | None = None,
    new_stage: bool = False,
    expect_current: int | None = None,
    dry_run: bool = False,
    force: bool = False,
    minimum: Mapping[str, float] | None = None,
    maximum: Mapping[str, float] | None = None,
    rule: str = "not-worse",
    metric: str | None = None,
    margin: float = 0.01,
    baseline: bool = True,
    slices: Sequence[str] = (),
    max_latency_ms: float | None = None,
    max_latency_ratio: float | None = None,
    max_size_ratio: float | None = None,
    onnx: bool = False,
    eval_data: str | Path | None = None,
    target: str | None = None,
    policy: str | Path | None = None,
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    allow_code: bool = False,
    public_key: str | None = None,
) -> Promotion:
    """Evaluate a version and, if every gate passes, move a stage to it.

    If a policy protects the stage, no gates run: the signed verdict and the approvals of the version decide.

    Parameters
    ----------
    ref
        The candidate: `iris@staging`, `iris/3` or `iris/Staging`.
    to
        The stage to move.
    reason, actor
        Why, and who if not the login name; the history shows both.
    new_stage
        Whether the stage may be a new one.
    expect_current
        The version that you expect in the stage; if another one holds it, nothing is moved.
    dry_run
        Evaluate the gates only; nothing is recorded or moved, and a refusal is in the result.
    force
        Move the stage even if a gate refuses; needs `reason`. The policy names the users who may force a
        protected stage.
    minimum, maximum
        Thresholds by metric on the held-out rows, such as `{"accuracy": 0.9}`.
    rule
        How the candidate is compared with the champion: `not-worse`, `non-inferior` or `better`.
    metric
        The metric to compare by, such as `balanced_accuracy`, `recall:CLASS`, `mae` or
        `module:function`. None takes the one recorded with the champion, else with the version,
        else `accuracy`, or `rmse` for a regressor.
    margin
        A difference in the metric that does not matter; for `rmse`, `mae`,
        `median_absolute_error` and `log_loss`, a share of the champion's value.
    baseline
        Whether the candidate must be better than the best constant prediction; False needs
        `reason`.
    slices
        Columns; in no group of their values may the candidate be significantly worse.
    max_latency_ms
        The longest median time for one row, in milliseconds.
    max_latency_ratio, max_size_ratio
        The largest multiple of the champion's latency, and of the size of its files.
    onnx
        Convert the candidate to ONNX, demand that the file predicts the same, and store it with the
        candidate; needs the extra `onnx`.
    eval_data, target
        A CSV, JSON or Parquet file of labelled rows to evaluate on, and its label column. None
        takes the held-out rows of the candidate.
    policy
        The file with the policy; None takes REGISTRY_TOOLS_POLICY, else `registry.yaml` in your folder, if
        it exists. Leave out the options of the gates for a stage that it protects.
    tracking_uri
        The registry; None takes MLflow's own.
    trust, allow_code, public_key
        The types and formats that the models may contain, and the key that must have signed
        them; as in `load_model`.

    Returns
    -------
    Promotion
        The verdict of the gates and the recorded event.

    Raises
    ------
    GateRefused
        If a gate refused; its `promotion` has the verdict. The refusal is recorded.
    MoveRefused
        If a gated registry refused the move. The event is recorded as failed.
    PolicyError
        If the policy is not valid.
    StageMoved
        If another client moved the stage, or it does not hold `expect_current`.
    NotFound
        If there is no such version, or no such stage and `new_stage` is False.
    PromotionError
        If a reason is missing, the version is in the stage already, or an option contradicts the policy.
    InputError
        If an option is out of its bounds, or `eval_data` cannot be used.
    InvalidReference, RegistryUnavailable, AccessDenied
        If a name is not valid, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import GateRefused, promote
    >>> try:  # doctest: +SKIP
    ...     promote("iris@staging", to="production", reason="better on new data", minimum={"accuracy": 0.9})
    ... except GateRefused as refused:
    ...     print(refused.promotion.verdict.to_pandas())
    """
    candidate, stage = parse_ref(ref), stage_name(to)
    options = GateOptions(
        minimum=minimum or {},
        maximum=maximum or {},
        rule=rule,
        metric=metric,
        margin=margin,
        baseline=baseline,
        slices=tuple(slices),
        max_latency_ms=max_latency_ms,
        max_latency_ratio=max_latency_ratio,
        max_size_ratio=max_size_ratio,
        onnx=onnx,
        eval_data=read_optional_eval_data(eval_data, target),
        trust_policy=TrustPolicy.from_environment(trust, allow_code, public_key),
    )
    return promotion.promote(
        connect(tracking_uri),
        candidate,
        stage,
        options,
        new_stage=new_stage,
        actor=actor,
        reason=reason,
        expect_current=expect_current,
        dry_run=dry_run,
        force=force,
        policy=find_policy(policy),
    )


def rollback(
    name: str,
    stage: str = "production",
    *,
    reason: str,
    to: int | None = None,
    actor: str | None = None,
    expect_current: int | None = None,
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    allow_code: bool = False,
    public_key: str | None = None,
) -> Promotion:
    """Roll a stage back to the version that held it before.

    A second rollback skips the version that the first one left.

    Parameters
    ----------
    name
        The registered model.
    stage
        The stage to roll back.
    reason, actor
        Why, and who if not the login name; the history shows both.
    to
        The version to roll back to, which held the stage once; None takes the one before.
    expect_current
        The version that you expect in the stage; if another one holds it, nothing is moved.
    tracking_uri
        The registry; None takes MLflow's own.
    trust, allow_code, public_key
        The types and formats that the version may contain, and the key that must have signed it;
        as in `load_model`.

    Returns
    -------
    Promotion
        The version that holds the stage now, and the recorded event; `notes` names the versions
        that were skipped.

    Raises
    ------
    PromotionError
        If the reason is empty, or no version that held the stage before passes its gates.
    MoveRefused
        If a gated registry refused the move. The event is recorded as failed.
    StageMoved
        If another client moved the stage in the meantime, or it does not hold `expect_current`.
    NotFound, InvalidReference, RegistryUnavailable, AccessDenied
        If there is no such model or stage, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import rollback
    >>> rollback("iris", stage="production", reason="wrong labels").version  # doctest: +SKIP
    1
    """
    model, where = model_name(name), stage_name(stage)
    return rollbacks.rollback(
        connect(tracking_uri),
        model,
        where,
        reason=reason,
        to=to,
        actor=actor,
        expect_current=expect_current,
        trust_policy=TrustPolicy.from_environment(trust, allow_code, public_key),
    )


def unset(
    name: str,
    stage: str,
    *,
    reason: str,
    actor: str | None = None,
    force: bool = False,
    tracking_uri: str | None = None,
) -> Event:
    """Empty a stage; a rollback brings its version back.

    Parameters
    ----------
    name
        The registered model.
    stage
        The stage to empty.
    reason, actor
        Why, and who if not the login name; the history shows both.
    force
        Empty a stage that the policy of a gated registry protects; the policy names the users who may.
    tracking_uri
        The registry; None takes MLflow's own.

    Returns
    -------
    Event
        The recorded event; its `previous_version` held the stage.

    Raises
    ------
    PromotionError
        If the reason or the stage is empty.
    MoveRefused
        If a gated registry refused the move. The event is recorded as failed.
    StageMoved
        If another client moved the stage in the meantime.
    NotFound, InvalidReference, RegistryUnavailable, AccessDenied
        If there is no such model or stage, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import unset
    >>> unset("iris", "canary", reason="the experiment is over").previous_version  # doctest: +SKIP
    1
    """
    model, where = model_name(name), stage_name(stage)
    return rollbacks.unset(connect(tracking_uri), model, where, reason=reason, actor=actor, force=force)
