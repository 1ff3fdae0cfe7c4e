"""Many trials, and a training of the best."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mlflow.entities import Run

from pipeline.data.load import load_dataset
from pipeline.data.split import split_rows
from pipeline.errors import PipelineError
from pipeline.params.definitions import SweepParams, TrainParams
from pipeline.params.fields import as_text
from pipeline.sweep.executor import Work, run_trials
from pipeline.sweep.identity import study_key
from pipeline.sweep.study import SweepStudy
from pipeline.sweep.trials import METRIC, SPREAD, Trial, TrialResult, evaluate_trial, rank
from pipeline.tracking.runs import training_run
from pipeline.tracking.sweep_runs import SweepRuns
from pipeline.training.model_card import run_name
from pipeline.training.train import TrainResult, find_result, train
from registry_tools.batch.engines.spark import check_installed

_BEST = 5  # trials that the note lists
_ARGUMENTS = (
    "model_params"  # a tag of a trial: its arguments as JSON, as the parameter of a training takes them
)
Show = Callable[[int, int, "float | None"], None]  # trials that ended, of how many, the best so far


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep."""

    run_id: str
    finished: int
    failed: int
    reason: str  # of the first that failed
    is_exhausted: bool  # there were fewer different trials than were asked for
    is_timed_out: bool  # `timeout` was over before all trials had ended
    resumed: int  # of the finished, by earlier sweeps
    best: TrainParams
    best_metrics: Mapping[str, float]
    untuned: TrainParams | None  # the best of the defaults; None if all of them failed
    untuned_metrics: Mapping[str, float]
    winner: TrainResult

    @property
    def beats_untuned(self) -> bool | None:
        """Whether the best is more accurate than the untuned defaults; None if they all failed."""
        return self.best_metrics[METRIC] > self.untuned_metrics[METRIC] if self.untuned else None

    def compare_untuned(self) -> str:
        """Return the best untuned default, and what the search gained over it."""
        if self.untuned is None:
            return "failed"
        gain = self.best_metrics[METRIC] - self.untuned_metrics[METRIC]
        gained = f"the best is {gain:.4f} better" if self.beats_untuned else "the best is NOT better"
        return f"{run_name(self.untuned)}: cross-validated {format_accuracy(self.untuned_metrics)}; {gained}"


def format_accuracy(metrics: Mapping[str, float]) -> str:
    """Return mean and standard deviation over the folds."""
    return f"{metrics[METRIC]:.4f} ± {metrics[SPREAD]:.4f}"


class _RunningSweep:
    """A sweep while its trials run."""

    def __init__(self, params: SweepParams, study: SweepStudy, runs: SweepRuns, show: Show) -> None:
        self.params, self.study, self.runs, self.show = params, study, runs, show
        self.trials: dict[int, TrainParams] = {}
        self.metrics: dict[int, Mapping[str, float]] = {}
        self.failures: dict[int, str] = {}
        self.best: dict[int, float] = {}  # the improvements of the best accuracy, by trials that finished
        self.resumed = 0
        self.is_exhausted = False

    def run(self, work: Work, earlier: Mapping[int, Run]) -> None:
        """Run the trials that are not done, and log each as it ends."""
        if self.study.learns:  # the others are asked for again, and compared
            for number, run in sorted(earlier.items()):
                values = json.loads(run.data.tags[_ARGUMENTS])
                trial = self.study.accept(number, run.data.params["model"], values)
                if trial is not None and number < self.params.n_trials:
                    self._add(trial, TrialResult(run.data.metrics), resumed=1)
        # Closed before anything else: no trial is begun any more.
        with contextlib.closing(run_trials(work, self._dispatch(earlier), self.params)) as results:
            for trial, result in results:
                if result is not None:
                    tags = {_ARGUMENTS: as_text(trial.model_params), "warning": result.warning or ""}
                    self.runs.end_trial(trial.number, trial.as_text(), result.metrics, tags, result.failure)
                    self._add(trial, result)

    def _dispatch(self, earlier: Mapping[int, Run]) -> Iterator[Trial]:
        """Yield the trials to run, each with a run of its own."""
        for number in range(self.params.n_trials):
            if number in self.trials:
                continue
            trial = self.study.ask(number)
            if trial is None:
                self.is_exhausted = True
                return
            # A result counts only for the parameters that were evaluated.
            if number in earlier and earlier[number].data.params == trial.as_text():
                self._add(trial, TrialResult(earlier[number].data.metrics), resumed=1)
                continue
            self.runs.open_trial(number, run_name(self.params.train_params(trial.model, trial.model_params)))
            yield trial

    def _add(self, trial: Trial, result: TrialResult, resumed: int = 0) -> None:
        self.resumed += resumed
        self.trials[trial.number] = self.params.train_params(trial.model, trial.model_params)
        if result.failure is not None:
            self.failures[trial.number] = result.failure
        else:
            self.metrics[trial.number] = result.metrics
            accuracy = result.metrics[METRIC]
            if accuracy > max(self.best.values(), default=-1):
                self.best[len(self.metrics) - 1] = accuracy
            if self.study.learns:
                self.study.tell(trial, accuracy)
        best = max(self.best.values(), default=None)
        self.show(len(self.metrics) + len(self.failures), self.params.n_trials, best)


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
        If no trial finished, or the store fails; the run ends FAILED.
    """
    dataset = load_dataset(params)
    training = dataset.take(split_rows(dataset, params)[0])
    study = SweepStudy(params)
    if params.engine == "spark":
        check_installed()
    work = functools.partial(evaluate_trial, params=params, features=dataset.features, training=training)
    tags = {"model": params.model, "data_digest": dataset.digest}
    with training_run(params.name, f"sweep {params.model}") as run_id:
        runs = SweepRuns(run_id, study_key(params, study.models, dataset.digest))
        with runs.record(params.as_text(), tags):
            running = _RunningSweep(params, study, runs, show)
            earlier, trained = runs.take_over(params.n_trials)
            running.run(work, earlier)
            return _conclude(running, trained)


def _conclude(done: _RunningSweep, trained: list[Run]) -> SweepResult:
    """Train the best, and log the results on the parent."""
    if not done.metrics:
        late = f"no trial finished within timeout={done.params.as_text().get('timeout')}: raise it"
        failed = f"all {len(done.failures)} trials failed: {min(done.failures.values(), default='')}"
        raise PipelineError(failed if done.failures else late)
    other = done.runs.continued_by()
    if other is not None:
        raise PipelineError(f"the heartbeat of this sweep expired and another sweep resumed it, run {other}")
    order = rank(done.metrics)
    best = done.trials[order[0]]
    same = [run for run in trained if run.data.params == best.as_text()]
    found = (find_result(best, run.info.run_id, run.data.metrics) for run in same)
    untuned = next((number for number in order if number < len(done.study.models)), -1)
    ended = len(done.metrics) + len(done.failures)
    result = SweepResult(
        run_id=done.runs.run_id,
        finished=len(done.metrics),
        failed=len(done.failures),
        reason=next(iter(done.failures.values()), ""),
        is_exhausted=done.is_exhausted,
        is_timed_out=ended < done.params.n_trials and not done.is_exhausted,
        resumed=done.resumed,
        best=best,
        best_metrics=done.metrics[order[0]],
        untuned=done.trials.get(untuned),
        untuned_metrics=done.metrics.get(untuned, {}),
        winner=next(filter(None, found), None) or train(best),
    )
    rows = [f"| {run_name(done.trials[n])} | {format_accuracy(done.metrics[n])} |" for n in order[:_BEST]]
    metrics = {**result.winner.metrics, "trials": ended}
    if result.untuned is not None:
        metrics["untuned_cv_accuracy"] = result.untuned_metrics[METRIC]
    done.runs.log_best(done.best, metrics, _note(result, rows))
    return result


def _note(result: SweepResult, rows: list[str]) -> str:
    """Return the description of the parent run, in Markdown."""
    failed = f", {result.failed} more failed" if result.failed else ""
    winner = f"**{result.winner.name} version {result.winner.version}**"
    return f"""{winner} is the best of {result.finished} trials{failed}.

Untuned default: {result.compare_untuned()}.

| trial | accuracy by cross-validation on the training rows |
| --- | --- |
""" + "\n".join(rows)
