"""The public functions, called as a user's program calls them, on a real store."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from sklearn.datasets import load_iris

import registry_tools
from registry_tools import (
    GateRefused,
    InputError,
    InvalidReference,
    NotFound,
    PromotionError,
    compare,
    copy,
    get_version,
    history,
    list_models,
    list_versions,
    promote,
    rollback,
    score,
    unset,
    verify,
)
from tests.support.constants import LONG, ROOT
from tests.support.registries import GOOD, POOR, Place

PAGE = ROOT / "docs" / "reference" / "python.md"
SECTIONS = ("Parameters", "Returns", "Raises", "Examples")


def functions() -> list[str]:
    return [name for name in registry_tools.__all__ if inspect.isfunction(getattr(registry_tools, name))]


def test_every_public_name_has_its_place_in_the_reference() -> None:
    documented = re.findall(r"^::: registry_tools\.(\w+)$", PAGE.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(registry_tools.__all__)
    assert sorted(set(registry_tools.__all__)) == registry_tools.__all__


def test_type_checkers_see_the_module_of_each_lazy_name() -> None:
    source = inspect.getsource(registry_tools)
    for name, module in registry_tools._MODULE_OF.items():
        assert re.search(rf"^    from registry_tools\.{module} import .*\b{name}\b", source, re.MULTILINE), (
            name
        )


@pytest.mark.parametrize("name", functions())
def test_the_docstring_of_a_function_describes_each_parameter(name: str) -> None:
    function = getattr(registry_tools, name)
    text = inspect.getdoc(function) or ""
    for section in SECTIONS:
        assert re.search(rf"^{section}\n-+$", text, re.MULTILINE), section
    parameters = text.partition("Parameters\n")[2].partition("\nRaises\n")[0].partition("\nReturns\n")[0]
    titles = re.findall(r"^(\w[\w, ]*)(?: : .*)?$", parameters, re.MULTILINE)
    described = {each for title in titles for each in title.split(", ")}
    assert described == set(inspect.signature(function).parameters)


@LONG
@pytest.mark.slow
def test_a_version_is_promoted_and_rolled_back_with_its_history(local: Place) -> None:
    name = local.model(GOOD, POOR)
    promoted = promote(f"{name}/1", to="production", reason="the first", actor="ada")
    assert (promoted.version, promoted.previous_version) == (1, None)
    assert promoted.verdict.passed
    assert promoted.verdict.to_pandas()["gate"].tolist()[:2] == ["integrity", "signature"]
    with pytest.raises(GateRefused) as refused:
        promote(f"{name}/2", to="production", minimum={"accuracy": 0.9})
    assert not refused.value.promotion.verdict.passed
    assert not promote(f"{name}/2", to="production", dry_run=True).verdict.passed
    promote(f"{name}/2", to="production", force=True, reason="to show it")
    back = rollback(name, stage="production", reason="a bad idea", actor="ada")
    assert back.version == 1
    assert back.as_dict()["event"]["action"] == "rollback"

    events = history(name)
    assert [event.action for event in events] == ["rollback", "promote", "promote", "promote"]
    assert events.stages == {"production": 1}
    assert len(history(name, stage="production", limit=2)) == 2
    frame = events.to_pandas()
    assert frame["outcome"].tolist() == ["applied", "applied", "refused", "applied"]
    assert frame["version"].tolist() == [1, 2, 2, 1]
    assert frame["previous_version"].isna().tolist() == [False, False, False, True]
    assert frame["at"].is_monotonic_decreasing
    assert str(frame["at"].dtype).endswith("UTC]")
    assert get_version(f"{name}@production").last_event == events[0]
    assert unset(name, "production", reason="done", actor="ada").previous_version == 1
    assert history(name).stages == {}
    with pytest.raises(PromotionError, match="holds no version"):
        unset(name, "production", reason="again")


def test_models_and_versions_are_tables(local: Place) -> None:
    name = local.model(GOOD, POOR)
    promote(f"{name}/1", to="production", reason="go")
    versions = list_versions(name)
    assert [version.version for version in versions] == [2, 1]
    assert versions[1].stages == ("production",)
    assert versions[1].verdict is not None
    assert versions[0].last_event is None
    assert list_versions(name, limit=1)[:1] == versions[:1]
    frame = versions.to_pandas()
    assert frame["metrics.accuracy"].round(2).tolist() == [0.33, 0.97]
    assert frame["last_event.action"].tolist()[1] == "promote"
    assert frame.loc[1, "stages"] == ["production"]
    assert versions.as_dict()["rows"][0] == versions[0].as_dict()
    (row,) = [model for model in list_models() if model.name == name]
    assert row.stages == {"production": 1}
    models = list_models().to_pandas().set_index("name")
    assert models.loc[name, "stages.production"] == 1


def test_an_empty_table_has_its_columns(local: Place) -> None:
    frame = history(local.model(GOOD)).to_pandas()
    assert len(frame) == 0
    assert list(frame.columns[:3]) == ["at", "action", "outcome"]


def test_two_versions_are_compared_side_by_side(local: Place) -> None:
    name = local.model(GOOD, POOR)
    result = compare(f"{name}/1", f"{name}/2")
    assert result.paired is not None
    assert result.paired.difference == pytest.approx(0.6333, abs=5e-5)
    assert result.as_dict()["paired"]["rows"] == 30
    table = result.to_pandas()
    assert list(table.columns) == [f"{name}/1", f"{name}/2"]
    assert table.loc[("param", "max_iter")].tolist() == ["200", "1"]
    with pytest.raises(InputError, match="are both"):
        compare(f"{name}/1", f"{name}/1")


@pytest.mark.slow
def test_a_version_is_verified_and_copied_to_a_new_registry(local: Place, tmp_path: Path) -> None:
    name = local.model(GOOD)
    verdict = verify(f"{name}/1")
    assert verdict.passed
    assert {gate.gate for gate in verdict.gates} == {"integrity", "predictions", "history"}
    uri = f"sqlite:///{tmp_path}/other.db"
    with pytest.raises(NotFound):
        copy(f"{name}/9", to_uri=uri)
    assert not (tmp_path / "other.db").exists()
    copied = copy(f"{name}/1", to_uri=uri, name="moved")
    assert (copied.version, copied.as_dict()["made"]) == (1, True)
    assert verify("moved/1", tracking_uri=uri).passed
    assert MlflowClient(uri, uri).get_model_version("moved", "1").aliases == []


def test_files_are_scored(local: Place, tmp_path: Path) -> None:
    name = local.model(GOOD)
    iris = load_iris(as_frame=True)
    iris.data.to_csv(tmp_path / "rows.csv", index=False)
    output = tmp_path / "scored.parquet"
    summary = score(f"{name}/1", input=tmp_path / "rows.csv", output=output, workers=1)
    assert (summary.rows, summary.as_dict()["version"]) == (150, 1)
    assert (pd.read_parquet(output)["prediction"] == iris.target).mean() > 0.95


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: promote("iris", to="production"), InvalidReference, "names no version and no stage"),
        (lambda: promote("iris/1", to="pro duction"), InvalidReference, "not a legal alias"),
        (lambda: promote("iris/1", to="production", target="y"), InputError, "eval_data is missing"),
        (lambda: compare("iris/1", "iris/2", eval_data="x.csv"), InputError, "target is missing"),
        (lambda: promote("iris/1", to="production", rule="best"), InputError, "rule=best: must be one of"),
        (lambda: list_versions("a/b"), InvalidReference, "is not usable"),
        (lambda: history("iris", stage="v1"), InvalidReference, "reserves"),
    ],
)
def test_a_wrong_argument_is_named_before_the_registry_is_asked(
    call: object, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]
