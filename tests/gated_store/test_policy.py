"""Without a valid policy no stage moves, and each change of the policy counts at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.constants import LONG
from tests.support.gated import Gated, gated_server, refusal, write_policy


@pytest.mark.parametrize(
    "content", [None, "", "registry: [", "registry: a\nmodels: {iris: {Production: {}}}\n"]
)
def test_a_missing_or_broken_policy_stops_every_move_and_no_reading(
    gated: Gated, content: str | None
) -> None:
    name = gated.model()
    gated.promote(name, 1)
    gated.evaluate(name, 2)
    if content is None:
        gated.policy.unlink()
    else:
        gated.policy.write_text(content)
    for user, alias in (("trainer", "production"), ("oncall", "production"), ("owner", "staging")):
        message = refusal(gated.move(user, name, 2, alias))
        assert str(gated.policy) in message
        assert message.endswith("no stage moves until the server can read its policy")
    body = {"name": name, "version": "1"}
    transition = {**body, "stage": "Archived", "archive_existing_versions": False}
    for method, path, fields in (
        ("DELETE", "registered-models/alias", {"name": name, "alias": "production"}),
        ("POST", "model-versions/transition-stage", transition),
        ("DELETE", "model-versions/delete", body),
        ("DELETE", "registered-models/delete", {"name": name}),
        ("POST", "registered-models/rename", {"name": name, "new_name": "plain"}),
    ):
        assert str(gated.policy) in refusal(gated.call("owner", method, path, **fields))
    assert gated.aliases(name) == {"production": 1}
    write_policy(gated.folder)
    assert gated.move("trainer", name, 2).status_code == 200


def test_a_changed_rule_voids_a_verdict_and_an_unrelated_rule_does_not(gated: Gated) -> None:
    name = gated.model()
    gated.evaluate(name, 1)
    write_policy(gated.folder, others={"wine": {"production": {"evaluators": ["ci"]}}})
    assert gated.move("trainer", name, 1).status_code == 200
    gated.evaluate(name, 2)
    write_policy(gated.folder, force=["ana", "ben"])
    assert "is for other rules" in refusal(gated.move("trainer", name, 2))


def test_a_stage_that_the_policy_begins_to_protect_stays_until_there_is_evidence(gated: Gated) -> None:
    write_policy(gated.folder, protected=False)
    name = gated.model()
    assert gated.move("trainer", name, 1).status_code == 200
    assert gated.move("trainer", name, 2, "Production").status_code == 200  # plain MLflow has both
    write_policy(gated.folder)
    assert "it has no verdict" in refusal(gated.move("trainer", name, 2))
    gated.promote(name, 2)
    assert gated.aliases(name) == {"production": 2}  # the move deletes other spellings


@LONG
@pytest.mark.slow
def test_a_server_without_the_variable_moves_nothing_and_a_server_without_users_has_no_approvers(
    empty_database: Path, tmp_path: Path
) -> None:
    write_policy(tmp_path, approvals={"count": 1, "by": ["ana"]})
    with gated_server(empty_database, tmp_path, with_users=False) as running:
        name = running.model()
        running.evaluate(name, 1)
        assert running.request("ana", name, 1).status_code == 200
        assert "an approval needs a signed-in user" in refusal(running.decide("ana", name, 1))
        assert "request" in refusal(running.move("ana", name, 1))
        assert "does not allow an unknown user to force" in refusal(running.force("ana", name, 1))
        write_policy(tmp_path)
        running.promote(name, 1)
        assert running.get(name, 1)["tags"]["registered_by"] == ""
    with gated_server(empty_database, tmp_path, with_users=False, with_policy=False) as running:
        message = refusal(running.move("ana", name, 2, "staging"))
        assert message.startswith("the server has no policy, so no stage moves; set REGISTRY_TOOLS_POLICY")
