"""Check that a version entered its stage with a verdict, before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from registry_tools.attestation.statement import VerdictStatement
from registry_tools.errors import InvalidReference, VerificationError
from registry_tools.policy.decision import verify_verdict
from registry_tools.policy.definition import Policy
from registry_tools.policy.records import Held
from registry_tools.policy.tag_names import held_tag, verdict_tag

Digests = Mapping[str, str | None]  # of the parts `model` and `evidence` of a version


def require_stage(name: str, stage: str | None) -> str:
    """Return the stage of a reference, for which a verdict is required.

    Raises
    ------
    InvalidReference
        If the reference names a version by its number.
    """
    if stage is None:
        raise InvalidReference(
            f"a verdict is for a stage, which this reference to {name} does not name: write {name}@production"
        )
    return stage


def entry_verdict(
    policy: Policy, name: str, version: int, stage: str, tags: Mapping[str, str], digests: Digests
) -> str:
    """Return the verdict with which a version entered its stage, after verifying it.

    A gated registry records that verdict. In another registry it is the one that the version has for the
    stage. Its expiry does not count.

    Parameters
    ----------
    policy
        The policy with the keys of the evaluators.
    name, version, stage
        The version and its stage.
    tags, digests
        The tags of the version, and the digests `model` and `evidence` of its files.

    Raises
    ------
    VerificationError
        If there is no such verdict, or it does not count.
    """
    held = tags.get(held_tag(stage))
    envelope = Held.from_text(held).envelope if held is not None else tags.get(verdict_tag(stage))
    if envelope is None:
        how = "was forced into" if held is not None else "has no verdict for"
        raise VerificationError(
            f"{name} version {version} {how} {stage}, and a verdict is required; promote one that has it"
        )
    check_entry(policy, name, version, stage, envelope, digests)
    return envelope


def check_entry(
    policy: Policy, name: str, version: int, stage: str, envelope: str, digests: Digests
) -> VerdictStatement:
    """Verify the verdict with which a version entered its stage, and return its statement.

    Raises
    ------
    VerificationError
        If the verdict does not count, or the policy does not protect the stage.
    """
    rules = policy.stage(name, stage)
    if rules is None:
        raise VerificationError(f"a verdict is required, but the policy does not protect {stage} of {name}")
    try:
        return verify_verdict(rules, envelope, name, version, digests)
    except VerificationError as error:
        raise VerificationError(
            f"the verdict with which {name} version {version} entered {stage} does not count: {error}"
        ) from error
