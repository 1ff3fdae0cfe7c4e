"""Many trials, and a training of the best."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from pipeline.data.dataset import Dataset
from pipeline.data.folds import check_folds, make_folds
from pipeline.data.load import load_dataset
from pipeline.data.split import split_rows
from pipeline.errors import InvalidParameter, PipelineError
from pipeline.estimators import models_of
from pipeline.params.definitions import ALL_MODELS, SweepParams, TrainParams
from pipeline.params.fields import as_text
from pipeline.sweep.study import SweepStudy
from pipeline.sweep.trials import Trial, TrialResult, evaluate_trial, rank, run_trials
from pipeline.tracking.runs import training_run
from pipeline.tracking.sweep_runs import SweepRuns
from pipeline.training.environment import identity
from pipeline.training.fit_pipeline import check_fit
from pipeline.training.model_card import EvaluatedTrial, render_sweep_card, run_name
from pipeline.training.model_pipeline import resolve_model
from pipeline.training.scoring import mean_key, metric_key, metric_of
from pipeline.training.train import TrainResult, find_result, train
from registry_tools.spark import check_installed

_log = logging.getLogger(__name__)

# These options change neither the parameters nor the metrics of a trial; the digests stand for `data`.
_EXECUTION = {"n_trials", "n_jobs", "engine", "timeout", "trial_timeout", "data", "plots", "stage"}
_ARGUMENTS = "model_params"  # the tag of a trial with its arguments, as a training takes them
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
    best: EvaluatedTrial
    untuned: EvaluatedTrial | None  # the best of the defaults; None if all of them failed
    winner: TrainResult


class _RunningSweep:
    """A sweep while its trials run."""

    def __init__(self, params: SweepParams, study: SweepStudy, runs: SweepRuns, show: Show) -> None:
        self.params, self.study, self.runs, self.show = params, study, runs, show
        self.earlier, self.trained = runs.take_over(params.n_trials)
        self.finished: dict[int, EvaluatedTrial] = {}
        self.failures: dict[int, str] = {}
        self.metric = metric_of(params)
        self.improvements: dict[int, float] = {}  # of the best value, by the trials that finished before
        self.resumed = 0
        self.is_exhausted = False

    def dispatch(self) -> Iterator[Trial]:
        """Yield the trials to run, each with a run of its own; add those that are finished."""
        # A sampler that learns receives the finished trials first; the others draw the same trials again.
        learns = self.study.learns
        for number in sorted(range(self.params.n_trials), key=lambda n: learns and n not in self.earlier):
            run = self.earlier.get(number)
            trial = None
            if learns and run is not None:
                logged = json.loads(run.data.tags[_ARGUMENTS])  # JSON has no tuples
                values = {name: tuple(v) if isinstance(v, list) else v for name, v in logged.items()}
                trial = self.study.accept(number, run.data.params["model"], values)
            trial = trial or self.study.ask(number)
            if trial is None:
                self.is_exhausted = True
                return
            # A result counts only for the parameters that were evaluated.
            if run is not None and run.data.params == trial.as_text():
                self.resumed += 1
                self._add(trial, TrialResult(run.data.metrics))
            else:
                self.runs.open_trial(number, run_name(self._train_params(trial)))
                yield trial

    def log(self, trial: Trial, result: TrialResult) -> None:
        """Log a trial that ended, and tell the study."""
        tags = {_ARGUMENTS: as_text(trial.model_params), "warning": result.warning or ""}
        self.runs.end_trial(trial.number, trial.as_text(), result.metrics, tags, result.failure)
        self._add(trial, result)

    def _add(self, trial: Trial, result: TrialResult) -> None:
        best = next(reversed(self.improvements.values()), None)
        if result.failure is not None:
            self.failures[trial.number] = result.failure
        else:
            value = result.metrics[mean_key(self.metric.name)]
            if best is None or self.metric.is_better(value, best):
                best = self.improvements[len(self.finished)] = value
            self.finished[trial.number] = EvaluatedTrial(self._train_params(trial), result.metrics)
            self.study.tell(trial, value)
        self.show(len(self.finished) + len(self.failures), self.params.n_trials, best)

    def _train_params(self, trial: Trial) -> TrainParams:
        return self.params.train_params(trial.model, trial.model_params)


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
    work = functools.partial(evaluate_trial, params=params, features=dataset.features, training=training)
    fixed = {name: text for name, text in params.as_text().items() if name not in _EXECUTION}
    # The training rows count as well: another version of the library may read or split a file differently.
    key = identity(study.models, params.task, fixed, dataset.digest, training.rows_digest())
    with training_run(params.name, f"sweep {params.model}") as run_id:
        runs = SweepRuns(run_id, key)
        with runs.record(params.as_text(), {"model": params.model, "data_digest": dataset.digest}):
            running = _RunningSweep(params, study, runs, show)
            # Closed before anything else: no trial is begun any more.
            with closing(run_trials(work, running.dispatch(), params)) as results:
                for trial, result in results:
                    if result is not None:
                        running.log(trial, result)
            return _conclude(running)


def _models_to_try(params: SweepParams, training: Dataset) -> list[str]:
    """Return the model, or of all models those that allow the weights and the threshold."""
    check_fit(params, training)
    if params.model != ALL_MODELS:
        return [params.model]
    models = []
    for model in models_of(params.task):
        try:
            check_fit(params.train_params(model, {}), training)
        except InvalidParameter as error:
            _log.warning("%s is left out of the sweep: %s", model, error)
        else:
            models.append(model)
    if not models:
        raise InvalidParameter("model", ALL_MODELS, "no model is left; the warnings say why")
    return models


def _conclude(done: _RunningSweep) -> SweepResult:
    """Train the best, and log the results on the parent."""
    finished, failures = done.finished, list(done.failures.values())
    ended = len(finished) + len(failures)
    if not finished:
        late = f"no trial finished within timeout={as_text(done.params.timeout)}: raise it"
        raise PipelineError(f"all {ended} trials failed: {min(failures)}" if failures else late)
    other = done.runs.continued_by()
    if other is not None:
        raise PipelineError(f"the heartbeat of this sweep expired and another sweep resumed it, run {other}")
    order = rank({number: trial.metrics for number, trial in finished.items()}, done.metric)
    ranked = [finished[number] for number in order]
    best = ranked[0]
    untuned = next((finished[number] for number in order if number < len(done.study.models)), None)
    same = [run for run in done.trained if run.data.params == best.params.as_text()]
    found = (find_result(best.params, run.info.run_id, run.data.metrics) for run in same)
    winner = next(filter(None, found), None) or train(best.params)
    card = render_sweep_card(f"{winner.name} version {winner.version}", ranked, untuned, len(failures))
    key = metric_key(done.metric.name)
    default = {f"untuned_cv_{key}": untuned.value} if untuned is not None else {}
    done.runs.log_best(key, done.improvements, {**winner.metrics, **default, "trials": ended}, card)
    reason = next(iter(failures), "")
    is_timed_out = ended < done.params.n_trials and not done.is_exhausted
    counts = len(finished), len(failures), reason, done.is_exhausted, is_timed_out, done.resumed
    return SweepResult(done.runs.run_id, *counts, best, untuned, winner)
