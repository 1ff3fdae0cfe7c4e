"""Run the gates `champion`, `baseline`, `slices`, `latency`, `latency_ratio` and `size_ratio`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry_tools.data.prediction_shape import class_values
from registry_tools.errors import VerificationError
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.gates import comparison, thresholds
from registry_tools.evaluation.gates.baseline import baseline_gate
from registry_tools.evaluation.gates.slices import MAXIMUM_GROUPS, Group, group_rows, slices_gate
from registry_tools.evaluation.isolated_predict import IsolatedPredictions, Predicted
from registry_tools.evaluation.verdict import GateResult, run_gate
from registry_tools.evaluation.version_bundle import VersionBundle, as_outcomes, check_training_rows
from registry_tools.models.evidence import Holdout
from registry_tools.models.manifest import manifest_of
from registry_tools.stats.metric import Metric, Outcomes, compared_rows
from registry_tools.stats.paired_metric import compare_by

_FIX = ": give --eval-data with labels that both versions predict"
Pair = tuple[Outcomes, Outcomes]  # candidate and champion


@dataclass(frozen=True)
class GateInputs:
    """A candidate with its predictions for the holdout, and its champion, to run the gates on."""

    options: GateOptions
    metric: Metric  # to compare by
    candidate: VersionBundle
    champion: VersionBundle | None
    holdout: Holdout
    new: npt.NDArray[np.bool_]  # the mask of the rows of the holdout that neither was trained on
    predictions: IsolatedPredictions
    champion_predictions: Predicted | None  # for `compared`; None if there was nothing to predict

    @functools.cached_property
    def compared(self) -> Holdout:
        """The rows of the holdout that neither was trained on."""
        return self.holdout.take(self.new)

    @property
    def excluded(self) -> int:
        """The number of rows of the holdout that are not compared."""
        return len(self.holdout.labels) - len(self.compared.labels)

    def outcomes(self, title: str = "the candidate") -> Outcomes:
        """Return the predictions of the candidate for the holdout.

        Raises
        ------
        VerificationError
            If they do not fit the labels. The message begins with `title`.
        """
        return as_outcomes(self.holdout.labels, self.predictions, "holdout", self.metric.task, title, _FIX)


def run_comparison_gates(inputs: GateInputs) -> Iterator[GateResult]:
    """Yield the results of the gates `champion`, `baseline` and, with slice columns, `slices`."""
    pair = _pair(inputs)
    yield pair if isinstance(pair, GateResult) else run_gate("champion", _run_champion_gate, inputs, pair)
    yield run_gate("baseline", _run_baseline_gate, inputs)
    if not inputs.options.slices:
        return
    fault = _slices_fault(inputs.options.slices, inputs.compared.rows)
    if fault is not None:
        yield GateResult("slices", False, fault)
    elif inputs.champion is None:
        yield GateResult("slices", True, "no champion to compare the groups with")
    elif not isinstance(pair, GateResult):
        yield run_gate("slices", _run_slices_gate, inputs, pair)


def _pair(inputs: GateInputs) -> Pair | GateResult:
    """Return the predictions of candidate and champion, or the gate's result if they are not compared."""
    champion, predicted = inputs.champion, inputs.champion_predictions
    if champion is None:
        return GateResult("champion", True, "no champion")
    title = f"the champion, version {champion.version.version}"
    try:
        if champion.faults:
            raise VerificationError(f"{title}: {champion.faults[0]}")
        check_training_rows(inputs.holdout, champion)
        refusal = comparison.too_few_rows(inputs.compared.distinct, inputs.excluded)
        if refusal is not None:
            return refusal
        if not isinstance(predicted, IsolatedPredictions):
            fix = "; give rows that fit both models with --eval-data FILE --target COLUMN"
            raise VerificationError(f"{title}: {predicted}{fix if inputs.options.eval_data is None else ''}")
        if predicted.output_fault is not None:
            raise VerificationError(f"{title} {predicted.output_fault}")
        own = inputs.outcomes(f"the candidate, version {inputs.candidate.version.version},").take(inputs.new)
        labels, task = inputs.compared.labels, inputs.metric.task
        return own, as_outcomes(labels, predicted, "compared", task, f"{title},", _FIX)
    except VerificationError as error:
        return GateResult("champion", False, str(error))


def _run_champion_gate(inputs: GateInputs, pair: Pair) -> GateResult:
    known = inputs.champion is not None and inputs.champion.training_rows is not None
    metric, options = inputs.metric, inputs.options

    def judge(mask: npt.NDArray[np.bool_]) -> GateResult:
        candidate, champion = (side.take(mask) for side in pair)
        paired = compare_by(metric, candidate, champion)
        if paired is None:
            return comparison.undefined("champion", metric.name, int(mask.sum()))
        rows = compared_rows(metric, candidate, champion)
        if rows < comparison.MINIMUM_ROWS:
            return comparison.too_few_of_class(metric.name, rows, int(mask.sum()))
        excluded = inputs.excluded if known else None
        return comparison.champion_gate(paired, options.rule, options.margin, excluded)

    return comparison.judge_distinct(judge, inputs.compared.distinct)


def _run_baseline_gate(inputs: GateInputs) -> GateResult:
    if not inputs.options.baseline:
        return GateResult("baseline", True, "skipped (--no-baseline)")
    outcomes = inputs.outcomes().take(inputs.new)
    return comparison.judge_distinct(
        lambda mask: baseline_gate(inputs.metric, outcomes.take(mask)), inputs.compared.distinct
    )


def _slices_fault(columns: Sequence[str], rows: pd.DataFrame) -> str | None:
    """Return why a slice column cannot be used; None if all can."""
    for column in columns:
        if column not in rows:
            names = ", ".join(repr(str(name)) for name in rows)
            return f"--slice {column}: no such column; the columns are: {names}"
        groups = len(set(_group_names(rows[column])))
        if groups == 1:
            return f"--slice {column}: one group only, the whole table: name a column with several values"
        if groups > MAXIMUM_GROUPS:
            return (
                f"--slice {column}: it has {groups} values, and at most {MAXIMUM_GROUPS} are supported: "
                "add a column with the group of each row to --eval-data"
            )
    return None


def _run_slices_gate(inputs: GateInputs, pair: Pair) -> GateResult:
    columns = {name: _group_names(inputs.compared.rows[name]) for name in inputs.options.slices}

    def judge(mask: npt.NDArray[np.bool_]) -> GateResult:
        candidate, champion = (side.take(mask) for side in pair)
        groups: list[Group] = []
        for name, values in columns.items():
            groups += group_rows(name, values[mask].tolist(), inputs.metric, candidate, champion)
        return slices_gate(groups)

    return comparison.judge_distinct(judge, inputs.compared.distinct)


def _group_names(column: pd.Series) -> npt.NDArray[np.object_]:
    """Return the group of each row as text, shape (rows,); None for a missing value."""
    values = class_values(column.to_numpy(object))
    return np.array([None if pd.isna(value) else str(value) for value in values], dtype=object)


def run_cost_gates(inputs: GateInputs) -> Iterator[GateResult]:
    """Yield the results of the gates on latency and size for which the options set a limit."""
    options, champion = inputs.options, inputs.champion
    if options.max_latency_ms is not None:
        yield thresholds.latency_gate(inputs.predictions.milliseconds, options.max_latency_ms)
    for gate, most, run in (
        ("latency_ratio", options.max_latency_ratio, _run_latency_ratio_gate),
        ("size_ratio", options.max_size_ratio, _run_size_ratio_gate),
    ):
        if most is not None and champion is None:
            yield GateResult(gate, True, "no champion")
        elif most is not None and champion is not None:
            yield run_gate(gate, run, inputs, champion, most)


def _run_latency_ratio_gate(inputs: GateInputs, champion: VersionBundle, most: float) -> GateResult:
    other = inputs.champion_predictions
    if not isinstance(other, IsolatedPredictions):
        title = f"the champion, version {champion.version.version}, cannot be timed"
        raise VerificationError(f"{title}: {other or champion.faults[0]}")
    return thresholds.latency_ratio_gate(inputs.predictions.milliseconds, other.milliseconds, most)


def _run_size_ratio_gate(inputs: GateInputs, champion: VersionBundle, most: float) -> GateResult:
    if champion.folder is None or inputs.candidate.folder is None:
        raise VerificationError(f"the champion, version {champion.version.version}: {champion.faults[0]}")
    own, other = (
        sum((folder / name).stat().st_size for name in manifest_of(folder))
        for folder in (inputs.candidate.folder, champion.folder)
    )
    return thresholds.size_ratio_gate(own, other, most)
