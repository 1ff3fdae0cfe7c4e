"""Run the gates `champion`, `baseline`, `slices`, `latency`, `latency_ratio` and `size_ratio`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from registry_tools.errors import InputError, VerificationError
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.evaluation.gates import comparison, thresholds
from registry_tools.evaluation.gates.baseline import baseline_gate
from registry_tools.evaluation.gates.slices import MAXIMUM_GROUPS, Group, group_rows, slices_gate
from registry_tools.evaluation.isolated_predict import (
    IsolatedPredictions,
    PredictJob,
    predict_in_clean_process,
)
from registry_tools.evaluation.verdict import GateResult
from registry_tools.evaluation.version_bundle import (
    VersionBundle,
    as_outcomes,
    exclude_training_rows,
    unknown_training_rows,
)
from registry_tools.models.evidence import Holdout
from registry_tools.models.manifest import manifest_of
from registry_tools.models.prediction_shape import class_values
from registry_tools.stats.metric import Metric, Outcomes, compared_rows
from registry_tools.stats.paired_metric import compare_by

GIVE_EVAL_DATA = "give --eval-data with labels that both versions predict"
Pair = tuple[Outcomes, Outcomes]  # candidate and champion
Predicted = IsolatedPredictions | VerificationError  # the error explains why predictions are missing


@dataclass(frozen=True)
class GateInputs:
    """A candidate and its champion, with their predictions from a clean process."""

    candidate: VersionBundle
    champion: VersionBundle | None
    options: GateOptions
    holdout: Holdout | None
    compared: Holdout | None  # the rows of the holdout that neither was trained on
    predictions: Predicted
    champion_predictions: Predicted | None  # None if there was nothing to predict

    @property
    def excluded(self) -> int:
        """The number of rows of the holdout that are not compared."""
        if self.holdout is None or self.compared is None:
            return 0
        return len(self.holdout.labels) - len(self.compared.labels)


def predict_for_gates(
    candidate: VersionBundle, champion: VersionBundle | None, holdout: Holdout | None, options: GateOptions
) -> GateInputs:
    """Predict with the candidate and then with the champion in a clean process."""
    # If the training table repeats rows, the holdout can contain training rows of the candidate too.
    compared = holdout
    for bundle in (champion, candidate):
        if compared is not None and bundle is not None:
            compared = exclude_training_rows(compared, bundle)
    tables: dict[str, pd.DataFrame] = {}
    if candidate.recorded is not None:
        tables["example"] = candidate.recorded.rows
    for name, rows in (("holdout", holdout), ("compared", compared)):
        if rows is not None and len(rows.labels):
            tables[name] = rows.rows
    timed = None
    if options.max_latency_ms is not None or options.max_latency_ratio is not None:
        timed = tables["holdout"].head(1) if "holdout" in tables else None
    assert candidate.folder is not None
    jobs = [PredictJob(candidate.folder, tables, options.policy, timed)]
    if champion is not None and champion.folder is not None and "holdout" in tables:
        own = {"compared": tables["compared"]} if "compared" in tables else {}
        row = timed if options.max_latency_ratio is not None else None
        if own or row is not None:
            jobs.append(PredictJob(champion.folder, own, options.policy, row))
    results = predict_in_clean_process(jobs)
    champion_predictions = results[1] if len(results) > 1 else None
    return GateInputs(candidate, champion, options, holdout, compared, results[0], champion_predictions)


def run_comparison_gates(
    inputs: GateInputs, predictions: IsolatedPredictions, compared: Holdout, metric: Metric
) -> Iterator[GateResult]:
    """Yield the results of the gates `champion`, `baseline` and, with slice columns, `slices`."""
    options = inputs.options
    pair = _pair(inputs, predictions, compared, metric)
    if isinstance(pair, GateResult):
        yield pair
    else:
        judge = functools.partial(_run_champion_gate, inputs, metric, pair)
        yield _judge("champion", judge, compared)
    yield _run_baseline_gate(inputs, predictions, compared, metric)
    if not options.slices:
        return
    fault = _slices_fault(options.slices, compared.rows)
    if fault is not None:
        yield GateResult("slices", False, fault)
    elif inputs.champion is None:
        yield GateResult("slices", True, "no champion to compare the groups with")
    elif not isinstance(pair, GateResult):
        judge = functools.partial(_run_slices_gate, options.slices, compared, metric, pair)
        yield _judge("slices", judge, compared)


def _judge(gate: str, judge: Callable[[npt.NDArray[np.bool_]], GateResult], rows: Holdout) -> GateResult:
    """Run a gate on the distinct rows; a metric that cannot be computed is a refusal."""
    try:
        return comparison.judge_distinct(judge, rows.distinct)
    except InputError as error:  # such as a version without probabilities
        return GateResult(gate, False, str(error))


def _pair(
    inputs: GateInputs, predictions: IsolatedPredictions, compared: Holdout, metric: Metric
) -> Pair | GateResult:
    """Return the predictions of candidate and champion, or the gate's result if they are not compared."""
    champion, other = inputs.champion, inputs.champion_predictions
    if champion is None:
        return GateResult("champion", True, "no champion")
    title = f"the champion, version {champion.version.version}"
    if champion.faults:
        return GateResult("champion", False, f"{title}: {champion.faults[0]}")
    unknown = unknown_training_rows(inputs.holdout, champion) if inputs.holdout is not None else None
    if unknown is not None:
        return GateResult("champion", False, unknown)
    refusal = comparison.too_few_rows(compared.distinct, inputs.excluded)
    if refusal is not None:
        return refusal
    if not isinstance(other, IsolatedPredictions):
        message = f"{title}: {other}"
        if inputs.options.eval_data is None:
            message += "; give rows that fit both models with --eval-data FILE --target COLUMN"
        return GateResult("champion", False, message)
    if other.output_fault is not None:
        return GateResult("champion", False, f"{title} {other.output_fault}")
    pair = []
    candidate_title = f"the candidate, version {inputs.candidate.version.version},"
    for name, given in ((candidate_title, predictions), (f"{title},", other)):
        try:
            pair.append(as_outcomes(compared.labels, given, "compared", metric.task))
        except VerificationError as error:
            return GateResult("champion", False, f"{name} {error}: {GIVE_EVAL_DATA}")
    return pair[0], pair[1]


def _run_champion_gate(
    inputs: GateInputs, metric: Metric, pair: Pair, mask: npt.NDArray[np.bool_]
) -> GateResult:
    known = inputs.champion is not None and inputs.champion.training_rows is not None
    candidate, champion = (side.take(mask) for side in pair)
    paired = compare_by(metric, candidate, champion)
    if paired is None:
        return comparison.undefined("champion", metric.name, int(mask.sum()))
    rows = compared_rows(metric, candidate, champion)
    if rows < comparison.MINIMUM_ROWS:
        return comparison.too_few_of_class(metric.name, rows, int(mask.sum()))
    excluded = inputs.excluded if known else None
    return comparison.champion_gate(paired, inputs.options.rule, inputs.options.margin, excluded)


def _run_baseline_gate(
    inputs: GateInputs, predictions: IsolatedPredictions, compared: Holdout, metric: Metric
) -> GateResult:
    if not inputs.options.baseline:
        return GateResult("baseline", True, "skipped (--no-baseline)")
    outcomes = Outcomes(compared.labels, compared.labels)
    if len(compared.labels):
        try:
            outcomes = as_outcomes(compared.labels, predictions, "compared", metric.task)
        except VerificationError as error:
            return GateResult("baseline", False, f"the candidate {error}: {GIVE_EVAL_DATA}")
    return _judge("baseline", lambda mask: baseline_gate(metric, outcomes.take(mask)), compared)


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


def _run_slices_gate(
    columns: Sequence[str], compared: Holdout, metric: Metric, pair: Pair, mask: npt.NDArray[np.bool_]
) -> GateResult:
    groups: list[Group] = []
    candidate, champion = (side.take(mask) for side in pair)
    for column in dict.fromkeys(columns):
        values = _group_names(compared.rows[column][mask])
        groups += group_rows(column, values, metric, candidate, champion)
    return slices_gate(groups)


def _group_names(column: pd.Series) -> list[str | None]:
    """Return the group of each row as text; None for a missing value."""
    values = column.astype(object).to_numpy()
    return [None if pd.isna(value) else str(value) for value in class_values(values)]


def run_cost_gates(inputs: GateInputs, predictions: IsolatedPredictions) -> Iterator[GateResult]:
    """Yield the results of the gates on latency and size for which the options set a limit."""
    options = inputs.options
    if options.max_latency_ms is not None:
        yield thresholds.latency_gate(predictions.milliseconds, options.max_latency_ms)
    if options.max_latency_ratio is not None:
        yield _run_latency_ratio_gate(inputs, predictions, options.max_latency_ratio)
    if options.max_size_ratio is not None:
        yield _run_size_ratio_gate(inputs, options.max_size_ratio)


def _run_latency_ratio_gate(inputs: GateInputs, predictions: IsolatedPredictions, most: float) -> GateResult:
    if inputs.champion is None:
        return GateResult("latency_ratio", True, "no champion")
    other = inputs.champion_predictions
    if not isinstance(other, IsolatedPredictions):
        title = f"the champion, version {inputs.champion.version.version}, cannot be timed"
        return GateResult("latency_ratio", False, f"{title}: {other or inputs.champion.faults[0]}")
    return thresholds.latency_ratio_gate(predictions.milliseconds, other.milliseconds, most)


def _run_size_ratio_gate(inputs: GateInputs, most: float) -> GateResult:
    if inputs.champion is None:
        return GateResult("size_ratio", True, "no champion")
    if inputs.champion.folder is None or inputs.candidate.folder is None:
        title = f"the champion, version {inputs.champion.version.version}"
        return GateResult("size_ratio", False, f"{title}: {inputs.champion.faults[0]}")
    own, other = _size(inputs.candidate.folder), _size(inputs.champion.folder)
    return thresholds.size_ratio_gate(own, other, most)


def _size(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in manifest_of(folder))
