"""Many trials, and a training of the best."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

from pipeline.data.dataset import Dataset
from pipeline.data.load import load_dataset
from pipeline.data.split import split_rows
from pipeline.errors import PipelineError
from pipeline.params.definitions import SweepParams, TrainParams
from pipeline.params.fields import as_text
from pipeline.sweep.executor import WorkerTerminated, check_spark, run_trials
from pipeline.sweep.identity import study_key
from pipeline.sweep.sweep_runs import EarlierTrials, SweepRuns
from pipeline.sweep.trials import Trial, TrialResult, best_trial, draw_trials, evaluate_trial, rank_key
from pipeline.tracking import runs, store
from pipeline.training.model_card import run_name
from pipeline.training.train import TrainResult, train
from registry_tools.errors import RegistryToolsError

_BEST = 5  # that the note lists
Show = Callable[[int, int, "float | None"], None]  # trials that ended, of how many, the best so far


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep."""

    run_id: str
    finished: int
    failed: int
    reason: str  # of the first that failed
    is_exhausted: bool  # fewer were tried than were asked for, since there are no more
    resumed: int  # of the finished, by an interrupted sweep
    best: TrainParams
    best_metrics: Mapping[str, float]
    winner: TrainResult


@dataclass
class _RunningSweep:
    """A sweep while its trials run."""

    params: SweepParams
    dataset: Dataset
    trials: list[Trial]
    runs: SweepRuns
    earlier: EarlierTrials
    show: Show
    metrics: dict[int, Mapping[str, float]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    so_far: list[float] = field(default_factory=list)  # the best accuracy after each trial
    open_runs: dict[int, str] = field(default_factory=dict)  # runs of the trials under way
    dispatch_error: BaseException | None = None  # met where joblib asked for the next trial

    def run(self, training: Dataset) -> None:
        """Run the trials that are not done, and log each as it ends."""
        for place in sorted(self.earlier.finished):
            self._add_metrics(place, self.earlier.finished[place])
        work = functools.partial(_evaluate, self.params, self.dataset.features, training)
        try:
            while len(self.metrics) + len(self.failures) < len(self.trials):
                self._run_remaining(work)
        except BaseException:
            with contextlib.suppress(RegistryToolsError):  # unavailable: the first error counts
                self.runs.kill_open()
            raise

    def _run_remaining(self, work: Callable[[tuple[int, Trial]], TrialResult]) -> None:
        params = self.params
        results = run_trials(work, self._dispatch(), params.n_jobs, params.engine)
        try:
            # Closed before anything else: no trial is begun any more.
            with contextlib.closing(results):
                for (place, trial), result in results:
                    self._log_result(place, trial, result)
        except WorkerTerminated as error:
            # It is unknown which trial caused it: none of the open ones is tried again.
            for place in list(self.open_runs):
                self._log_result(place, self.trials[place], TrialResult({}, failure=str(error)))
        if self.dispatch_error is not None:
            raise self.dispatch_error

    def _dispatch(self) -> Iterator[tuple[int, Trial]]:
        """Yield the trials to run, each with a run of its own; joblib asks in its own threads."""
        for place, trial in enumerate(self.trials):
            if place in self.metrics or place in self.failures:
                continue
            try:
                name = run_name(self.params.train_params(trial.model, trial.model_params))
                before = self.earlier.unfinished.get(place)
                self.open_runs[place] = self.runs.open_trial(place, name, before)
            except BaseException as error:  # noqa: BLE001 - raised again by _run_remaining
                self.dispatch_error = error
                return
            yield place, trial

    def _log_result(self, place: int, trial: Trial, result: TrialResult) -> None:
        run_id = self.open_runs[place]
        arguments = {key: as_text(value) for key, value in trial.model_params.items()}
        logged = {"model": trial.model, **arguments}
        if result.failure is not None:
            self.runs.fail_trial(run_id, logged, result.failure)
            self.failures[place] = result.failure
        else:
            self.runs.finish_trial(run_id, logged, result.metrics, result.warning or "")
            self._add_metrics(place, result.metrics)
        del self.open_runs[place]
        best = self.so_far[-1] if self.so_far else None
        self.show(len(self.metrics) + len(self.failures), len(self.trials), best)

    def _add_metrics(self, place: int, metrics: Mapping[str, float]) -> None:
        self.metrics[place] = metrics
        self.so_far.append(max([*self.so_far[-1:], metrics["cv_accuracy_mean"]]))


def _evaluate(
    params: SweepParams, features: pd.DataFrame, training: Dataset, task: tuple[int, Trial]
) -> TrialResult:
    return evaluate_trial(task[1], params, features, training)


def sweep(params: SweepParams, show: Show = lambda *_: None) -> SweepResult:
    """Try trials by cross-validation on the training rows, and train the best of them.

    The held-out rows are used once, by the training of the best.

    Parameters
    ----------
    params
        Of the sweep.
    show
        Called after each trial.

    Raises
    ------
    InvalidParameter, DataError
        Before any run is opened, if parameters or table are unusable.
    PipelineError, RegistryToolsError
        If every trial failed, or the store does; the run ends FAILED.
    """
    dataset = load_dataset(params)
    training = dataset.take(split_rows(dataset, params)[0])
    trials = draw_trials(params)
    if params.engine == "spark":
        check_spark()
    with runs.training_run(params.name, f"sweep {params.model}") as run_id:
        sweep_runs = SweepRuns(
            run_id, study_key(params, sorted({trial.model for trial in trials}), dataset.digest)
        )
        with sweep_runs.keep_alive():
            sweep_runs.log_start(params.as_text(), {"model": params.model, "data_digest": dataset.digest})
            earlier = sweep_runs.resume_trials()
            running = _RunningSweep(params, dataset, trials, sweep_runs, earlier, show)
            running.run(training)
            return _conclude(running)


def _conclude(done: _RunningSweep) -> SweepResult:
    """Train the best, and log the results on the parent."""
    place = best_trial(done.metrics)
    if place is None:
        reasons = sorted(set(done.failures.values()))
        raise PipelineError(f"all {len(done.failures)} trials failed: {reasons[0]}")
    other = done.runs.continued_by()
    if other is not None:
        raise PipelineError(f"the heartbeat of this sweep expired and another sweep resumed it, run {other}")
    best, metrics = _trial_params(done, place), done.metrics[place]
    winner = _find_trained(done, best) or train(best)
    done.runs.log_best(
        done.so_far,
        {"cv_accuracy_mean": metrics["cv_accuracy_mean"], **winner.metrics},
        _write_note(done, winner),
    )
    return SweepResult(
        done.runs.run_id,
        len(done.metrics),
        len(done.failures),
        next(iter(done.failures.values()), ""),
        len(done.trials) < done.params.n_trials,
        len(done.earlier.finished),
        best,
        metrics,
        winner,
    )


def _trial_params(done: _RunningSweep, place: int) -> TrainParams:
    trial = done.trials[place]
    return done.params.train_params(trial.model, trial.model_params)


def _find_trained(done: _RunningSweep, best: TrainParams) -> TrainResult | None:
    """Return an earlier training of the best, if only the sweep's own end was missing."""
    run_id = done.earlier.winner
    found = done.runs.registered_version(run_id) if run_id is not None else None
    if run_id is None or found is None:
        return None
    holdout = done.dataset.take(split_rows(done.dataset, best)[1])
    return TrainResult(
        run_id,
        store.address(),
        best.name,
        found[0],
        best.stage,
        len(done.dataset.labels) - len(holdout.labels),
        len(holdout.labels),
        dict(found[1]),
        tuple(holdout.features.iloc[0]),
    )


def _write_note(done: _RunningSweep, winner: TrainResult) -> str:
    """Return the card of the parent run, in Markdown."""
    metrics = done.metrics
    order = sorted(metrics, key=lambda place: rank_key(metrics[place], place))[:_BEST]
    lines = [
        f"**{winner.name} version {winner.version}** is the best of {len(metrics)} trials"
        + (f", {len(done.failures)} more failed" if done.failures else "")
        + ". Accuracy by cross-validation on the training rows:",
        "",
        "| trial | accuracy |",
        "| --- | --- |",
    ]
    for place in order:
        name = run_name(_trial_params(done, place))
        mean, std = metrics[place]["cv_accuracy_mean"], metrics[place]["cv_accuracy_std"]
        lines.append(f"| {name} | {mean:.4f} ± {std:.4f} |")
    return "\n".join(lines)
