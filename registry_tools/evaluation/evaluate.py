"""What the gates are given: evidence fetched, models verified, and put to work side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from registry_tools.data.row_hash import hash_rows
from registry_tools.data.tables import read_table
from registry_tools.errors import InputError, VerificationError
from registry_tools.evaluation import gates
from registry_tools.evaluation.gates import GateResult, Verdict
from registry_tools.evaluation.isolated_predict import (
    IsolatedPredictions,
    PredictJob,
    predict_in_clean_process,
)
from registry_tools.evaluation.version_bundle import (
    VersionBundle,
    exclude_training_rows,
    fetch,
    predictions_as_labels,
)
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.models import signing
from registry_tools.models.evidence import Holdout
from registry_tools.models.formats import TrustPolicy, describe
from registry_tools.models.manifest import manifest_of
from registry_tools.stats import metrics
from registry_tools.stats.paired_test import compare_predictions

if TYPE_CHECKING:
    from mlflow import MlflowClient

_OTHER_WORDS = "give --eval-data with labels that both versions answer with"


@dataclass(frozen=True)
class GateOptions:
    """What a promotion asks for."""

    minimum: Mapping[str, float] = field(default_factory=dict)  # by metric; greater is better
    maximum: Mapping[str, float] = field(default_factory=dict)  # by metric; less is better
    rule: str = "not-worse"
    margin: float = 0.01
    max_latency_ms: float | None = None
    eval_data: Holdout | None = None  # rows to judge by, instead of the held-out ones
    policy: TrustPolicy = field(default_factory=TrustPolicy)

    def __post_init__(self) -> None:
        """Refuse what no figure could be compared with.

        Raises
        ------
        InputError
            If the rule is unknown, the margin not between 0 and 1, a threshold no number, or the
            policy's key none.
        """
        if self.rule not in gates.RULES:
            raise InputError(f"rule={self.rule}: must be one of {', '.join(gates.RULES)}")
        if not 0 < self.margin < 1:
            raise InputError(f"margin={self.margin}: must be above 0 and below 1")
        for name, value in [*self.minimum.items(), *self.maximum.items()]:
            if not math.isfinite(value):
                raise InputError(f"{name}={value}: a threshold must be a finite number")
        if self.policy.public_key is not None:
            signing.verifier(self.policy.public_key)
        if self.max_latency_ms is not None and not 0 < self.max_latency_ms < math.inf:
            raise InputError(f"max_latency_ms={self.max_latency_ms}: must be above 0 and finite")


def evaluate(
    client: MlflowClient,
    candidate: VersionInfo,
    champion: VersionInfo | None,
    options: GateOptions,
) -> Verdict:
    """Put a candidate through all gates; nothing is moved or recorded."""
    with ExitStack() as files:
        bundle = fetch(client, candidate, options.policy, files)
        before = None
        if champion is not None:
            before = fetch(client, champion, options.policy, files)
        holdout = bundle.holdout
        if options.eval_data is not None:
            holdout = _with_hashes_of(options.eval_data, bundle)
        return Verdict(tuple(_gates(bundle, before, holdout, options)))


def _gates(
    bundle: VersionBundle,
    before: VersionBundle | None,
    holdout: Holdout | None,
    options: GateOptions,
) -> Iterator[GateResult]:
    """Yield the results in their order; a gate that stands on one that refused is not asked."""
    integrity = _integrity(bundle, options.policy)
    yield integrity
    if not integrity.passed:
        return  # what differs from the manifest is not loaded
    yield _signature(bundle, before)
    # Nor those that the candidate knows: where a table repeats its rows, it would know the answers.
    compared = exclude_training_rows(exclude_training_rows(holdout, before), bundle)
    answers, champion_answers = _score(bundle, before, holdout, compared, options)
    yield _answers(bundle, answers)
    if isinstance(answers, VerificationError):
        return
    if holdout is None or compared is None:
        yield GateResult(
            "holdout",
            False,
            f"{bundle.version.name} version {bundle.version.version} was logged without held-out "
            "rows: give --eval-data FILE --target COLUMN",
        )
        return
    if options.minimum or options.maximum:
        yield _thresholds(bundle, holdout, answers, options)
    yield _clean(bundle, holdout)
    yield _champion(before, holdout, compared, answers, champion_answers, options)
    if options.max_latency_ms is not None:
        yield gates.latency_gate(answers.milliseconds, options.max_latency_ms)


def evaluate_rollback(client: MlflowClient, version: VersionInfo, policy: TrustPolicy) -> Verdict:
    """Put a version that held a stage before through the gates of a rollback."""
    with ExitStack() as files:
        bundle = fetch(client, version, policy, files)
        integrity = _integrity(bundle, policy)
        if not integrity.passed:
            return Verdict((integrity,))
        answers, _ = _score(bundle, None, None, None, GateOptions(policy=policy))
        return Verdict((integrity, _answers(bundle, answers)))


def read_eval_data(path: Path, target: str) -> Holdout:
    """Read rows to judge by from a table with a label column.

    Raises
    ------
    InputError
        If it cannot be read, has no such column, or a row has no label.
    """
    table = read_table(path)
    table.columns = table.columns.map(str)
    if target not in table:
        raise InputError(
            f"--target {target}: {path} has no such column, only "
            f"{', '.join(repr(name) for name in table.columns)}"
        )
    if table.columns.has_duplicates:
        raise InputError(f"{path} has two columns of the name {_first_double(table.columns)!r}")
    labels = table[target]
    if labels.isna().any():
        row = int(np.flatnonzero(labels.isna())[0])
        raise InputError(f"--target {target}: row {row} of {path} has no label")
    if pd.api.types.is_float_dtype(labels) and (labels == np.floor(labels)).all():
        if not np.isfinite(labels).all():
            raise InputError(f"--target {target}: {path} has an infinite label")
        labels = labels.astype("int64")
    rows = table.drop(columns=target)
    return Holdout(rows, labels.map(str).to_numpy(object), hash_rows(rows))


def _first_double(columns: pd.Index) -> str:
    return str(columns[columns.duplicated()][0])


def _with_hashes_of(rows: Holdout, bundle: VersionBundle) -> Holdout:
    """Hash rows over the columns that the candidate takes, as those that it was trained on are."""
    try:
        described = describe(bundle.folder) if bundle.folder is not None else None
    except VerificationError:
        return rows  # the gates say so
    taken = [column.name for column in described.signature or ()] if described else []
    present = [name for name in taken if name in rows.rows]
    return replace(rows, hashes=hash_rows(rows.rows[present])) if present else rows


def _integrity(bundle: VersionBundle, policy: TrustPolicy) -> GateResult:
    faults = [fault for fault in (bundle.fault, bundle.evidence_fault) if fault]
    if faults or bundle.folder is None:
        return gates.integrity_gate(faults, 0)
    files = len(manifest_of(bundle.folder))
    return gates.integrity_gate(
        [],
        files,
        has_manifest=bundle.version.digest is not None,
        public_key=str(policy.public_key) if policy.public_key is not None else None,
    )


def _signature(bundle: VersionBundle, before: VersionBundle | None) -> GateResult:
    assert bundle.folder is not None
    try:
        old = before.folder if before is not None else None
        return gates.signature_gate(
            describe(bundle.folder).signature,
            describe(old).signature if old is not None else None,
        )
    except VerificationError as error:
        return GateResult("signature", False, str(error))


def _score(
    bundle: VersionBundle,
    before: VersionBundle | None,
    holdout: Holdout | None,
    compared: Holdout | None,
    options: GateOptions,
) -> tuple[IsolatedPredictions | VerificationError, IsolatedPredictions | VerificationError | None]:
    """Answer with the candidate in a clean process, and with the champion after it."""
    policy = options.policy
    tables: dict[str, pd.DataFrame] = {}
    if bundle.answer is not None:
        tables["example"] = bundle.answer.rows
    if holdout is not None:
        tables["holdout"] = holdout.rows
    if compared is not None and len(compared.labels):
        tables["compared"] = compared.rows
    timed = "holdout" if options.max_latency_ms is not None and holdout is not None else None
    assert bundle.folder is not None
    jobs = [PredictJob(bundle.folder, tables, timed, policy.types, policy.allow_code)]
    if before is not None and before.folder is not None and "compared" in tables:
        rows = {"compared": tables["compared"]}
        jobs.append(PredictJob(before.folder, rows, None, policy.types, policy.allow_code))
    answers = predict_in_clean_process(jobs)
    return answers[0], answers[1] if len(answers) > 1 else None


def _answers(bundle: VersionBundle, answers: IsolatedPredictions | VerificationError) -> GateResult:
    if isinstance(answers, VerificationError):
        return GateResult("answers", False, str(answers))
    if bundle.answer is None:
        return GateResult("answers", True, "it loads; no answer was recorded to compare with")
    recorded = bundle.answer
    probabilities = recorded.probabilities
    return gates.predictions_gate(
        {
            "predictions": recorded.predictions.tolist(),
            "probabilities": None if probabilities is None else probabilities.tolist(),
        },
        {
            "predictions": answers.predictions["example"],
            "probabilities": answers.probabilities["example"],
        },
    )


def _thresholds(
    bundle: VersionBundle, holdout: Holdout, answers: IsolatedPredictions, options: GateOptions
) -> GateResult:
    from registry_tools.evaluation import thresholds  # MLflow's evaluation takes a while to import

    try:
        words = predictions_as_labels(holdout.labels, answers, "holdout")
    except VerificationError as error:
        return GateResult("thresholds", False, f"a version {error}: {_OTHER_WORDS}")
    seen = {*holdout.labels.tolist(), *words.tolist()}
    names = answers.classes if seen <= set(answers.classes) else sorted(seen)
    code_of = {name: code for code, name in enumerate(names)}
    probabilities = answers.probabilities["holdout"]
    figures = metrics.evaluate(
        np.array([code_of[name] for name in holdout.labels]),
        np.array([code_of[name] for name in words]),
        np.asarray(probabilities) if probabilities and names is answers.classes else None,
        names,
    )
    figures["recall"] = min(v for k, v in figures.items() if k.startswith("recall_"))
    return gates.thresholds_gate(figures, options.minimum, options.maximum, thresholds.failing)


def _clean(bundle: VersionBundle, holdout: Holdout) -> GateResult:
    if bundle.training_rows is None:
        return GateResult(
            "clean_holdout", True, "it is not recorded which rows the candidate was trained on"
        )
    return gates.clean_holdout_gate(holdout.hashes, bundle.training_rows, holdout.copies)


def _champion(
    before: VersionBundle | None,
    holdout: Holdout,
    compared: Holdout,
    answers: IsolatedPredictions,
    champion_answers: IsolatedPredictions | VerificationError | None,
    options: GateOptions,
) -> GateResult:
    if before is None:
        return GateResult("champion", True, "no champion")
    number = before.version.version
    fault = before.fault or before.evidence_fault
    if fault is not None:
        return GateResult("champion", False, f"the champion, version {number}: {fault}")
    excluded = len(holdout.labels) - len(compared.labels)
    few = gates.too_few_rows(len(compared.labels), excluded)
    if few is not None:
        return few
    if not isinstance(champion_answers, IsolatedPredictions):
        way_out = "; to judge by rows that both take, give --eval-data FILE --target COLUMN"
        out = way_out if options.eval_data is None else ""
        said = f"the champion, version {number}: {champion_answers}{out}"
        return GateResult("champion", False, said)
    try:
        comparison = compare_predictions(
            compared.labels,
            predictions_as_labels(compared.labels, answers, "compared"),
            predictions_as_labels(compared.labels, champion_answers, "compared"),
        )
    except VerificationError as error:
        return GateResult("champion", False, f"a version {error}: {_OTHER_WORDS}")
    return gates.champion_gate(
        comparison,
        options.rule,
        options.margin,
        excluded if before.training_rows is not None else None,
    )
