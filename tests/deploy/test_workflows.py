"""The workflows for GitHub, compared with the project; no test can run them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tests.support.constants import ROOT

WORKFLOWS = ROOT / ".github" / "workflows"
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def workflow(name: str) -> dict[str, Any]:
    return yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def matrix(job: str, variable: str) -> list[str]:
    return workflow("ci")["jobs"][job]["strategy"]["matrix"][variable]


@pytest.mark.parametrize("name", ["ci", "release"])
def test_a_workflow_may_only_read_unless_a_job_says_more(name: str) -> None:
    assert workflow(name)["permissions"] == {"contents": "read"}


def test_a_newer_push_ends_the_run_of_an_older_one() -> None:
    assert workflow("ci")["concurrency"]["cancel-in-progress"]


def test_the_tests_run_on_each_python_from_the_oldest_that_the_project_supports() -> None:
    pythons = matrix("test", "python")
    assert pythons == [f"3.{minor}" for minor in range(10, 14)]
    (oldest,) = re.findall(r'^requires-python = ">=(.*)"', PYPROJECT, re.MULTILINE)
    assert pythons[0] == oldest
    assert commands(workflow("ci")["jobs"]["test"]) == ["make check test ARGS=--cov"]


def test_the_tests_run_with_the_oldest_and_the_newest_mlflow() -> None:
    oldest, newest = matrix("mlflow", "mlflow")
    (required,) = re.findall(r'"mlflow(>=.*?)"', PYPROJECT)
    assert newest == required
    pinned = oldest.removeprefix("==")
    assert pinned in SpecifierSet(required)
    assert SpecifierSet(f">={pinned}") == SpecifierSet(f"{required.partition(',')[0]}.0")


def test_every_job_with_python_has_a_cache_of_packages() -> None:
    for job in workflow("ci")["jobs"].values():
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/setup-python"):
                assert step["with"]["cache"] == "pip"


def test_what_the_jobs_name_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    run = [each for job in workflow("ci")["jobs"].values() for each in commands(job)]
    assert ".ci/run" in run
    for target in {word for each in run if each.startswith("make ") for word in each.split()[1:]}:
        if re.fullmatch(r"[a-z-]+", target):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in {word for each in run for word in re.findall(r"(?:tests|deploy)/[\w/.]+", each)}:
        assert (ROOT / path).exists(), path
    for test in {word for each in run for word in re.findall(r"(tests/\S+)::(\w+)", each)}:
        assert f"def {test[1]}(" in (ROOT / test[0]).read_text()
    stages = set(re.findall(r"AS (\w+)$", (ROOT / "deploy" / "Containerfile").read_text(), re.MULTILINE))
    assert set(matrix("images", "target")) == stages - {"base"}


def test_a_release_has_the_version_of_its_tag() -> None:
    """The pattern of the workflow finds the line of the version."""
    (version,) = re.findall(r'^version = "(.*)"$', PYPROJECT, re.MULTILINE)
    check, *_ = commands(workflow("release")["jobs"]["build"])
    pattern = re.search(r'"(version = .*)" ', check)[1].replace('\\"', '"')  # type: ignore[index]
    assert pattern.replace("${GITHUB_REF_NAME#v}", version) in PYPROJECT.splitlines()
