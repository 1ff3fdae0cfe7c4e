"""The gates `integrity`, `signature`, `predictions`, `onnx` and `clean_holdout`, on the version itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.data.prediction_shape import flatten_one_output
from registry_tools.data.schema import Column, TensorSchema, UnsupportedTensor, tensor_fault
from registry_tools.evaluation.verdict import GateResult
from registry_tools.models.onnx.comparison import OnnxCheck

_ROUNDING = 1e-6  # the largest difference between processors
_WAYS_OUT = "train it under another model name, or promote it with --force --reason TEXT"
# For each type that a client may send, the column types that accept its values.
_WIDER = {"integer": {"integer", "long", "double"}, "long": {"long", "double"}, "float": {"float", "double"}}


def integrity_gate(
    faults: Sequence[str],
    files: int,
    has_manifest: bool = True,
    public_key: Path | None = None,
    evidence_files: int = 0,
) -> GateResult:
    """Pass if no file differs from the manifest or, if a signature is required, from the signed one.

    Parameters
    ----------
    faults
        The differences, as text.
    files
        The number of files of the model.
    has_manifest
        Whether the version has a manifest from its registration.
    public_key
        The key that verified the signature, for the message; None if no signature was required.
    evidence_files
        The number of evidence files that were compared with the manifest.
    """
    if faults:
        return GateResult("integrity", False, "; ".join(faults[:5]))
    compared = "registered without a manifest: nothing to compare"
    if has_manifest:
        counted = (
            f"{files} model files and {evidence_files} evidence files" if evidence_files else f"{files} files"
        )
        compared = f"{counted} match the manifest"
    signed = f", signed with {public_key}" if public_key is not None else ""
    return GateResult("integrity", True, compared + signed, {"files": files})


def signature_gate(
    candidate: Sequence[Column] | TensorSchema | UnsupportedTensor | None,
    champion: Sequence[Column] | TensorSchema | UnsupportedTensor | None,
) -> GateResult:
    """Pass if the candidate has a signature and accepts the requests of the champion's clients."""
    if candidate is None:
        return GateResult(
            "signature", False, "the candidate has no signature with names and types of its columns"
        )
    if isinstance(candidate, Sequence) and isinstance(champion, Sequence | None):
        title = f"{len(candidate)} columns"
        fault = "; ".join(_column_faults(candidate, champion)) if champion is not None else None
    else:
        title, fault = str(candidate), tensor_fault(candidate, champion)
    if fault and champion is not None:
        fault = f"{fault}: {_WAYS_OUT}"
    fits = "no champion to compare with" if champion is None else "accepts the champion's requests"
    return GateResult("signature", not fault, fault or f"{title}, {fits}")


def _column_faults(candidate: Sequence[Column], champion: Sequence[Column]) -> list[str]:
    """Return the differences in columns, types or order that would break the champion's clients."""
    sent = {column.name: column for column in champion}
    taken = {column.name for column in candidate}
    faults = []
    for column in candidate:
        existing = sent.get(column.name)
        if existing is None:
            # Even an optional column: for rows without column names, it changes the number of values.
            faults.append(f"new {'required' if column.required else 'optional'} column {column.name!r}")
        elif column.type not in _WIDER.get(existing.type, {existing.type}):
            faults.append(f"column {column.name!r} was {existing.type}, is {column.type}")
        elif column.required and not existing.required:
            faults.append(f"column {column.name!r} was optional, is required")
    removed = [column.name for column in champion if column.name not in taken]
    if removed:
        faults.append(f"{_names(removed)} no longer accepted")
    added = taken - set(sent)
    if removed or added:
        renamed = "renamed? " if removed and added else ""
        faults.append(f"{renamed}the champion's clients send exactly its {len(champion)} columns")
    shared = [column.name for column in candidate if column.name in sent]
    if shared != [column.name for column in champion if column.name in taken]:
        # Rows without column names would get wrong predictions.
        faults.append("its columns are in another order")
    return faults


def _names(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def predictions_gate(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> GateResult:
    """Pass if a clean process reproduces the predictions recorded at registration.

    Parameters
    ----------
    recorded, given
        `predictions`, shape (rows,), and `probabilities`, shape (rows, classes) or None. Classes must
        be equal. Because processors round differently, probabilities may differ by 1e-6, and numbers with
        a fraction by 1e-6 of the largest one.
    """
    expected, found = (
        flatten_one_output(np.asarray(side["predictions"], dtype=object)).tolist()
        for side in (recorded, given)
    )
    largest = max((abs(value) for value in expected if isinstance(value, float)), default=0.0)
    shorter, longer = sorted((len(expected), len(found)))
    pairs = enumerate(zip(expected, found, strict=False))
    row = next((row for row, (a, b) in pairs if a != b and not _nearly_equal(a, b, largest)), shorter)
    if row < longer:
        message = f"the prediction for row {row} of the input example differs from the record"
        return GateResult("predictions", False, message)
    fault = _probability_fault(recorded.get("probabilities"), given.get("probabilities"))
    if fault is not None:
        return GateResult("predictions", False, fault)
    return GateResult("predictions", True, f"{len(found)} recorded predictions reproduced")


def _nearly_equal(expected: Any, found: Any, largest: float) -> bool:
    """Return whether two numbers differ by rounding; whole numbers may be classes and never do."""
    if not all(isinstance(each, float | int) for each in (expected, found)) or expected % 1 == found % 1 == 0:
        return False
    return bool(abs(expected - found) <= _ROUNDING * largest)


def _probability_fault(recorded: Any, given: Any) -> str | None:
    """Return the difference between given and recorded probabilities; None if there is none."""
    if recorded is None and given is None:
        return None
    if recorded is None:
        return "the model returns probabilities, but none are recorded: register the model again"
    if given is None:
        return "probabilities are recorded, but the model returns none"
    expected, found = np.asarray(recorded, dtype=float), np.asarray(given, dtype=float)
    if expected.shape != found.shape:
        return f"the probabilities have the shape {found.shape}, the recorded ones {expected.shape}"
    if not np.isfinite(found).all():
        return "a probability is NaN or infinite"
    gap = float(np.max(np.abs(expected - found), initial=0.0))
    return None if gap <= _ROUNDING else f"a probability differs by {gap:.2g} from the recorded one"


def probabilities_fault(probabilities: npt.NDArray[np.float64], classes: Sequence[str]) -> str | None:
    """Return why values are not probabilities of classes; None if they are.

    Parameters
    ----------
    probabilities
        The values for the evaluated rows, shape (rows, classes).
    classes
        The names of the classes, in the order of the columns.
    """
    if probabilities.ndim != 2 or (classes and probabilities.shape[1] != len(classes)):
        return f"the model gives probabilities of shape {probabilities.shape} for {len(classes)} classes"
    invalid = ~((probabilities >= 0) & (probabilities <= 1))
    if invalid.any():
        row, column = np.argwhere(invalid)[0]
        name = classes[column] if classes else str(column)
        return f"row {row} of the holdout has the probability {probabilities[row, column]} for {name!r}"
    sums = probabilities.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1) > 1e-3)
    if len(wrong):
        return f"the probabilities of row {wrong[0]} of the holdout sum to {sums[wrong[0]]:.4g}, not 1"
    return None


def onnx_gate(check: OnnxCheck, is_stored: bool) -> GateResult:
    """Pass if the ONNX file of the version predicts as the version does.

    Parameters
    ----------
    check
        The comparison of both.
    is_stored
        Whether the file was stored with the version before, for the message.
    """
    where = "the stored ONNX file" if is_stored else "the ONNX file"
    same = f"{where} predicts the same on {check.summary}"
    metrics = {"onnx_rows": check.holdout_rows + check.boundary_rows, "onnx_differing": check.differing}
    return GateResult("onnx", check.fault is None, check.fault or same, metrics)


def clean_holdout_gate(
    holdout: npt.NDArray[np.uint64], training: npt.NDArray[np.uint64], duplicates: npt.NDArray[np.uint64]
) -> GateResult:
    """Pass if no training row is in the holdout.

    Parameters
    ----------
    holdout, training
        The row hashes, shape (rows,).
    duplicates
        The hashes of rows that occur more than once in the original table, and their counts, shape
        (rows, 2). Copies of such a row may be in both parts, together as often as in the table. The
        message reports them, but they do not refuse.
    """
    shared, held_out = np.unique(holdout[np.isin(holdout, training)], return_counts=True)
    ordered = np.sort(training)
    trained = np.searchsorted(ordered, shared, "right") - np.searchsorted(ordered, shared, "left")
    known = dict(duplicates.tolist())
    in_table = np.array([known.get(row, 1) for row in shared.tolist()], dtype=np.int64)
    leaked = int(np.clip(trained + held_out - in_table, 0, held_out).sum())
    allowed = int(held_out.sum()) - leaked
    metrics = {"shared_rows": leaked, "duplicate_rows": allowed}
    note = f"; {allowed} exact copies of training rows, as in the table" if allowed else ""
    message = f"{len(holdout)} rows, none of them a training row{note}"
    if leaked:
        message = f"{leaked} of {len(holdout)} rows are training rows{note}; hold out other rows"
    return GateResult("clean_holdout", not leaked, message, metrics)
