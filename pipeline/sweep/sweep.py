"""Many trials, and a training of the best."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from pipeline.data.dataset import Dataset
from pipeline.data.folds import check_folds, make_folds
from pipeline.data.load import load_dataset
from pipeline.data.split import split_rows
from pipeline.errors import InvalidParameter, PipelineError
from pipeline.estimators import ESTIMATORS, models_of
from pipeline.params.definitions import ALL_MODELS, SweepParams
from pipeline.params.types import as_text
from pipeline.sweep.identity import identity
from pipeline.sweep.study import SweepStudy
from pipeline.sweep.trials import evaluate_trial, run_trials
from pipeline.tracking.runs import training_run
from pipeline.tracking.sweep_runs import SweepRuns
from pipeline.training.checks import check_fit
from pipeline.training.model_card import Trial, render_sweep_card, run_name
from pipeline.training.model_pipeline import resolve_model
from pipeline.training.run_content import logged_params, used_params, view_of
from pipeline.training.scoring import mean_key, metric_of
from pipeline.training.train import TrainResult, find_result, train
from registry_tools.spark import check_installed
from registry_tools.stats.metric import Metric

_log = logging.getLogger(__name__)

# These options change neither the parameters nor the metrics of a trial; the digests stand for `data`.
_EXECUTION = {"n_trials", "n_jobs", "engine", "timeout", "trial_timeout", "data", "plots", "stage"}
_ARGUMENTS = "model_params"  # the tag of a trial with its arguments, as a training takes them
Show = Callable[["float | None"], None]  # the best value so far


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep."""

    run_id: str
    finished: int
    failures: tuple[str, ...]  # the reason of each trial that failed
    resumed: int  # of the finished, by earlier sweeps
    is_exhausted: bool  # there were fewer different trials than were asked for
    is_timed_out: bool  # `timeout` was over before all trials had ended
    best: Trial
    untuned: Trial | None  # the best of the defaults; None if all of them failed
    winner: TrainResult


class _RunningSweep:
    """A sweep while its trials run."""

    def __init__(self, params: SweepParams, study: SweepStudy, runs: SweepRuns, show: Show) -> None:
        self._params, self._study, self._runs, self._show = params, study, runs, show
        self._earlier, self._trained = runs.take_over(params.n_trials)
        self._metric = metric_of(params)
        self._finished: list[Trial] = []
        self._failures: list[str] = []
        self._improvements: dict[int, float] = {}  # of the best value, by the trials that finished before
        self._resumed = 0
        self._best: float | None = None

    def dispatch(self) -> Iterator[Trial]:
        """Yield the trials to run, each with a run of its own; add those that are finished."""
        # A sampler that learns receives the finished trials first; the others draw the same trials again.
        learns = self._study.learns
        for number in sorted(range(self._params.n_trials), key=lambda n: learns and n not in self._earlier):
            run = self._earlier.get(number)
            trial = None
            if learns and run is not None:
                values = json.loads(run.data.tags[_ARGUMENTS])
                trial = self._study.accept(number, run.data.params["estimator"], values)
            if trial is None and (trial := self._study.ask(number)) is None:
                return
            # A result counts only for the parameters that were evaluated.
            if run is not None and run.data.params == trial.as_text():
                self._resumed += 1
                self._add(replace(trial, metrics=run.data.metrics))
            else:
                self._runs.open_trial(number, run_name(trial.params))
                yield trial

    def log(self, trial: Trial) -> None:
        """Log a trial that ended, and tell the study."""
        tags = {_ARGUMENTS: as_text(trial.params.model_params), "warning": trial.warning or ""}
        self._runs.end_trial(trial.number, trial.as_text(), trial.metrics, tags, trial.failure)
        self._add(trial)

    def _add(self, trial: Trial) -> None:
        if trial.failure is not None:
            self._failures.append(trial.failure)
        else:
            if self._best is None or self._metric.is_better(trial.value, self._best):
                self._best = self._improvements[len(self._finished)] = trial.value
            self._finished.append(trial)
            self._study.tell(trial)
        self._show(self._best)

    def conclude(self) -> SweepResult:
        """Train the best, and log the results on the parent."""
        finished, failed = self._finished, len(self._failures)
        if not finished:
            late = f"no trial finished within timeout={as_text(self._params.timeout)}: raise it"
            raise PipelineError(f"all {failed} trials failed: {min(self._failures)}" if failed else late)
        if other := self._runs.continued_by():
            raise PipelineError(
                f"the heartbeat of this sweep expired and another sweep resumed it, run {other}"
            )
        ranked = rank(finished, self._metric)
        best = ranked[0]
        untuned = next((trial for trial in ranked if trial.number < len(self._study.models)), None)
        same = [run for run in self._trained if run.data.params == logged_params(best.params)]
        found = (find_result(best.params, run.info.run_id, run.data.metrics) for run in same)
        winner = next(filter(None, found), None) or train(best.params)
        card = render_sweep_card(f"{winner.name} version {winner.version}", ranked, untuned, failed)
        key, ended = mean_key(self._metric.name), len(finished) + failed
        default = {f"untuned/{key}": untuned.value} if untuned is not None else {}
        self._runs.log_best(key, self._improvements, {**winner.metrics, **default, "trials": ended}, card)
        is_exhausted = not self._study.unexhausted
        is_timed_out = ended < self._params.n_trials and not is_exhausted
        counts = len(finished), tuple(self._failures), self._resumed
        return SweepResult(self._runs.run_id, *counts, is_exhausted, is_timed_out, best, untuned, winner)


def rank(trials: Iterable[Trial], metric: Metric) -> list[Trial]:
    """Return the trials in another order: the best first, then the steadiest, then the earliest."""
    sign = 1 if metric.less_is_better else -1
    return sorted(trials, key=lambda trial: (sign * trial.value, trial.spread, trial.number))


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
    params = resolve_model(params, dataset)
    training = dataset.take(split_rows(dataset, params)[0])
    if not make_folds(training, params):
        few = "a class has only one training row" if params.time is None else "the first rows have one class"
        raise InvalidParameter("cv", params.cv, f"a sweep needs folds, and {few}: take more rows")
    check_folds(training, params)
    study = SweepStudy(params, _models_to_try(params, training))
    if params.engine == "spark":
        check_installed()
    work = functools.partial(evaluate_trial, features=dataset.features, training=training)
    fixed = {name: text for name, text in params.as_text().items() if name not in _EXECUTION}
    # The training rows count as well: another version of the library may read or split a file differently.
    key = identity(study.models, params.task, fixed, dataset.digest, training.rows_digest())
    with training_run(params.name, f"sweep {params.model}", view_of(params)) as run_id:
        runs = SweepRuns(run_id, key)
        with runs.record(used_params(params), {"model": params.model, "data_digest": dataset.digest}):
            running = _RunningSweep(params, study, runs, show)
            # Closed before anything else: no trial is begun any more.
            with closing(run_trials(work, running.dispatch(), params)) as results:
                for trial in results:
                    running.log(trial)
            return running.conclude()


def _models_to_try(params: SweepParams, training: Dataset) -> list[str]:
    """Return the model, or of all installed models those that allow the weights and the threshold."""
    check_fit(params, training)
    if params.model != ALL_MODELS:
        return [params.model]
    models = []
    for model in models_of(params.task):
        if not ESTIMATORS[model].is_installed(params.task):
            continue
        try:
            check_fit(params.train_params(model, {}), training)
            models.append(model)
        except InvalidParameter as error:
            _log.warning("%s is left out of the sweep: %s", model, error)
    if not models:
        raise InvalidParameter("model", ALL_MODELS, "no model is left; the warnings say why")
    return models
