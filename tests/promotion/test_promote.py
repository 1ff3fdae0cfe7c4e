"""Promotion, rollback and what surrounds them, on real registries."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from pipeline.data import split
from pipeline.data.dataset import Dataset
from pipeline.params.definitions import TrainParams
from pipeline.training.train import train
from registry_tools import load_model
from registry_tools.errors import (
    GateRefused,
    InputError,
    NotFound,
    PromotionError,
    RegistryToolsError,
    RegistryUnavailable,
    StageMoved,
)
from registry_tools.evaluation import comparison
from registry_tools.evaluation.eval_data import read_eval_data
from registry_tools.evaluation.evaluate import evaluate
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.mlflow_store import registered_models, stages
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.promotion import deletion, history, promote, recovery, rollback
from registry_tools.promotion.event_log import EventLog
from registry_tools.promotion.promote import Promotion
from registry_tools.refs import ModelRef
from tests.support.constants import LONG
from tests.support.registries import EQUAL, GOOD, POOR, Place, on_server
from tests.support.servers import BIN
from tests.support.tracking_servers import server

LENIENT = GateOptions(margin=0.9)


def promote_version(place: Place, name: str, version: int, **options: Any) -> Promotion:
    to = options.pop("to", "production")
    gates = options.pop("gates", GateOptions())
    return promote.promote(place.client, ModelRef(name, version=version), to, gates, reason="test", **options)


def roll_back(place: Place, name: str, **options: Any) -> Promotion:
    return rollback.rollback(place.client, name, "production", reason="worse", **options)


def inconsistencies(place: Place, name: str) -> list[str]:
    held = registered_models.stages_of(registered_models.get_registered_model(place.client, name))
    return history.inconsistencies(place.client, name, held)


def refused_by(error: pytest.ExceptionInfo[GateRefused]) -> list[str]:
    return [gate.gate for gate in error.value.promotion.verdict.refusals]


def outcomes(place: Place, name: str) -> list[tuple[str, str, int]]:
    """Return the events of a model, oldest first."""
    entries = history.list_events(place.client, name)
    return [(event.action, event.outcome, event.version) for event in reversed(entries)]


def test_the_first_promotion_passes_and_records_every_field(place: Place) -> None:
    name = place.model()
    result = promote_version(place, name, GOOD, actor="ada")
    assert place.holder(name) == GOOD
    assert {g.gate: g.message for g in result.verdict.gates}["champion"] == "no champion"
    (event,) = history.list_events(place.client, name)
    assert event == result.event
    shown = event.as_dict()
    assert {
        key: shown[key]
        for key in sorted(shown)
        if key not in {"at", "gates", "run_id", "previous_event", "digest"}
    } == {
        "action": "promote",
        "actor": "ada",
        "external": False,
        "failure": None,
        "is_running": False,
        "forced": False,
        "outcome": "applied",
        "previous_version": None,
        "reason": "test",
        "rollback_target": None,
        "sequence": 1,
        "stage": "production",
        "version": GOOD,
    }
    assert [gate["gate"] for gate in shown["gates"]] == [
        "integrity", "signature", "predictions", "clean_holdout", "champion", "baseline",
    ]  # fmt: skip
    run = place.client.get_run(event.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.runName"] == "promote 1 → production"
    experiment = place.client.get_experiment(run.info.experiment_id)
    assert experiment.name == f"{name}-promotions"
    verdict = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/verdict.json")
    assert verdict["passed"]
    assert [g["message"] for g in verdict["gates"]] == [g["message"] for g in shown["gates"]]


@pytest.mark.slow
@on_server
def test_an_equal_version_is_promoted_and_its_predecessor_is_archived(place: Place) -> None:
    name = place.model()
    promote_version(place, name, GOOD)
    result = promote_version(place, name, EQUAL)
    assert result.previous_version == GOOD
    assert place.holder(name) == EQUAL
    assert place.client.get_model_version(name, str(GOOD)).current_stage == "Archived"
    figures = {g.gate: g.metrics for g in result.verdict.gates}["champion"]
    assert figures["rows"] == 30
    assert figures["difference"] == pytest.approx(1 / 30)
    run = place.client.get_run(result.event.run_id)
    assert run.data.metrics["champion.difference"] == figures["difference"]


def test_a_worse_version_is_refused_and_the_refusal_is_recorded(place: Place) -> None:
    name = place.model()
    promote_version(place, name, GOOD)
    with pytest.raises(GateRefused, match=r"worse by more than the margin of 0\.01") as caught:
        promote_version(place, name, POOR)
    assert caught.value.exit_code == 3
    assert refused_by(caught) == ["champion", "baseline"]
    assert place.holder(name) == GOOD
    newest = history.list_events(place.client, name, limit=1)[0]
    assert (newest.outcome, newest.version, newest.previous_version) == ("refused", POOR, GOOD)
    (champion,) = (gate for gate in newest.gates if gate["gate"] == "champion")
    assert not champion["passed"]
    assert champion["metrics"]["p_worse"] < 0.05
    assert outcomes(place, name) == [("promote", "applied", GOOD), ("promote", "refused", POOR)]


def test_a_dry_run_evaluates_the_gates_and_changes_nothing(place: Place) -> None:
    name = place.model()
    assert promote_version(place, name, GOOD, dry_run=True).verdict.passed
    assert place.holder(name) is None
    assert place.client.get_experiment_by_name(f"{name}-promotions") is None


def test_force_needs_a_reason_and_is_recorded_as_forced(place: Place) -> None:
    name = place.model()
    promote_version(place, name, GOOD)
    with pytest.raises(PromotionError, match="--force needs --reason"):
        promote.promote(place.client, ModelRef(name, version=POOR), "production", GateOptions(), force=True)
    result = promote_version(place, name, POOR, force=True)
    assert not result.verdict.passed
    assert place.holder(name) == POOR
    assert result.event is not None
    assert result.event.forced
    assert result.event.outcome == "applied"


@pytest.mark.slow
@on_server
def test_a_promotion_with_a_stale_expected_version_moves_nothing(place: Place) -> None:
    name = place.model()
    promote_version(place, name, GOOD)
    with pytest.raises(StageMoved, match="at version 1, not at version 2 as expected"):
        promote_version(place, name, EQUAL, expect_current=2)
    assert outcomes(place, name) == [("promote", "applied", GOOD)]
    promote_version(place, name, EQUAL, expect_current=1)
    assert place.holder(name) == EQUAL


def test_a_stage_moved_during_the_evaluation_is_not_overwritten(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = place.model()
    promote_version(place, name, GOOD)

    def move_and_evaluate(client: Any, *arguments: Any) -> Any:
        stages.move_alias(client, name, "production", POOR)  # by somebody else
        return evaluate(client, *arguments)

    monkeypatch.setattr(promote, evaluate.__name__, move_and_evaluate)
    with pytest.raises(StageMoved, match="moved from version 1 to version 3 in the meantime"):
        promote_version(place, name, EQUAL)
    assert stages.stage_holder(place.client, name, "production") == POOR
    assert outcomes(place, name)[-1] == ("promote", "superseded", EQUAL)


def test_a_version_in_the_stage_already_is_not_promoted_again(place: Place) -> None:
    name = place.model()
    promote_version(place, name, GOOD)
    with pytest.raises(PromotionError, match="stage production already holds"):
        promote_version(place, name, GOOD)


@LONG
@pytest.mark.slow
@on_server
def test_rollbacks_go_further_back_and_never_to_and_fro(place: Place) -> None:
    name = place.model()
    promote_version(place, name, GOOD)
    promote_version(place, name, EQUAL)
    promote_version(place, name, POOR, force=True)
    assert roll_back(place, name).version == EQUAL
    assert roll_back(place, name).version == GOOD
    with pytest.raises(PromotionError, match="version 2, which held it before, was rolled back already"):
        roll_back(place, name)
    assert place.holder(name) == GOOD
    promote_version(place, name, EQUAL)
    assert roll_back(place, name).version == GOOD
    assert outcomes(place, name)[3:] == [
        ("rollback", "applied", EQUAL),
        ("rollback", "applied", GOOD),
        ("promote", "applied", EQUAL),
        ("rollback", "applied", GOOD),
    ]


@pytest.mark.slow
@on_server
def test_a_rollback_may_name_the_version(place: Place) -> None:
    name = place.model()
    promote_version(place, name, GOOD)
    promote_version(place, name, EQUAL)
    promote_version(place, name, POOR, force=True)
    with pytest.raises(PromotionError, match="version 9 did not hold it before"):
        roll_back(place, name, to=9)
    assert roll_back(place, name, to=GOOD).previous_version == POOR
    assert place.holder(name) == GOOD
    with pytest.raises(PromotionError, match="version 3, which held it before, was rolled back already"):
        roll_back(place, name)


@pytest.mark.slow
def test_a_second_rollback_names_the_command_that_returns_to_the_version_that_the_first_one_left(
    local: Place,
) -> None:
    name = local.model(GOOD, EQUAL)
    promote_version(local, name, GOOD)
    promote_version(local, name, EQUAL)
    assert roll_back(local, name).version == GOOD
    command = f"registry-tools rollback {name} --stage production --to 2 --reason TEXT"
    with pytest.raises(PromotionError, match=f"was rolled back already; to return to it, run {command}"):
        roll_back(local, name)
    assert roll_back(local, name, to=EQUAL).version == EQUAL


def test_a_rollback_reports_an_earlier_version_that_only_another_tool_set(local: Place) -> None:
    name = local.model(GOOD, EQUAL)
    local.client.set_registered_model_alias(name, "production", str(GOOD))
    promote_version(local, name, EQUAL)
    with pytest.raises(PromotionError, match="version 1, which held it before, was set by another tool"):
        roll_back(local, name)
    local.client.delete_model_version(name, str(GOOD))
    with pytest.raises(PromotionError, match="it held no other version before"):
        roll_back(local, name)


@pytest.mark.slow
@on_server
def test_a_rollback_skips_a_version_that_was_deleted_externally(place: Place) -> None:
    name = place.model()
    promote_version(place, name, GOOD)
    promote_version(place, name, EQUAL)
    promote_version(place, name, POOR, force=True)
    place.client.delete_model_version(name, str(EQUAL))
    result = roll_back(place, name)
    assert result.version == GOOD
    assert result.notes == ("skipped version 2: it was deleted",)
    assert place.holder(name) == GOOD


@pytest.mark.slow
@on_server
def test_a_stage_whose_version_was_deleted_is_reported_and_comes_back(place: Place) -> None:
    name = place.model()
    promote_version(place, name, GOOD)
    promote_version(place, name, EQUAL)
    place.client.delete_model_version(name, str(EQUAL))  # MLflow takes the alias with it
    (reported,) = inconsistencies(place, name)
    assert reported.startswith("production is at no version, but its last event set version 2")
    assert roll_back(place, name).version == GOOD
    assert inconsistencies(place, name) == []


@pytest.mark.slow
@on_server
def test_external_changes_are_shown_and_repaired(place: Place) -> None:
    name = place.model()
    promote_version(place, name, GOOD)
    place.client.set_registered_model_alias(name, "production", str(POOR))
    (reported,) = inconsistencies(place, name)
    assert reported.startswith("production is at version 3, but its last event set version 1")
    verdict = recovery.verify(place.client, ModelRef(name, stage="production"), TrustPolicy())
    assert [gate.gate for gate in verdict.refusals] == ["history"]
    assert recovery.repair(place.client, name) == [
        "production was moved from version 1 to version 3 externally; recorded"
    ]
    assert inconsistencies(place, name) == []
    assert place.holder(name) == POOR  # its legacy mirror as well
    event = history.list_events(place.client, name, limit=1)[0]
    assert (event.action, event.outcome, event.version, event.previous_version) == (
        "external",
        "applied",
        3,
        1,
    )
    assert recovery.repair(place.client, name) == []
    assert roll_back(place, name).version == GOOD


@pytest.mark.slow
@on_server
def test_a_promotion_records_the_external_change_that_it_follows(place: Place) -> None:
    name = place.model()
    promote_version(place, name, GOOD)
    place.client.set_registered_model_alias(name, "production", str(POOR))
    promote_version(place, name, EQUAL)
    assert outcomes(place, name) == [
        ("promote", "applied", GOOD),
        ("external", "applied", POOR),
        ("promote", "applied", EQUAL),
    ]
    assert inconsistencies(place, name) == []
    assert roll_back(place, name).version == GOOD


def test_a_version_in_use_is_not_deleted(place: Place) -> None:
    name = place.model()
    promote_version(place, name, GOOD)
    promote_version(place, name, EQUAL)
    with pytest.raises(PromotionError, match="version 2 is in production"):
        deletion.delete(place.client, ModelRef(name, version=EQUAL))
    with pytest.raises(PromotionError, match="that a rollback of production would go back to"):
        deletion.delete(place.client, ModelRef(name, version=GOOD))
    deletion.delete(place.client, ModelRef(name, version=POOR))
    with pytest.raises(NotFound):
        place.version(name, POOR)


@pytest.mark.slow
@on_server
def test_a_version_without_a_holdout_needs_evaluation_data(place: Place, tmp_path: Path) -> None:
    mlflow.set_tracking_uri(place.uri)
    table = load_iris(as_frame=True)
    name = place.model(GOOD)
    every_other = slice(0, None, 2)
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            LogisticRegression(max_iter=500).fit(
                table.data.iloc[every_other], table.target.iloc[every_other]
            ),
            name="model",
            signature=mlflow.models.infer_signature(table.data),
            pip_requirements=[],
            registered_model_name=name,
        )
    promote_version(place, name, GOOD)
    with pytest.raises(GateRefused, match="without held-out rows: give --eval-data") as caught:
        promote_version(place, name, 2)
    assert refused_by(caught) == ["holdout"]
    # It answers with codes, the champion with names: one word that both know is needed.
    rows = table.data.assign(species=pd.Series(table.target_names)[table.target].to_numpy())
    rows.to_csv(tmp_path / "names.csv", index=False)
    with pytest.raises(GateRefused, match="candidate, version 2, predicts 0, 1, 2; the labels are setosa"):
        promote_version(
            place, name, 2, gates=GateOptions(eval_data=read_eval_data(Path("names.csv"), "species"))
        )
    rows.assign(species=table.target).to_csv(tmp_path / "codes.csv", index=False)
    codes = read_eval_data(tmp_path / "codes.csv", "species")
    gates = GateOptions(eval_data=codes, margin=0.05)
    verdict = promote_version(place, name, 2, gates=gates).verdict
    figures = {gate.gate: gate.metrics for gate in verdict.gates}["champion"]
    assert (figures["rows"], figures["excluded_rows"]) == (30, 120)
    assert min(figures["candidate_accuracy"], figures["champion_accuracy"]) > 0.8
    assert place.holder(name) == 2


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        (GateOptions(minimum={"accuracy": 0.99}), "accuracy 0.9667, at least 0.99 required"),
        (GateOptions(minimum={"recall": 0.95}), "recall 0.9000, at least 0.95 required"),
        (GateOptions(minimum={"f1_macro": 0.99}, maximum={"f1_macro": 1}), "at least 0.99 required"),
        (GateOptions(maximum={"log_loss": 0.1}), "log_loss 0.1589, at most 0.1 required"),
        (GateOptions(minimum={"acuracy": 0.9}), "no metric 'acuracy'; the metrics are: accuracy,"),
        (GateOptions(max_latency_ms=0.000001), "ms for one row"),
    ],
)
def test_additional_thresholds_are_gates_as_well(local: Place, gates: GateOptions, message: str) -> None:
    name = local.model(GOOD)
    result = promote_version(local, name, GOOD, gates=gates, dry_run=True)
    (refusal,) = result.verdict.refusals
    assert message in refusal.message


def test_thresholds_that_pass_are_shown(local: Place) -> None:
    name = local.model(GOOD)
    gates = GateOptions(minimum={"accuracy": 0.9}, maximum={"log_loss": 0.5}, max_latency_ms=1e4)
    verdict = promote_version(local, name, GOOD, gates=gates, dry_run=True).verdict
    assert verdict.passed
    figures = {gate.gate: dict(gate.metrics) for gate in verdict.gates}
    assert figures["thresholds"] == pytest.approx({"accuracy": 0.9667, "log_loss": 0.1589}, 1e-3)


@LONG
@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("non-inferior", "too few rows to show it: 2061 are enough"),
        ("better", "p(better) 0.5; not significantly better"),
    ],
)
def test_the_stricter_rules_refuse_an_equal_version(local: Place, rule: str, message: str) -> None:
    name = local.model()
    promote_version(local, name, GOOD)
    with pytest.raises(GateRefused) as caught:
        promote_version(local, name, EQUAL, gates=GateOptions(rule=rule))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"margin": float("nan")}, {"margin": 1}, {"minimum": {"accuracy": float("nan")}},
     {"rule": "best"}, {"max_latency_ms": 0}],
)  # fmt: skip
def test_invalid_gate_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        GateOptions(**options)


@pytest.mark.slow
def test_training_rows_of_the_champion_are_excluded_and_too_few_rows_are_refused(local: Place) -> None:
    name = local.model(GOOD)
    promote_version(local, name, GOOD)
    train(TrainParams(plots=False, name=name, random_state=7))
    with pytest.raises(GateRefused, match=r"20 are needed \(left out: 26 training rows\)") as caught:
        promote_version(local, name, 2)
    for way_out in ("champion's split", "split=hash", "--eval-data"):
        assert way_out in str(caught.value)


@pytest.mark.slow
def test_a_champion_with_a_column_that_the_candidate_dropped_needs_evaluation_data(
    local: Place, table_csv: Path
) -> None:
    params = TrainParams(data=str(table_csv), target="kind", name="animals", plots=False)
    train(params)
    promote_version(local, "animals", 1)
    train(params.replace(drop=("legs",)))
    with pytest.raises(GateRefused, match=r"signature: 'legs' no longer accepted") as caught:
        promote_version(local, "animals", 2)
    messages = {gate.gate: gate.message for gate in caught.value.promotion.verdict.refusals}
    assert "it was trained with 'legs', which the rows lack; give --eval-data" in messages["champion"]


def test_two_versions_are_compared_on_rows_that_neither_knows(local: Place) -> None:
    name = local.model()
    good, poor = (local.version(name, number) for number in (GOOD, POOR))
    compared = comparison.predict_pair(local.client, good, poor, TrustPolicy()).paired
    assert compared.rows == 30
    assert compared.difference == pytest.approx(0.9667 - 0.3333, abs=1e-3)
    assert compared.p_better < 0.001


@pytest.fixture
def tampered(local: Place) -> tuple[Place, str, Path]:
    """A model of one version and the folder of its files, which a test may spoil."""
    name = local.model(GOOD)
    promote_version(local, name, GOOD)
    train(TrainParams(plots=False, name=name))
    return local, name, Path(local.client.get_model_version_download_uri(name, "2"))


def test_files_that_differ_are_named_and_never_loaded(tampered: tuple[Place, str, Path]) -> None:
    place, name, folder = tampered
    model = folder / "model.skops"
    whole = model.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    extra = folder / "more.py"

    def spoil(path: Path, content: bytes | None) -> None:
        path.unlink() if content is None else path.write_bytes(content)

    for path, content, message in (
        (model, whole[:-100], "model.skops was changed"),
        (model, bytes(flipped), "model.skops was changed"),
        (extra, b"import os", "more.py was added"),
        (folder / "conda.yaml", None, "conda.yaml is missing"),
    ):
        before = path.read_bytes() if path.exists() else None
        spoil(path, content)
        with pytest.raises(GateRefused) as caught:
            promote_version(place, name, 2)
        assert message in str(caught.value)
        assert [gate.gate for gate in caught.value.promotion.verdict.gates] == ["integrity"]
        with pytest.raises(RegistryToolsError, match=message):
            load_model(f"{name}/2", tracking_uri=place.uri)
        spoil(path, before)
    assert place.holder(name) == GOOD
    promote_version(place, name, 2)
    assert place.holder(name) == 2


@LONG
@pytest.mark.slow
def test_a_rollback_skips_a_version_whose_files_differ(tampered: tuple[Place, str, Path]) -> None:
    place, name, folder = tampered
    promote_version(place, name, 2)
    place.add(name, EQUAL)
    promote_version(place, name, 3)
    (folder / "model.skops").write_bytes(b"gone")
    result = roll_back(place, name)
    assert result.version == GOOD
    assert "version 2: model.skops was changed" in result.notes[0]


def test_the_trusted_types_that_a_model_lists_itself_are_ignored(local: Place) -> None:
    from sklearn.preprocessing import FunctionTransformer

    name = local.model(GOOD)
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            FunctionTransformer(eval),
            name="model",
            pip_requirements=[],
            skops_trusted_types=["builtins.eval"],
            registered_model_name=name,
        )
    with pytest.raises(GateRefused, match="no signature"):
        promote_version(local, name, 2)
    with pytest.raises(RegistryToolsError, match=r"untrusted types: builtins\.eval"):
        load_model(f"{name}/2", tracking_uri=local.uri)


@LONG
@pytest.mark.slow
def test_a_user_with_read_permission_gets_one_line_and_changes_nothing(
    guarded_place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded_place.uri)
    for key, value in guarded_place.environment.items():
        monkeypatch.setenv(key, value)
    name = guarded_place.model()

    def as_reader(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / "registry-tools", *argv],
            env={**os.environ, **guarded_place.reader},
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )

    def refused(*argv: str) -> None:
        done = as_reader(*argv)
        assert done.returncode == 1, done.stderr
        assert done.stderr.count("\n") == 1
        assert "refused this" in done.stderr

    assert as_reader("show", f"{name}/1").returncode == 0
    refused("promote", f"{name}/1", "--to", "production")
    assert guarded_place.client.get_experiment_by_name(f"{name}-promotions") is None
    promote_version(guarded_place, name, GOOD)
    promote_version(guarded_place, name, EQUAL)
    before = history.list_events(guarded_place.client, name)
    refused("promote", f"{name}/3", "--to", "production", "--force", "--reason", "mine")
    refused("rollback", name, "--reason", "mine")
    refused("delete", f"{name}/3")
    assert guarded_place.holder(name) == EQUAL
    assert history.list_events(guarded_place.client, name) == before
    assert json.loads(as_reader("history", name, "--json").stdout)[0]["version"] == EQUAL


@LONG
@pytest.mark.slow
def test_a_registry_failure_during_a_promotion_is_repaired_afterwards(
    empty_database: Path, local: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    monkeypatch.chdir(tmp_path)

    @contextmanager
    def running() -> Iterator[Place]:
        with server(empty_database, tmp_path) as uri:
            yield Place(uri, tmp_path / "artifacts")

    with running() as place:
        mlflow.set_tracking_uri(place.uri)
        train(TrainParams(plots=False, stage="first"))
        train(TrainParams(plots=False, model="knn", stage="second"))
        promote_version(place, "iris", 1)
        ended = pytest.MonkeyPatch()

        def evaluate_and_stop(client: Any, *arguments: Any) -> Any:
            verdict = evaluate(client, *arguments)
            stop.close()
            return verdict

        with ExitStack() as stop:
            second = stop.enter_context(running())
            ended.setattr(promote, evaluate.__name__, evaluate_and_stop)
            with pytest.raises(RegistryUnavailable, match="is unavailable"):
                promote_version(second, "iris", 2)
            ended.undo()
        assert place.holder("iris") == 1
        assert recovery.repair(place.client, "iris") == []
        promote_version(place, "iris", 2)
        assert place.holder("iris") == 2


def legacy(place: Place, name: str) -> dict[str, int]:
    """Return the version in each legacy stage."""
    return {
        v.current_stage: int(v.version)
        for v in place.client.search_model_versions(f"name = '{name}'")
        if v.current_stage not in {"None", "Archived"}
    }


@pytest.mark.slow
def test_what_is_in_production_and_in_staging_is_in_legacy_production(local: Place) -> None:
    name = local.model(GOOD, EQUAL)
    promote_version(local, name, 1, to="staging")
    promote_version(local, name, 1)
    assert legacy(local, name) == {"Production": 1}
    recovery.repair(local.client, name)
    assert legacy(local, name) == {"Production": 1}
    promote_version(local, name, 2, to="staging")
    assert legacy(local, name) == {"Production": 1, "Staging": 2}
    promote_version(local, name, 2)
    promote_version(local, name, 1, to="staging", gates=LENIENT)
    assert legacy(local, name) == {"Production": 2, "Staging": 1}


@pytest.mark.slow
def test_an_event_that_is_interrupted_after_the_move_is_completed(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, step in ((stages, stages.mirror_legacy_stages), (EventLog, EventLog.close)):
        name = local.model(GOOD, EQUAL)
        promote_version(local, name, 1)
        with monkeypatch.context() as patch:
            patch.setattr(place, step.__name__, interrupted_once(step))
            with pytest.raises(KeyboardInterrupt):
                promote_version(local, name, 2)
        recovery.repair(local.client, name)
        assert local.holder(name) == 2
        assert outcomes(local, name)[-1] == ("promote", "applied", 2)
        assert inconsistencies(local, name) == []


def interrupted_once(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step that somebody interrupts the first time."""
    calls = []

    def first_interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return step(*arguments, **options)

    return first_interrupted


@LONG
@pytest.mark.slow
def test_a_stage_emptied_externally_is_recorded_and_compared_with_its_last_version(local: Place) -> None:
    name = local.model()
    promote_version(local, name, GOOD, to="canary", new_stage=True)
    local.client.delete_registered_model_alias(name, "canary")
    with pytest.raises(GateRefused, match="more than the margin"):
        promote_version(local, name, POOR, to="canary")
    assert recovery.repair(local.client, name) == []
    assert inconsistencies(local, name) == []
    recorded = [event for event in history.list_events(local.client, name) if event.action == "external"]
    assert [event.version for event in recorded] == [None]
    promote_version(local, name, EQUAL, to="canary")
    back = rollback.rollback(local.client, name, "canary", reason="back")
    assert back.version == GOOD


@LONG
@pytest.mark.slow
def test_the_target_of_a_rollback_is_not_deleted_after_external_deletions(local: Place) -> None:
    name = local.model(GOOD, EQUAL, GOOD)
    for version in (1, 2, 3):
        promote_version(local, name, version, gates=LENIENT)
    local.client.delete_model_version(name, "2")
    with pytest.raises(PromotionError, match="that a rollback of production would go back to"):
        deletion.delete(local.client, ModelRef(name, version=1))
    local.client.delete_model_version(name, "3")
    with pytest.raises(PromotionError, match="that a rollback of production would go back to"):
        deletion.delete(local.client, ModelRef(name, version=1))
    assert roll_back(local, name).version == 1


@pytest.mark.slow
def test_a_version_trained_on_its_holdout_is_refused(local: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    split_rows = split.split_rows

    def leaking(dataset: Dataset, params: TrainParams) -> Any:
        _, holdout = split_rows(dataset, params)
        return np.arange(len(dataset.labels)), holdout

    monkeypatch.setattr(split, split_rows.__name__, leaking)
    name = local.model(GOOD)
    train(TrainParams(plots=False, name=name))
    with pytest.raises(GateRefused, match="30 of 30 rows are training rows") as caught:
        promote_version(local, name, 2)
    assert refused_by(caught) == ["clean_holdout", "baseline"]  # there are no rows to evaluate on


@pytest.mark.slow
def test_rows_that_the_table_repeats_count_for_nobody(local: Place, tmp_path: Path) -> None:
    table = load_iris(as_frame=True).frame.rename(columns={"target": "kind"})
    pd.concat([table] * 3).to_csv(tmp_path / "thrice.csv", index=False)
    name = local.model(GOOD)
    promote_version(local, name, GOOD)
    train(TrainParams(plots=False, data=str(tmp_path / "thrice.csv"), target="kind", name=name, model="knn"))
    with pytest.raises(GateRefused, match="20 are needed"):
        promote_version(local, name, 2)


@pytest.mark.slow
def test_classes_that_only_overlap_are_not_compared(local: Place, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 2))
    name = f"{local.model(GOOD)}-words"
    for number, words in enumerate((["no", "yes"], ["nope", "yes"]), start=1):
        path = tmp_path / f"{number}.csv"
        kind = np.asarray(words)[(x[:, 0] > 0).astype(int)]
        pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "kind": kind}).to_csv(path, index=False)
        train(TrainParams(plots=False, data=str(path), target="kind", name=name))
    promote_version(local, name, 1)
    with pytest.raises(GateRefused, match="champion, version 1, predicts no, yes; the labels are nope, yes"):
        promote_version(local, name, 2)


@pytest.mark.slow
def test_runs_that_others_log_into_the_history_do_no_harm(local: Place) -> None:
    name = local.model(GOOD, EQUAL)
    promote_version(local, name, 1)
    experiment = local.client.get_experiment_by_name(f"{name}-promotions")
    assert experiment is not None
    for tags in ({"version": "1"}, {"outcome": "applied", "stage": "production"}, {"action": "promote"}):
        local.client.create_run(experiment.experiment_id, tags=tags)
    promote_version(local, name, 2)
    assert roll_back(local, name).version == 1
    assert inconsistencies(local, name) == []
    assert recovery.repair(local.client, name) == []


@pytest.mark.slow
def test_a_history_that_was_deleted_is_reported(local: Place) -> None:
    name = local.model(GOOD, EQUAL)
    promote_version(local, name, 1)
    experiment = local.client.get_experiment_by_name(f"{name}-promotions")
    assert experiment is not None
    local.client.delete_experiment(experiment.experiment_id)
    for command in (
        lambda: promote_version(local, name, 2),
        lambda: roll_back(local, name),
        lambda: recovery.repair(local.client, name),
        lambda: inconsistencies(local, name),
    ):
        with pytest.raises(RegistryToolsError, match="was deleted in MLflow: restore"):
            command()
    local.client.restore_experiment(experiment.experiment_id)
    promote_version(local, name, 2)


@pytest.mark.slow
def test_a_deleted_event_is_named_with_the_way_to_restore_it(local: Place) -> None:
    name = local.model(GOOD, EQUAL)
    promote_version(local, name, 1)
    run_id = promote_version(local, name, 2).event.run_id  # type: ignore[union-attr]
    local.client.delete_run(run_id)
    with pytest.raises(RegistryToolsError, match=f"mlflow runs restore --run-id {run_id}"):
        rollback.rollback(local.client, name, "production", reason="back")
    local.client.restore_run(run_id)
    assert roll_back(local, name).version == 1
