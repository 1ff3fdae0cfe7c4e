"""Sweeps against real stores: what is logged, and what is left when one does not end well."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import sklearn
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.cli import main
from pipeline.errors import PipelineError
from pipeline.estimators import ESTIMATORS, Range, models_of
from pipeline.params.definitions import SweepParams
from pipeline.sweep import identity
from pipeline.sweep.sweep import sweep
from registry_tools.errors import UnsupportedOperation
from registry_tools.task import CLASSIFICATION, REGRESSION
from tests.support.constants import LONG, ROOT
from tests.support.servers import BIN, end_group, eventually, free_port, wait_until_up
from tests.support.spark import require_spark

Start = Callable[..., subprocess.Popen[bytes]]
SAMPLERS = get_args(SweepParams.model_fields["sampler"].annotation)
QUICK = ("--model", "knn", "--plots", "false")


def runs(client: MlflowClient, condition: str = "", name: str = "iris") -> list[Run]:
    experiment = client.get_experiment_by_name(name)
    return client.search_runs([experiment.experiment_id], condition) if experiment else []


def parents(client: MlflowClient, name: str = "iris") -> list[Run]:
    return runs(client, "tags.kind = 'sweep'", name)


def children(client: MlflowClient, parent: Run) -> list[Run]:
    condition = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    return client.search_runs([parent.info.experiment_id], condition)


def trials(client: MlflowClient, parent: Run) -> dict[int, Run]:
    found = [run for run in children(client, parent) if "trial" in run.data.tags]
    places = [int(run.data.tags["trial"]) for run in found]
    assert len(set(places)) == len(places), "a trial stands twice"
    return dict(zip(places, found, strict=True))


def test_a_sweep_logs_each_trial_and_registers_the_best(store: str) -> None:
    result = sweep(SweepParams(model="knn", n_trials=6, plots=False))
    client = MlflowClient(store)
    (parent,) = parents(client)
    found = trials(client, parent)
    assert sorted(found) == list(range(6))
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    best = max(run.data.metrics["cv/accuracy_mean"] for run in found.values())
    assert result.best.metrics["cv/accuracy_mean"] == best
    assert parent.data.metrics["best/cv/accuracy_mean"] == best
    for run in found.values():
        assert set(run.data.params) == {"estimator", "model.n_neighbors", "model.weights"}
        # What the held-out rows say is for the best alone.
        assert set(run.data.metrics) == {"cv/accuracy_mean", "cv/accuracy_std", "seconds"}
        assert client.list_artifacts(run.info.run_id) == []

    winner = client.get_run(result.winner.run_id)
    assert winner.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert winner.data.metrics["cv/accuracy_mean"] == pytest.approx(best)
    assert result.best.as_text().items() <= winner.data.params.items()
    version = client.get_model_version_by_alias("iris", "staging")
    assert version.run_id == winner.info.run_id
    assert "iris version 1** is the best of 6 trials" in parent.data.tags["mlflow.note.content"]


@pytest.mark.parametrize("model", ["all", "linear", "ridge", "svr"])
def test_a_regression_is_swept(model: str, store: str, line_csv: Path) -> None:
    tried = models_of(REGRESSION) if model == "all" else [model]
    result = sweep(
        SweepParams(
            data=str(line_csv), target="y", name="line", model=model, n_trials=len(tried), cv="2", plots=False
        )
    )
    assert (result.finished, result.failures) == (len(tried), ())
    client = MlflowClient(store)
    found = trials(client, runs(client, "tags.kind = 'sweep'", "line")[0])
    assert {run.data.params["estimator"] for run in found.values()} == set(tried)
    assert client.get_model_version_by_alias("line", "staging").run_id == result.winner.run_id


def test_failing_trials_say_why_and_the_others_count(store: str) -> None:
    # Of 30 rows a fold trains on fewer than the largest neighbourhoods.
    result = sweep(SweepParams(model="knn", n_trials=12, subset_size=30, plots=False))
    client = MlflowClient(store)
    found = trials(client, parents(client)[0])
    failed = [run for run in found.values() if run.info.status == "FAILED"]
    assert 0 < len(failed) == len(result.failures) < 12
    for run in failed:
        assert "n_neighbors" in run.data.tags["failure"]
        assert int(run.data.params["model.n_neighbors"]) > 15
    assert result.finished + len(result.failures) == 12


def test_when_all_fail_the_sweep_fails_and_nothing_is_registered(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "svc", "--model-params", '{"kernel": "none"}', "--n-trials", "3"]
    assert main(["sweep", *arguments]) == 1
    output = capsys.readouterr().err
    assert "all 3 trials failed: InvalidParameterError: The 'kernel' parameter" in output
    client = MlflowClient(store)
    assert parents(client)[0].info.status == "FAILED"
    assert client.search_registered_models() == []
    # The same command tries them again, in runs of their own.
    assert main(["sweep", *arguments]) == 1
    assert [len(trials(client, parent)) for parent in parents(client)] == [3, 3]


def test_a_bad_parameter_is_refused_before_a_run_is_opened(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "--n-trials", "0"]) == 2
    assert "n_trials=0: must be a whole number from 1 to 100000" in capsys.readouterr().err
    assert runs(MlflowClient(store)) == []


@pytest.mark.parametrize("time", [(), ("--time", "when")])
def test_a_table_without_folds_is_refused_before_a_run_is_opened(
    time: tuple[str, ...],
    store: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    rare = [0, 1] if not time else [*range(16, 20), *range(30, 40)]
    table = pd.DataFrame(
        {"x": range(40), "when": range(40), "y": ["yes" if n in rare else "no" for n in range(40)]}
    )
    table.to_csv("rare.csv", index=False)
    options = ["--data", "rare.csv", "--target", "y", "--test-size", "0.5", "--cv", "2", "--n-trials", "2"]
    assert main(["sweep", "--name", "own", *options, *time]) == 2
    assert "cv=2: a sweep needs folds, and " in capsys.readouterr().err
    assert runs(MlflowClient(store)) == []


@pytest.mark.parametrize(
    ("options", "left_out"),
    [
        ({"class_weight": "balanced"}, {"knn"}),
        pytest.param({"threshold": "f1_macro", "calibrate": "none"}, {"svc"}, marks=pytest.mark.slow),
    ],
)
def test_a_sweep_of_all_models_leaves_out_those_that_cannot_be_fitted(
    options: dict[str, str], left_out: set[str], store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x = np.random.default_rng(0).normal(0, 1, 60)
    pd.DataFrame({"x": x, "y": np.where(x > 0, "yes", "no")}).to_csv(tmp_path / "two.csv", index=False)
    result = sweep(
        SweepParams(
            data=str(tmp_path / "two.csv"),
            target="y",
            name="own",
            n_trials=6,
            cv="2",
            max_iter=5,
            plots=False,
            **options,
        )
    )
    assert (result.finished, result.failures) == (6, ())
    client = MlflowClient(store)
    tried = {run.data.params["estimator"] for run in trials(client, parents(client, "own")[0]).values()}
    assert tried == set(models_of(CLASSIFICATION)) - left_out
    assert [record for record in caplog.messages if "is left out of the sweep" in record]


@LONG
@pytest.mark.slow
def test_what_is_found_does_not_depend_on_how_many_work(store: str) -> None:
    alone = sweep(SweepParams(n_trials=10, max_iter=50, plots=False, name="alone"))
    together = sweep(SweepParams(n_trials=10, max_iter=50, plots=False, name="together", n_jobs=2))
    assert alone.best.params.model_params == together.best.params.model_params
    client = MlflowClient(store)
    figures = []
    for result in (alone, together):
        parent = client.get_run(result.run_id)
        found = client.search_runs(
            [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{result.run_id}'"
        )
        figures.append(
            {
                run.data.tags["trial"]: (run.info.run_name, run.data.metrics["cv/accuracy_mean"])
                for run in found
                if "trial" in run.data.tags
            }
        )
    assert len(figures[0]) == 10
    assert figures[0] == figures[1]


def started(start: Start, *arguments: str) -> subprocess.Popen[bytes]:
    return start(
        *(sys.executable, "-m", "pipeline", "sweep", *QUICK, *arguments),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        # Whoever runs the tests in the background has SIGINT ignored, and that is handed down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def some_finished(store: str, least: int) -> Callable[[], bool]:
    return lambda: len(runs(MlflowClient(store), "attributes.status = 'FINISHED'")) >= least


def group_of(leader: int) -> dict[int, tuple[int, str]]:
    """Return the processes of a group that are still there, with their parents and command lines."""
    columns = "pid=,ppid=,pgid=,stat=,args="
    listed = subprocess.run(["ps", "-eww", "-o", columns], capture_output=True, text=True).stdout
    rows = [line.split(maxsplit=4) for line in listed.splitlines()]
    return {
        int(pid): (int(parent), args)
        for pid, parent, group, state, args in rows
        if int(group) == leader and state[0] != "Z"
    }


def trial_processes(leader: int) -> list[int]:
    """Return the processes of the trials of a sweep, which its server of forks has started."""
    group = group_of(leader)
    servers = {pid for pid, (parent, args) in group.items() if parent == leader and "forkserver" in args}
    return [pid for pid, (parent, _) in group.items() if parent in servers]


@pytest.mark.slow
def test_a_killed_sweep_is_resumed_by_the_same_command(store: str, start: Start) -> None:
    arguments = ("--n-trials", "30", "--n-jobs", "2")
    killed = started(start, *arguments)
    eventually(some_finished(store, 5))
    killed.kill()  # it alone: the processes that it started end by themselves
    killed.wait()
    eventually(lambda: not group_of(killed.pid))
    client = MlflowClient(store)
    before = {run.info.run_id for run in runs(client, "attributes.status = 'FINISHED'")}
    assert started(start, *arguments).wait(timeout=110) == 0
    later, earlier = parents(client)
    assert (earlier.info.status, later.info.status) == ("KILLED", "FINISHED")
    assert {run.info.status for run in children(client, earlier)} <= {"KILLED"}
    found = trials(client, later)
    assert sorted(found) == list(range(30))
    assert before <= {run.info.run_id for run in found.values()}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    # Each was evaluated once: a metric that was logged twice has two entries.
    for run in found.values():
        assert len(client.get_metric_history(run.info.run_id, "cv/accuracy_mean")) == 1
    assert len(client.search_model_versions("name = 'iris'")) == 1


@LONG
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_sweep_leaves_what_is_done_and_kills_the_rest(
    number: int, code: int, store: str, start: Start, tmp_path: Path
) -> None:
    forest = ("--model", "random_forest", "--model-params", '{"n_estimators": 1000}')
    process = started(start, "--n-trials", "20", "--n-jobs", "2", *forest)
    eventually(some_finished(store, 2))
    under_way = "attributes.status = 'RUNNING' and tags.kind = 'trial'"
    eventually(lambda: bool(runs(MlflowClient(store), under_way)))
    process.send_signal(number)
    assert process.wait(timeout=120) == code
    output = (tmp_path / "process-0.log").read_text()
    assert "Traceback" not in output
    if number == signal.SIGINT:
        assert output.endswith("trials are kept, and the same command goes on with the rest\n")
    client = MlflowClient(store)
    (parent,) = parents(client)
    assert parent.info.status == "KILLED"
    states = [run.info.status for run in trials(client, parent).values()]
    assert set(states) <= {"FINISHED", "KILLED"}
    assert states.count("FINISHED") >= 2
    assert states.count("KILLED") >= 1
    assert client.search_registered_models() == []


@LONG
@pytest.mark.slow
def test_a_process_that_is_killed_costs_its_trial_and_not_the_sweep(
    store: str, start: Start, tmp_path: Path
) -> None:
    forest = ("--model", "random_forest", "--model-params", '{"n_estimators": 1000}')
    process = started(start, "--n-trials", "6", "--n-jobs", "2", *forest)
    eventually(some_finished(store, 1))
    eventually(lambda: bool(trial_processes(process.pid)))
    os.kill(max(trial_processes(process.pid)), signal.SIGKILL)  # the last that was started, so it is at work
    assert process.wait(timeout=110) == 0, (tmp_path / "process-0.log").read_text()
    client = MlflowClient(store)
    (parent,) = parents(client)
    found = trials(client, parent)
    assert sorted(found) == list(range(6))
    (failed,) = [run for run in found.values() if run.info.status == "FAILED"]
    assert "ended from outside" in failed.data.tags["failure"]
    assert {run.info.status for run in found.values()} == {"FAILED", "FINISHED"}


def test_a_sweep_that_another_resumed_registers_nothing(store: str) -> None:
    client = MlflowClient(store)

    ended = itertools.count(1)

    def as_if_asleep(best: float | None) -> None:
        if next(ended) == 2:
            client.log_param(parents(client)[0].info.run_id, "continued_by", "another")

    with pytest.raises(PipelineError, match="another sweep resumed it, run another"):
        sweep(SweepParams(model="knn", n_trials=2, plots=False), as_if_asleep)
    assert parents(client)[0].info.status == "FAILED"
    assert client.search_registered_models() == []


@LONG
@pytest.mark.slow
def test_two_sweeps_of_one_name_at_once_do_not_touch_each_other(store: str, start: Start) -> None:
    both = [started(start, "--n-trials", "8") for _ in range(2)]
    assert [process.wait(timeout=110) for process in both] == [0, 0]
    client = MlflowClient(store)
    for parent in parents(client):
        assert parent.info.status == "FINISHED"
        assert sorted(trials(client, parent)) == list(range(8))
    assert len(parents(client)) == 2
    assert len(client.search_model_versions("name = 'iris'")) == 2


@pytest.mark.slow
def test_a_winner_that_was_trained_before_the_kill_is_not_trained_again(store: str) -> None:
    first = sweep(SweepParams(model="knn", n_trials=3, plots=False))
    client = MlflowClient(store)
    # As a kill leaves it between the registration and the sweep's own end.
    client.update_run(first.run_id, "KILLED")
    again = sweep(SweepParams(model="knn", n_trials=3, plots=False))
    assert again.resumed == 3
    assert again.winner == first.winner
    assert len(client.search_model_versions("name = 'iris'")) == 1
    assert len(children(client, client.get_run(again.run_id))) == 4


def changed_range(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    knn = ESTIMATORS["knn"]
    space = {**knn.space, "n_neighbors": Range(1, 25, is_integer=True)}
    monkeypatch.setitem(ESTIMATORS, "knn", dataclasses.replace(knn, space=space))


def changed_candidates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    knn = ESTIMATORS["knn"]
    space = {**knn.space, "weights": ("distance", "uniform")}
    monkeypatch.setitem(ESTIMATORS, "knn", dataclasses.replace(knn, space=space))


def changed_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "pipeline"
    shutil.copytree(ROOT / "pipeline", copy)
    with (copy / "training" / "model_pipeline.py").open("a") as code:
        code.write("MAX_CATEGORIES = 10\n")
    monkeypatch.setattr(identity, "__file__", str(copy / "sweep" / "identity.py"))


def changed_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sklearn, "__version__", "1.99.0")


CHANGES = [
    changed_range,
    *(
        pytest.param(each, marks=pytest.mark.slow)
        for each in (changed_candidates, changed_code, changed_package)
    ),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_sweep_uses_no_trial_of_another_space_code_or_package(
    change: Callable[[pytest.MonkeyPatch, Path], None],
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    params = SweepParams(model="knn", n_trials=4, plots=False)
    first = sweep(params)
    client = MlflowClient(store)
    client.update_run(first.run_id, "KILLED")  # as a kill leaves it
    change(monkeypatch, tmp_path)
    again = sweep(params)
    assert again.resumed == 0
    # The reported winner was evaluated, with the reported result.
    later = client.get_run(again.run_id)
    evaluated = [
        run.data.metrics["cv/accuracy_mean"]
        for run in trials(client, later).values()
        if run.data.params == again.best.as_text()
    ]
    assert evaluated == [again.best.metrics["cv/accuracy_mean"]]
    assert len(trials(client, client.get_run(first.run_id))) == 4


def test_a_child_counts_only_with_the_parameters_that_the_study_asks_for(store: str) -> None:
    params = SweepParams(model="knn", n_trials=5, plots=False)
    first = sweep(params)
    client = MlflowClient(store)
    client.update_run(first.run_id, "KILLED")
    found = trials(client, client.get_run(first.run_id))
    client.set_tag(found[3].info.run_id, "trial", "4")
    client.set_tag(found[4].info.run_id, "trial", "3")
    again = sweep(params)
    assert (again.finished, again.resumed) == (5, 3)
    assert again.best.params == first.best.params


@LONG
@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_finished_sweep_is_extended(sampler: str, store: str) -> None:
    params = SweepParams(model="knn", n_trials=4, plots=False, sampler=sampler)
    first = sweep(params)
    more = sweep(params.replace(n_trials=7))
    assert (more.finished, more.resumed) == (7, 4)
    client = MlflowClient(store)
    found = trials(client, client.get_run(more.run_id))
    assert sorted(found) == list(range(7))
    for run in found.values():
        assert len(client.get_metric_history(run.info.run_id, "cv/accuracy_mean")) == 1
    # The earlier parent keeps its winner. The new one trains its own, which is the best of all.
    assert [run.info.run_id for run in children(client, client.get_run(first.run_id))] == [
        first.winner.run_id
    ]
    assert more.winner.version == 2
    best = max(run.data.metrics["cv/accuracy_mean"] for run in found.values())
    assert more.best.metrics["cv/accuracy_mean"] == best
    # The same command again is a sweep of its own.
    assert sweep(params.replace(n_trials=7)).resumed == 0


@pytest.mark.slow
def test_an_interrupted_sweep_resumes_from_a_copy_of_the_table(store: str, table_csv: Path) -> None:
    params = SweepParams(data=str(table_csv), target="kind", name="own", model="knn", n_trials=3, plots=False)
    first = sweep(params)
    MlflowClient(store).update_run(first.run_id, "KILLED")
    copy = shutil.copy(table_csv, table_csv.with_name("copy.csv"))
    assert sweep(params.replace(data=str(copy), n_trials=4)).resumed == 3


@pytest.mark.slow
def test_a_sweep_over_tuples_is_resumed(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"hidden_layer_sizes": ((4,), (5,), (6,), (7,)), "alpha": Range(1e-4, 1e-1, log=True)}
    factory, trusted = "sklearn.neural_network:MLPClassifier", "sklearn.neural_network._stochastic_optimizers"
    monkeypatch.setenv("REGISTRY_TOOLS_TRUST", f"{trusted}.AdamOptimizer")
    spec = dataclasses.replace(ESTIMATORS["svc"], factory=factory, space=space)
    monkeypatch.setitem(ESTIMATORS, "svc", spec)
    params = SweepParams(model="svc", n_trials=4, plots=False, sampler="tpe")
    first = sweep(params)
    MlflowClient(store).update_run(first.run_id, "KILLED")
    assert sweep(params).resumed == first.finished


@LONG
@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_interrupted_sweep_asks_for_the_same_trials_after_its_resume(sampler: str, store: str) -> None:
    params = SweepParams(model="svc", n_trials=16, plots=False, sampler=sampler)

    ended = itertools.count(1)

    def interrupt(best: float | None) -> None:
        if next(ended) == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(params, interrupt)
    resumed = sweep(params)
    assert resumed.resumed == 13
    client = MlflowClient(store)
    client.delete_run(resumed.run_id)  # the next one begins anew
    whole = sweep(params)
    assert whole.resumed == 0
    first, second = (
        {
            number: (run.data.params, run.data.metrics["cv/accuracy_mean"])
            for number, run in trials(client, client.get_run(result.run_id)).items()
        }
        for result in (resumed, whole)
    )
    assert len(first) == 16
    assert first == second


def test_the_result_says_whether_the_best_beats_the_untuned_default(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sweep", "--model", "knn", "--n-trials", "3", "--plots", "false"]
    worse = dataclasses.replace(ESTIMATORS["knn"], space={"n_neighbors": (80, 79)})
    monkeypatch.setitem(ESTIMATORS, "knn", worse)
    assert main(arguments) == 0
    text = r"knn n_neighbors=5: cross-validated 0\.9\d+ ± 0\.0\d+; the best is NOT better"
    assert re.search(rf"^untuned   {text}$", capsys.readouterr().out, re.MULTILINE)
    better = dataclasses.replace(worse, space={"n_neighbors": (80, 12), "leaf_size": (29,)})
    monkeypatch.setitem(ESTIMATORS, "knn", better)
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["beats_untuned"] is True
    assert result["best"]["model_params"] == {"leaf_size": 29, "n_neighbors": 12}
    assert result["untuned"]["model_params"] == {"leaf_size": 30, "n_neighbors": 5}
    assert result["best"]["cv/accuracy_mean"] > result["untuned"]["cv/accuracy_mean"]
    client = MlflowClient(store)
    later, earlier = parents(client)
    assert re.search(rf"Untuned default: {text}\.", earlier.data.tags["mlflow.note.content"])
    assert "better." in later.data.tags["mlflow.note.content"]
    assert later.data.metrics["untuned/cv/accuracy_mean"] == result["untuned"]["cv/accuracy_mean"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", pytest.param("spark", marks=LONG)])
def test_a_trial_over_its_time_is_killed_and_the_others_count(
    engine: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "spark":
        require_spark()
    forest = dataclasses.replace(ESTIMATORS["random_forest"], space={"n_estimators": (1, 1_000_000)})
    monkeypatch.setitem(ESTIMATORS, "random_forest", forest)
    params = SweepParams(model="random_forest", n_trials=9, plots=False, engine=engine, trial_timeout="20s")
    result = sweep(params)
    assert (result.finished, result.is_exhausted) == (2, True)
    assert result.failures == ("TimeoutError: took longer than 20 s",)


@LONG
@pytest.mark.slow
def test_a_sweep_over_its_time_trains_the_best_so_far(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forest = dataclasses.replace(ESTIMATORS["random_forest"], space={"n_estimators": (1, 1_000_000)})
    monkeypatch.setitem(ESTIMATORS, "random_forest", forest)
    params = SweepParams(model="random_forest", n_trials=3, n_jobs=3, plots=False, timeout="30s")
    result = sweep(params)
    assert (result.finished, result.failures, result.is_timed_out) == (2, (), True)
    client = MlflowClient(store)
    found = trials(client, client.get_run(result.run_id))
    assert sorted(run.info.status for run in found.values()) == ["FINISHED", "FINISHED", "KILLED"]


@pytest.mark.slow
def test_a_sweep_without_a_finished_trial_in_its_time_fails(store: str) -> None:
    forest = {"n_estimators": 1_000_000}
    params = SweepParams(model="random_forest", model_params=forest, n_trials=2, timeout="1s")
    with pytest.raises(PipelineError, match="no trial finished within timeout=1s: raise it"):
        sweep(params)
    assert MlflowClient(store).search_registered_models() == []


@LONG
@pytest.mark.slow
def test_a_sweep_outlives_a_restart_of_the_tracking_server(
    start: Start, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    port = free_port()
    command = (
        *(BIN / "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"),
        *("--artifacts-destination", tmp_path / "artifacts"),
    )
    address = f"http://127.0.0.1:{port}"
    server = start(*command)
    wait_until_up(f"{address}/health", server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    at_work = started(start, "--n-trials", "20", "--n-jobs", "2")
    eventually(some_finished(address, 5))
    end_group(server)
    time.sleep(3)  # trials end meanwhile, and cannot be logged
    wait_until_up(f"{address}/health", start(*command))
    assert at_work.wait(timeout=110) == 0, (tmp_path / "process-1.log").read_text()
    client = MlflowClient(address)
    (parent,) = parents(client)
    found = trials(client, parent)
    assert sorted(found) == list(range(20))
    assert {run.info.status for run in found.values()} == {"FINISHED"}


@LONG
@pytest.mark.slow
def test_mlflow_run_starts_a_sweep_and_takes_up_a_killed_one(
    store: str, start: Start, tmp_path: Path
) -> None:
    command = (
        *(BIN / "mlflow", "run", ROOT, "-e", "sweep", "--env-manager", "local"),
        *("--experiment-name", "iris", "-P", "model=knn", "-P", "n_trials=20"),
        *("-P", "n_jobs=2", "-P", "plots=false"),
    )
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    killed = start(*command, env=environment)
    eventually(some_finished(store, 3))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    again = start(*command, env=environment)
    assert again.wait(timeout=110) == 0, (tmp_path / "process-1.log").read_text()
    client = MlflowClient(store)
    later, earlier = parents(client)
    assert earlier.info.status == "KILLED"
    assert later.info.status == "FINISHED"
    assert sorted(trials(client, later)) == list(range(20))
    assert "of them before" in (tmp_path / "process-1.log").read_text()


@LONG
@pytest.mark.slow
def test_spark_finds_what_processes_find(store: str) -> None:
    require_spark()
    params = {"n_trials": 4, "model": "logistic_regression", "plots": False}
    local = sweep(SweepParams(**params, name="local"))
    there = sweep(SweepParams(**params, name="there", engine="spark", n_jobs=2))
    assert there.best.params.model_params == local.best.params.model_params
    for key, value in local.best.metrics.items():
        assert key == "seconds" or there.best.metrics[key] == value


def test_missing_spark_or_java_is_reported_before_a_run_is_opened(
    store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UnsupportedOperation, match=r"Spark is not installed|Spark needs Java 17"):
        sweep(SweepParams(engine="spark"))
    assert runs(MlflowClient(store)) == []
