"""Many trials, and a training of the best."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

from pipeline.data import dataset as data
from pipeline.data.dataset import Dataset
from pipeline.errors import PipelineError
from pipeline.params.definitions import SweepParams, TrainParams
from pipeline.params.fields import as_text
from pipeline.sweep import candidates as search
from pipeline.sweep import executor
from pipeline.sweep.candidates import Candidate, Outcome
from pipeline.sweep.trial_runs import Earlier, Trials
from pipeline.tracking import runs, store
from pipeline.training import model_card
from pipeline.training.train import TrainResult, train
from registry_tools.errors import RegistryToolsError

# What does not change what a sweep comes to: one that was killed may go on otherwise.
_HOW = {"n_jobs", "engine"}
_BEST = 5  # that are told of
Show = Callable[[int, int, "float | None"], None]  # trials that ended, of how many, the best so far


@dataclass(frozen=True)
class SweepResult:
    """What a sweep left behind."""

    run_id: str
    finished: int
    failed: int
    reason: str  # of the first that failed
    is_whole_space: bool  # fewer were tried than were asked for, since there are no more
    taken_up: int  # of the finished, by a sweep that was killed
    best: TrainParams
    best_figures: Mapping[str, float]
    winner: TrainResult


@dataclass
class _Sweep:
    """A sweep at work."""

    params: SweepParams
    dataset: Dataset
    candidates: list[Candidate]
    trials: Trials
    earlier: Earlier
    show: Show
    figures: dict[int, Mapping[str, float]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    so_far: list[float] = field(default_factory=list)  # the best accuracy after each trial
    open: dict[int, str] = field(default_factory=dict)  # runs of the trials under way
    trouble: BaseException | None = None  # met where joblib asked for the next trial

    def run(self, training: Dataset) -> None:
        """Run the trials that are not done, and log each as it ends."""
        for place in sorted(self.earlier.finished):
            self._note(place, self.earlier.finished[place])
        work = functools.partial(_evaluate, self.params, self.dataset.features, training)
        try:
            while len(self.figures) + len(self.failures) < len(self.candidates):
                self._some(work)
        except BaseException:
            with contextlib.suppress(RegistryToolsError):  # it is away: what ended this counts
                self.trials.kill_open()
            raise

    def _some(self, work: Callable[[tuple[int, Candidate]], Outcome]) -> None:
        params = self.params
        answers = executor.results(work, self._next(), params.n_jobs, params.engine)
        try:
            # Closed before anything else: no trial is begun any more.
            with contextlib.closing(answers):
                for (place, candidate), outcome in answers:
                    self._end(place, candidate, outcome)
        except executor.WorkerDied as error:
            # It is not known whose fault it was: of those under way, none is tried again.
            for place in list(self.open):
                self._end(place, self.candidates[place], Outcome({}, failure=str(error)))
        if self.trouble is not None:
            raise self.trouble

    def _next(self) -> Iterator[tuple[int, Candidate]]:
        """Yield the trials to run, each with a run of its own; joblib asks in its own threads."""
        for place, candidate in enumerate(self.candidates):
            if place in self.figures or place in self.failures:
                continue
            try:
                name = model_card.run_name(
                    self.params.trained_with(candidate.model, candidate.model_params)
                )
                before = self.earlier.unfinished.get(place)
                self.open[place] = self.trials.open(place, name, before)
            except BaseException as error:  # noqa: BLE001 - raised again where it is heard
                self.trouble = error
                return
            yield place, candidate

    def _end(self, place: int, candidate: Candidate, outcome: Outcome) -> None:
        run_id = self.open[place]
        arguments = {key: as_text(value) for key, value in candidate.model_params.items()}
        logged = {"model": candidate.model, **arguments}
        if outcome.failure is not None:
            self.trials.fail(run_id, logged, outcome.failure)
            self.failures[place] = outcome.failure
        else:
            self.trials.finish(run_id, logged, outcome.figures, outcome.warning or "")
            self._note(place, outcome.figures)
        del self.open[place]
        best = self.so_far[-1] if self.so_far else None
        self.show(len(self.figures) + len(self.failures), len(self.candidates), best)

    def _note(self, place: int, figures: Mapping[str, float]) -> None:
        self.figures[place] = figures
        self.so_far.append(max([*self.so_far[-1:], figures["cv_accuracy_mean"]]))


def _evaluate(
    params: SweepParams, features: pd.DataFrame, training: Dataset, task: tuple[int, Candidate]
) -> Outcome:
    return search.evaluate(task[1], params, features, training)


def sweep(params: SweepParams, show: Show = lambda *_: None) -> SweepResult:
    """Try candidates by cross-validation on the training rows, and train the best of them.

    The held-out rows are used once, by the training of the best.

    Parameters
    ----------
    params
        Of the sweep.
    show
        Told after each trial.

    Raises
    ------
    InvalidParameter, DataError
        Before any run is opened, if parameters or table are unusable.
    PipelineError, RegistryToolsError
        If every trial failed, or the store does; the run ends FAILED.
    """
    dataset = data.load(params)
    training = dataset.take(data.split(dataset, params)[0])
    drawn = search.candidates(params)
    if params.engine == "spark":
        executor.check_spark()
    with runs.training_run(params.name, f"sweep {params.model}") as run_id:
        trials = Trials(run_id, _key(params, dataset))
        with trials.alive():
            trials.begin(params.as_text(), {"model": params.model, "data_digest": dataset.digest})
            at_work = _Sweep(params, dataset, drawn, trials, trials.take_up(), show)
            at_work.run(training)
            return _conclude(at_work)


def _conclude(done: _Sweep) -> SweepResult:
    """Train the best, and say on the parent what came of all."""
    place = search.best(done.figures)
    if place is None:
        reasons = sorted(set(done.failures.values()))
        raise PipelineError(f"all {len(done.failures)} trials failed: {reasons[0]}")
    other = done.trials.taken_by()
    if other is not None:
        raise PipelineError(
            f"this sweep stood still for so long that another took it up, run {other}"
        )
    best, figures = _trained(done, place), done.figures[place]
    winner = _trained_before(done, best) or train(best)
    done.trials.log_best(
        done.so_far,
        {"cv_accuracy_mean": figures["cv_accuracy_mean"], **winner.metrics},
        _note(done, winner),
    )
    return SweepResult(
        done.trials.run_id,
        len(done.figures),
        len(done.failures),
        next(iter(done.failures.values()), ""),
        len(done.candidates) < done.params.n_trials,
        len(done.earlier.finished),
        best,
        figures,
        winner,
    )


def _trained(done: _Sweep, place: int) -> TrainParams:
    candidate = done.candidates[place]
    return done.params.trained_with(candidate.model, candidate.model_params)


def _trained_before(done: _Sweep, best: TrainParams) -> TrainResult | None:
    """Return what the training of the best left behind, if all but the sweep's own end was done."""
    run_id = done.earlier.winner
    found = done.trials.trained(run_id) if run_id is not None else None
    if run_id is None or found is None:
        return None
    holdout = done.dataset.take(data.split(done.dataset, best)[1])
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


def _note(done: _Sweep, winner: TrainResult) -> str:
    """Return the card of the parent run, in Markdown."""
    figures = done.figures
    order = sorted(figures, key=lambda place: search.rank(figures[place], place))[:_BEST]
    lines = [
        f"**{winner.name} version {winner.version}** is the best of {len(figures)} trials"
        + (f", {len(done.failures)} more failed" if done.failures else "")
        + ". Accuracy by cross-validation on the training rows:",
        "",
        "| trial | accuracy |",
        "| --- | --- |",
    ]
    for place in order:
        name = model_card.run_name(_trained(done, place))
        mean, std = figures[place]["cv_accuracy_mean"], figures[place]["cv_accuracy_std"]
        lines.append(f"| {name} | {mean:.4f} ± {std:.4f} |")
    return "\n".join(lines)


def _key(params: SweepParams, dataset: Dataset) -> str:
    """Return what two sweeps have in common if one can go on with the other's trials."""
    said = {name: text for name, text in params.as_text().items() if name not in _HOW}
    text = json.dumps([said, dataset.digest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
