"""A protected stage moves only on evidence; each other alias moves as before."""

from __future__ import annotations

import pytest

from registry_tools.policy.records import Held
from tests.support.gated import Gated, refusal, write_policy


def test_an_alias_that_the_policy_does_not_list_moves_and_the_protected_one_is_refused(gated: Gated) -> None:
    name = gated.model()
    assert gated.move("trainer", name, 1, "staging").status_code == 200
    assert refusal(gated.move("trainer", name, 1)) == (
        f"{name} version 1 may not enter production: it has no verdict; run: "
        f"registry-tools evaluate {name}/1 --to production --key KEY"
    )
    assert gated.aliases(name) == {"staging": 1}


@pytest.mark.parametrize("api", ["api", "ajax-api"])  # the UI sends the second
def test_a_verdict_moves_the_stage_with_its_count_its_record_and_its_legacy_stage(
    gated: Gated, api: str
) -> None:
    name = gated.model()
    envelope = gated.evaluate(name, 2)
    body = {"name": name, "alias": "production", "version": "2"}
    response = gated.call("ben", "POST", "registered-models/alias", api=api, **body)
    assert response.status_code == 200
    assert gated.aliases(name) == {"production": 2}
    assert gated.head(name) == 1
    assert gated.legacy(name) == [2]
    held = Held.from_text(gated.get(name, 2)["tags"]["held.production"])
    assert (held.head, held.envelope, held.by, held.action) == (1, envelope, "ben", "promote")


def test_no_user_is_exempt_not_even_the_admin(gated: Gated) -> None:
    name = gated.model()
    for user in ("owner", "ana", "oncall"):
        assert "it has no verdict" in refusal(gated.move(user, name, 1))


def test_setting_the_stage_to_its_holder_changes_nothing(gated: Gated) -> None:
    name = gated.model()
    gated.promote(name, 1)
    before = gated.get(name, 1)["tags"]
    assert gated.move("trainer", name, 1).status_code == 200
    assert gated.head(name) == 1
    assert gated.get(name, 1)["tags"] == before


def test_the_approval_of_another_user_is_needed(approved: Gated) -> None:
    name = approved.model()
    approved.evaluate(name, 1)
    assert "nobody requested it" in refusal(approved.move("trainer", name, 1))
    assert approved.request("ana", name, 1).status_code == 200
    assert "it has 0 of 1 approvals; ben may run" in refusal(approved.move("trainer", name, 1))
    assert approved.decide("ana", name, 1).status_code == 200  # her own request
    assert "it has 0 of 1 approvals; ben may run" in refusal(approved.move("ana", name, 1))
    assert approved.decide("ben", name, 1).status_code == 200
    assert approved.move("trainer", name, 1).status_code == 200
    held = Held.from_text(approved.get(name, 1)["tags"]["held.production"])
    assert (held.by, held.reason) == ("trainer", "better")


def test_the_user_who_registered_a_version_cannot_approve_it(approved: Gated) -> None:
    write_policy(approved.folder, approvals={"count": 1, "by": ["trainer", "ben"]})
    name = approved.model()
    approved.evaluate(name, 1)
    approved.request("ana", name, 1)
    assert approved.decide("trainer", name, 1).status_code == 200
    assert "it has 0 of 1 approvals; ben may run" in refusal(approved.move("ben", name, 1))


def test_a_rejection_stops_the_move_until_its_user_takes_it_back(approved: Gated) -> None:
    name = approved.model()
    approved.evaluate(name, 1)
    approved.request("trainer", name, 1)
    approved.decide("ben", name, 1)
    approved.decide("ana", name, 1, "reject", reason="too few rows")
    assert "ana rejected it: too few rows" in refusal(approved.move("trainer", name, 1))
    key = next(key for key in approved.get(name, 1)["tags"] if "reject" in approved.get(name, 1)["tags"][key])
    assert "is not the approval of ben" in refusal(approved.untag("ben", name, 1, key))
    assert approved.untag("ana", name, 1, key).status_code == 200
    assert approved.move("trainer", name, 1).status_code == 200


def test_an_approver_who_lost_the_right_does_not_count(approved: Gated) -> None:
    name = approved.model()
    approved.evaluate(name, 1)
    approved.request("trainer", name, 1)
    approved.decide("ben", name, 1)
    write_policy(approved.folder, approvals={"count": 1, "by": ["ana"]})
    approved.evaluate(name, 1)  # the verdict names the digest of the policy
    approved.request("trainer", name, 1)
    assert "it has 0 of 1 approvals; ana may run" in refusal(approved.move("trainer", name, 1))


def test_an_approval_is_void_when_the_verdict_changes(approved: Gated) -> None:
    name = approved.model()
    approved.evaluate(name, 1)
    approved.request("trainer", name, 1)
    approved.decide("ben", name, 1)
    approved.evaluate(name, 1)
    assert "its request is void" in refusal(approved.move("trainer", name, 1))


def test_a_version_that_held_the_stage_returns_without_a_new_verdict_by_those_who_may_roll_back(
    gated: Gated,
) -> None:
    name = gated.model()
    gated.promote(name, 1)
    gated.promote(name, 2)
    assert "trainer may not roll back; the policy names oncall" in refusal(gated.move("trainer", name, 1))
    assert gated.move("oncall", name, 1).status_code == 200
    held = Held.from_text(gated.get(name, 1)["tags"]["held.production"])
    assert (held.head, held.by, held.action) == (3, "oncall", "rollback")
    assert gated.legacy(name) == [1]
    assert gated.legacy(name, "Archived") == [2]


def test_a_rollback_needs_no_approval_and_no_thaw(approved: Gated) -> None:
    name = approved.model()
    for version in (1, 2):
        approved.evaluate(name, version)
        approved.request("trainer", name, version)
        approved.decide("ben", name, version)
        assert approved.move("trainer", name, version).status_code == 200
    freeze = {"from": "2020-01-01T00:00:00+00:00", "until": "2100-01-01T00:00:00+00:00", "reason": "holidays"}
    write_policy(approved.folder, approvals={"count": 1, "by": ["ana", "ben"]}, freeze=[freeze])
    assert approved.move("oncall", name, 1).status_code == 200
    approved.evaluate(name, 2)
    approved.request("trainer", name, 2)
    approved.decide("ben", name, 2)
    assert "is frozen until 2100" in refusal(approved.move("trainer", name, 2))


def test_force_moves_once_with_its_reason_on_record(gated: Gated) -> None:
    name = gated.model()
    assert gated.force("ana", name, 1).status_code == 200
    assert gated.move("trainer", name, 1).status_code == 200
    held = Held.from_text(gated.get(name, 1)["tags"]["held.production"])
    assert (held.action, held.reason, held.envelope) == ("force", "the night", None)
    gated.promote(name, 2)
    assert "its force does not count" in refusal(gated.move("oncall", name, 1))


def test_a_protected_stage_is_emptied_only_by_force(gated: Gated) -> None:
    name = gated.model()
    gated.promote(name, 1)
    body = {"name": name, "alias": "production"}
    answer = gated.call("oncall", "DELETE", "registered-models/alias", **body)
    assert "is emptied only by force; use: registry-tools unset" in refusal(answer)
    gated.evaluate(name, 2)  # for the move that would come next
    assert gated.force("ana", name, 1).status_code == 200
    gated.done("trainer", "DELETE", "registered-models/alias", **body)
    assert gated.aliases(name) == {}
    assert gated.legacy(name) == []
    assert gated.head(name) == 2
    assert gated.move("oncall", name, 1).status_code == 200  # the version keeps its verdict for a rollback
    assert "is for move 2 of the stage" in refusal(gated.move("trainer", name, 2))
