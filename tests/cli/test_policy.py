"""The group `policy`: faults of the file, and the rules of a stage in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry_tools.cli.main import main
from tests.support.commands import error_of, run
from tests.support.policies import NOW, policy_content, write_policy
from tests.support.registries import Place


def test_a_valid_policy_lists_its_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_policy(tmp_path / "registry.yaml")
    assert main(["policy", "check"]) == 0
    assert capsys.readouterr().out == "valid  registry team-registry\nprotected  iris* production\n"
    found = run(capsys, "policy", "check", "registry.yaml")
    assert found == {
        "problems": [],
        "registry": "team-registry",
        "stages": {"iris*": ["production"]},
        "valid": True,
    }


def test_each_fault_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write_policy(tmp_path / "registry.yaml", expires="soon", force="ana"))
    assert main(["policy", "check", path]) == 1
    out, err = capsys.readouterr()
    assert [line.partition("production.")[2].partition(":")[0] for line in out.splitlines()] == [
        "force",
        "expires",
    ]
    assert err.count("\n") == 1
    assert "(and 1 more; see: registry-tools policy check)" in err
    assert main(["policy", "check", path, "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 2
    write_policy(tmp_path / "registry.yaml", expires="soon")
    assert "production.expires: 'soon' is not a time" in error_of(capsys, "policy", "check", path)
    assert "policy none.yaml: No such file" in error_of(capsys, "policy", "check", "none.yaml")


def test_a_missing_policy_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no policy: write registry.yaml" in error_of(capsys, "policy", "check")


RULES = """\
stage      production of the models iris* in the registry 'team-registry'
verdict    signed by ci, valid for 12 hours
gates      better: compared with the champion by recall:versicolor, with the margin 0.02
gates      accuracy is at least 0.9
gates      log_loss is at most 0.5
gates      better than the best constant prediction
gates      not significantly worse than the champion in any group of region
gates      the median time for one row is at most 5 ms
gates      that time is at most 2 times the champion's
gates      the files are at most 3 times as large as the champion's
gates      an ONNX file predicts the same
approvals  a promotion needs 1 from ana, ben, not from its requester or the user who registered it
rollback   oncall may roll back
force      nobody may move the stage without a verdict, with a reason
freeze     no promotion from 2026-11-28T12:00:00+00:00 until 2026-11-29T12:00:00+00:00: holidays
"""


def test_the_rules_are_explained_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    gates = {
        "rule": "better",
        "metric": "recall:versicolor",
        "margin": 0.02,
        "onnx": True,
        "slices": ["region"],
        "min": {"accuracy": 0.9},
        "max": {"log_loss": 0.5},
        "max_latency_ms": 5.0,
        "max_latency_ratio": 2.0,
        "max_size_ratio": 3.0,
    }
    freeze = [{"from": NOW, "until": NOW.replace(day=29), "reason": "holidays"}]
    write_policy(tmp_path / "registry.yaml", gates=gates, freeze=freeze, expires="12h", force=[])
    assert main(["policy", "explain", "iris", "Production"]) == 0
    assert capsys.readouterr().out == RULES
    found = run(capsys, "policy", "explain", "iris", "production")
    assert found["rules"][0] == {"rule": "stage", "text": RULES.splitlines()[0][11:]}
    assert found["missing"] is None
    assert main(["policy", "explain", "wine", "production"]) == 0
    assert capsys.readouterr().out == "stage  the policy does not protect production of wine\n"
    write_policy(tmp_path / "other.yaml", approvals={"count": 0}, expires="90m")
    assert main(["policy", "explain", "iris", "production", "--policy", "other.yaml"]) == 0
    out = capsys.readouterr().out
    assert "approvals  a promotion needs none\n" in out
    assert "signed by ci, valid for 90 minutes" in out


def test_the_missing_conditions_of_a_version_are_listed(
    model: str, local: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "registry.yaml").write_text(json.dumps(policy_content()))
    assert main(["policy", "explain", f"{model}/2", "production"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(f"{model} version 2: ")[2].partition(";")[0] for line in lines[-3:]] == [
        "it has no verdict",
        "nobody requested it",
        "it has 0 of 1 approvals",
    ]
    found = run(capsys, "policy", "explain", f"{model}/1", "production")
    assert (found["version"], found["missing"]) == (1, [])
    assert main(["policy", "explain", f"{model}@production", "production"]) == 0
    assert f"held       {model} version 1 is in production" in capsys.readouterr().out
    assert main(["policy", "explain", f"{model}/2", "staging"]) == 0
    assert f"ready  {model} version 2 may enter staging" in capsys.readouterr().out
