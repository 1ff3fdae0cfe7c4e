"""The policy file: what it may contain, and the line for each fault."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from registry_tools.errors import PolicyError
from registry_tools.evaluation.gates.comparison import RULES
from registry_tools.policy.definition import GateRules, Policy, StageRules, parse_duration
from registry_tools.policy.policy_file import POLICY_VARIABLE, find_policy, load_policy
from tests.support.constants import ROOT
from tests.support.documents import fenced
from tests.support.policies import MODEL, NOW, STAGE, make_policy, policy_content, rules_of, write_policy


def problems_of(path: Path) -> tuple[str, ...]:
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    for line in (str(caught.value), *caught.value.problems):
        assert "\n" not in line
        assert str(path) in line
    return caught.value.problems


def test_every_field_of_a_stage_has_a_default_but_the_evaluators(tmp_path: Path) -> None:
    content = policy_content() | {"models": {"iris": {STAGE: {"evaluators": ["ci"]}}}}
    rules = rules_of(Policy.model_validate(content))
    assert rules.gates == GateRules(
        rule="not-worse", metric="auto", margin=0.01, min={}, max={}, slices=[], baseline=True
    )
    assert (rules.approvals.count, rules.rollback, rules.force, rules.freeze) == (0, (), (), ())
    assert rules.expires == timedelta(days=7)


def test_the_first_pattern_that_matches_counts() -> None:
    content = policy_content()
    content["models"] = {
        "iris-test": {},
        "iris*": content["models"]["iris*"],
        "*": {"staging": {"protected": False}},
    }
    policy = Policy.model_validate(content)
    assert policy.stage("iris", STAGE) is not None
    assert policy.stage("iris", "Production") == policy.stage("iris", STAGE)
    assert policy.stage("iris-2", STAGE) is not None
    for model, stage in (("iris-test", STAGE), ("Iris", STAGE), ("iris", "canary"), ("wine", "staging")):
        assert policy.stage(model, stage) is None


def test_the_rules_are_those_of_the_gates() -> None:
    assert get_args(GateRules.model_fields["rule"].annotation) == RULES


def test_the_digest_changes_with_the_rules_of_the_stage_only() -> None:
    digest = rules_of(make_policy()).digest
    unrelated = policy_content()
    unrelated["models"]["wine"] = {STAGE: {"evaluators": ["ci"]}}
    unrelated["models"]["iris*"]["staging"] = {"evaluators": ["nightly"]}
    del unrelated["evaluators"]["nightly"]
    unrelated["models"]["iris*"]["staging"] = {"evaluators": ["ci"]}
    unrelated["evaluators"]["ci"] = unrelated["evaluators"]["ci"].rstrip() + "\n\n"
    assert rules_of(Policy.model_validate(unrelated)).digest == digest
    assert rules_of(make_policy(expires="7d", protected=True, freeze=[])).digest == digest
    changed: list[dict[str, Any]] = [
        {"gates": {}},
        {"gates": {"min": {"accuracy": 0.91}}},
        {"evaluators": ["ci", "nightly"]},
        {"evaluators": ["nightly"]},
        {"approvals": {"count": 2, "by": ["ana", "ben"]}},
        {"rollback": []},
        {"force": ["ana"]},
        {"freeze": [{"from": NOW, "until": NOW + timedelta(1), "reason": "holidays"}]},
        {"expires": "8d"},
    ]
    others = [rules_of(make_policy(**change)).digest for change in changed]
    replaced = policy_content()
    replaced["evaluators"]["ci"] = replaced["evaluators"]["nightly"]
    others.append(rules_of(Policy.model_validate(replaced)).digest)
    others.append(rules_of(Policy.model_validate(policy_content() | {"registry": "other"})).digest)
    assert len({digest, *others}) == len(others) + 1


FAULTS = [
    ({"gates": {"marginn": 0.02}}, "gates.marginn: no such name; did you mean 'margin'?"),
    ({"aprovals": {}}, "aprovals: no such name; did you mean 'approvals'?"),
    ({"approvals": {"xyz": 1}}, "approvals.xyz: no such name; the names are count, by"),
    ({"freeze": [{"from": NOW, "reason": "x"}]}, "freeze.0.until: Field required"),
    (
        {"gates": {"rule": "best"}},
        "gates.rule: 'best': Input should be 'not-worse', 'non-inferior' or 'better'",
    ),
    ({"gates": {"margin": 2}}, "gates.margin: '2': Input should be less than 1"),
    (
        {"gates": {"min": {"accuracy": float("nan")}}},
        "gates.min.accuracy: 'nan': Input should be a finite number",
    ),
    ({"evaluators": ["cii"]}, "evaluators: 'cii' is not in `evaluators`; did you mean 'ci'?"),
    ({"evaluators": []}, "evaluators: a protected stage needs at least one evaluator"),
    ({"approvals": {"count": 3, "by": ["ana"]}}, "approvals: count is 3, but `by` names 1 users"),
    ({"approvals": {"count": 1, "by": ["ana", "ana"]}}, "approvals.by: 'ana' is listed twice"),
    ({"approvals": {"count": True}}, "approvals.count: 'True': Input should be a valid integer"),
    ({"rollback": "ana"}, "rollback: 'ana': Input should be a valid list"),
    ({"rollback": [True]}, "rollback.0: 'True': Input should be a valid string"),
    ({"expires": "soon"}, "expires: 'soon' is not a time from 1m to 3650d; write 30m, 12h or 7d"),
    ({"expires": 7}, "expires: 7 is not a time from 1m"),
    (
        {"freeze": [{"from": "2026-12-20T00:00:00", "until": NOW, "reason": "x"}]},
        "freeze.0.from: '2026-12-20T00:00:00': Input should have timezone info",
    ),
    ({"freeze": [{"from": NOW, "until": NOW, "reason": "x"}]}, "freeze.0: `from` must be before `until`"),
]


@pytest.mark.parametrize(("rules", "line"), FAULTS)
def test_a_fault_of_a_stage_is_one_line_with_its_place(tmp_path: Path, rules: Any, line: str) -> None:
    (problem,) = problems_of(write_policy(tmp_path / "registry.yaml", **rules))
    assert f"registry.yaml: models.iris*.production.{line}" in problem


def test_faults_elsewhere_are_one_line_each(tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    content = policy_content()
    content["evaluators"]["ci"] = "no key"
    content["models"]["iris*"]["Production"] = {"evaluators": ["ci"]}
    content["models"]["[key]"] = {"production": {"evaluators": ["ci"], "aprovals": {}}}
    content["model"] = {}
    del content["registry"]
    path.write_text(yaml.safe_dump(content))
    found = problems_of(path)
    assert [problem.removeprefix(f"policy {path}: ").partition(":")[0] for problem in found] == [
        "registry",
        "evaluators.ci",
        "models.[key].production.aprovals",
        "models.iris*.Production",
        "model",
    ]
    assert "not a public key in PEM format; create it with: openssl pkey" in found[1]
    assert "write the stage in lower case: production" in found[3]
    assert "did you mean 'approvals'?" in found[2]
    assert "did you mean 'models'?" in found[4]
    with pytest.raises(
        PolicyError, match=r"registry: Field required \(and 4 more; see: registry-tools policy check"
    ):
        load_policy(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a mapping: it needs `registry`"),
        ("- a", "is not a mapping: it needs `registry`"),
        ("registry: [", "is not YAML: line 1"),
        ("registry: a\nregistry: b", "is not YAML: line 1: registry occurs twice"),
        (
            "registry: !!python/object/apply:os.getcwd []",
            "is not YAML: line 1: could not determine a constructor",
        ),
        ("from: 2026-02-30", "is not YAML: day is out of range"),
        ("? [a]\n: b", "is not YAML: line 1: found unhashable key"),
        ("[" * 20_000, "is not YAML"),
        ("1: 2\nregistry: a", "1: '1': Keys should be strings"),
    ],
)
def test_a_file_that_is_not_a_policy_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text(text)
    assert reason in problems_of(path)[0]


def test_the_file_is_found_by_argument_variable_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(POLICY_VARIABLE, raising=False)
    assert find_policy() is None
    write_policy(tmp_path / "registry.yaml")
    named = write_policy(tmp_path / "other.yaml", force=["zoe"])
    assert find_policy().stage(MODEL, STAGE).force == ("carol",)  # type: ignore[union-attr]
    monkeypatch.setenv(POLICY_VARIABLE, str(named))
    assert find_policy().stage(MODEL, STAGE).force == ("zoe",)  # type: ignore[union-attr]
    assert find_policy(tmp_path / "registry.yaml").stage(MODEL, STAGE).force == ("carol",)  # type: ignore[union-attr]
    monkeypatch.setenv(POLICY_VARIABLE, "missing.yaml")
    with pytest.raises(PolicyError, match=r"policy missing\.yaml: No such file"):
        find_policy()


def test_durations_have_a_unit_and_bounds() -> None:
    assert parse_duration("30m") == timedelta(minutes=30)
    assert parse_duration("12h") == timedelta(hours=12)
    for text in ("0d", "7", "7w", "-1d", "3651d", "9999999d", "٣d", "1d "):
        with pytest.raises(ValueError, match="is not a time"):
            parse_duration(text)


def test_the_policy_of_the_reference_is_valid_and_the_tables_have_every_field() -> None:
    page = (ROOT / "docs" / "reference" / "policy.md").read_text()
    (block,) = [text for language, text in fenced(page) if language == "yaml"]
    assert Policy.model_validate(yaml.safe_load(block)).stage("iris-2", "production") is not None
    for part in (Policy, StageRules, GateRules):
        for name, field in part.model_fields.items():
            assert f"`{field.alias or name}" in page, name
