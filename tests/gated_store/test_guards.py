"""Every other request that would move or remove a protected stage is refused too."""

from __future__ import annotations

import os

import pytest

from tests.support.gated import Gated, refusal


@pytest.mark.parametrize("alias", ["Production", "PRODUCTION", "productioN"])
def test_another_spelling_of_the_stage_is_refused(gated: Gated, alias: str) -> None:
    name = gated.model()
    gated.evaluate(name, 1)
    assert f"{alias} is another spelling" in refusal(gated.move("trainer", name, 1, alias))


@pytest.mark.parametrize("archive", [True, False])
def test_the_legacy_stage_follows_the_alias_only(gated: Gated, archive: bool) -> None:
    name = gated.model()
    gated.promote(name, 1)

    def transition(version: int, stage: str) -> str:
        body = {"name": name, "version": str(version), "stage": stage}
        body |= {"archive_existing_versions": archive} if stage.lower() in ("production", "staging") else {}
        response = gated.call("owner", "POST", "model-versions/transition-stage", **body)
        return "" if response.status_code == 200 else refusal(response)

    for version, stage in (
        (2, "Production"),
        (2, "production"),
        (1, "Archived"),
        (1, "None"),
        (1, "Staging"),
    ):
        assert "Production of" in transition(version, stage)
    assert transition(1, "Production") == ""  # what a client that mirrors the alias sends
    assert transition(2, "Staging") == ""
    assert gated.legacy(name) == [1]


def test_the_legacy_stage_of_a_version_in_two_stages_is_production(gated: Gated) -> None:
    name = gated.model("one", "two", "three")
    gated.promote(name, 1)
    assert gated.move("trainer", name, 1, "staging").status_code == 200
    gated.promote(name, 2)
    assert gated.get(name, 1)["current_stage"] == "Staging"
    assert gated.legacy(name) == [2]


def test_the_holder_is_not_deleted(gated: Gated) -> None:
    name = gated.model()
    gated.promote(name, 1)
    for user in ("trainer", "owner"):
        answer = gated.call(user, "DELETE", "model-versions/delete", name=name, version="1")
        assert refusal(answer) == f"version 1 of {name} holds production; promote another one first"
    gated.done("trainer", "DELETE", "model-versions/delete", name=name, version="2")


def test_a_model_with_a_moved_stage_is_neither_deleted_nor_renamed(gated: Gated) -> None:
    name = gated.model()
    gated.promote(name, 1)
    gated.force("ana", name, 1)
    gated.done("trainer", "DELETE", "registered-models/alias", name=name, alias="production")
    for user in ("trainer", "owner"):  # also while the stage is empty
        answer = gated.call(user, "DELETE", "registered-models/delete", name=name)
        assert "cannot be deleted, because production" in refusal(answer)
        answer = gated.call(user, "POST", "registered-models/rename", name=name, new_name=f"x-{name}")
        assert "cannot be renamed" in refusal(answer)


def test_a_model_with_the_alias_is_not_renamed_into_a_protected_name(gated: Gated) -> None:
    wanted, other = f"iris-renamed-{os.getpid()}", gated.model(name=f"plain-{os.getpid()}")
    for alias in ("production", "Production"):
        assert gated.move("trainer", other, 1, alias).status_code == 200
        answer = gated.call("trainer", "POST", "registered-models/rename", name=other, new_name=wanted)
        assert f"because production of {wanted} is a protected stage" in refusal(answer)
        gated.done("trainer", "DELETE", "registered-models/alias", name=other, alias=alias)
    body = {"name": other, "version": "1", "archive_existing_versions": False}
    gated.done("trainer", "POST", "model-versions/transition-stage", stage="Production", **body)
    answer = gated.call("trainer", "POST", "registered-models/rename", name=other, new_name=wanted)
    assert f"because production of {wanted} is a protected stage" in refusal(answer)
    gated.done("trainer", "POST", "model-versions/transition-stage", stage="None", **body)
    gated.done("trainer", "POST", "registered-models/rename", name=other, new_name=wanted)
    assert "it has no verdict" in refusal(gated.move("trainer", wanted, 1))


def test_requests_that_name_nothing_get_the_errors_of_mlflow(gated: Gated) -> None:
    name = gated.model()
    for version, status in (("9", 404), ("x", 400)):
        assert gated.move("trainer", name, version).status_code == status
    assert gated.move("owner", "iris-unknown", 1).status_code == 404
    assert gated.move("trainer", name, 1, "a b").status_code == 400
    answer = gated.call("trainer", "DELETE", "registered-models/alias", name=name, alias="production")
    assert answer.status_code == 200  # as MLflow answers when there is nothing to delete
