"""Request a promotion to a protected stage, approve or reject it, and list the open requests."""

from __future__ import annotations

from pathlib import Path

from registry_tools.mlflow_store.client import connect
from registry_tools.policy.policy_file import require_policy
from registry_tools.policy.records import Approval, Request
from registry_tools.promotion import approvals
from registry_tools.promotion.approvals import PendingRequest
from registry_tools.refs import model_name, parse_ref, stage_name


def request(ref: str, to: str, *, reason: str, tracking_uri: str | None = None) -> Request:
    """Request the promotion of a version to a protected stage.

    The request counts as long as the verdict of the version and the stage stay as they are.

    Parameters
    ----------
    ref
        The candidate, which has a signed verdict: `iris@staging`, `iris/3` or `iris/Staging`.
    to
        The protected stage.
    reason
        Why; its approvers and the history show it.
    tracking_uri
        The registry; None takes MLflow's own.

    Returns
    -------
    Request
        The request with your authenticated name in `by`, and the time in `at`.

    Raises
    ------
    PromotionError
        If the reason is empty, the version has no verdict or holds the stage, or the registry is not gated.
    MoveRefused
        If the policy of the registry does not protect the stage.
    NotFound, InvalidReference, RegistryUnavailable, AccessDenied
        If there is no such version, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import request
    >>> request("iris/3", to="production", reason="better on new data").by  # doctest: +SKIP
    'eva'
    """
    return approvals.request(connect(tracking_uri), parse_ref(ref), stage_name(to), reason)


def approve(ref: str, to: str, *, reason: str = "", tracking_uri: str | None = None) -> Approval:
    """Approve a requested promotion to a protected stage.

    The approval counts as long as the verdict of the version and the stage stay as they are. It takes the
    place of your earlier rejection.

    Parameters
    ----------
    ref, to
        The candidate and the protected stage.
    reason
        Why; the history shows it.
    tracking_uri
        The registry; None takes MLflow's own.

    Returns
    -------
    Approval
        The approval with your authenticated name in `by`, and the time in `at`.

    Raises
    ------
    MoveRefused
        If the policy does not name you as an approver, or you requested the promotion or registered the
        version.
    PromotionError
        If nobody requested the promotion, or the registry is not gated.
    NotFound, InvalidReference, RegistryUnavailable, AccessDenied
        If there is no such version, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import approve
    >>> approve("iris/3", to="production").by  # doctest: +SKIP
    'ben'
    """
    return approvals.approve(connect(tracking_uri), parse_ref(ref), stage_name(to), reason)


def reject(ref: str, to: str, *, reason: str, tracking_uri: str | None = None) -> Approval:
    """Reject a requested promotion to a protected stage; the version cannot enter it then.

    Parameters
    ----------
    ref, to
        The candidate and the protected stage.
    reason
        Why; the requester and the history see it.
    tracking_uri
        The registry; None takes MLflow's own.

    Returns
    -------
    Approval
        The rejection with your authenticated name in `by`, and the time in `at`.

    Raises
    ------
    MoveRefused
        If the policy does not name you as an approver.
    PromotionError
        If the reason is empty, nobody requested the promotion, or the registry is not gated.
    NotFound, InvalidReference, RegistryUnavailable, AccessDenied
        If there is no such version, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import reject
    >>> reject("iris/3", to="production", reason="worse on rare classes").decision  # doctest: +SKIP
    'reject'
    """
    return approvals.reject(connect(tracking_uri), parse_ref(ref), stage_name(to), reason)


def list_requests(
    name: str | None = None, *, policy: str | Path | None = None, tracking_uri: str | None = None
) -> list[PendingRequest]:
    """Return the open requests for protected stages, the newest first.

    Parameters
    ----------
    name
        The registered model; None takes all.
    policy
        The file with the policy; None takes REGISTRY_TOOLS_POLICY, else `registry.yaml` in your folder.
    tracking_uri
        The registry; None takes MLflow's own.

    Returns
    -------
    list
        The requests, each with its evidence and the conditions that are not met yet.

    Raises
    ------
    PolicyError
        If there is no valid policy.
    InvalidReference, RegistryUnavailable, AccessDenied
        If the name is not valid, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import list_requests
    >>> [each.missing for each in list_requests("iris")]  # doctest: +SKIP
    [['it has 0 of 1 approvals; ben may run: registry-tools approve iris/3 --to production']]
    """
    model = model_name(name) if name is not None else None
    return approvals.pending(connect(tracking_uri), require_policy(policy), model)
