"""The gates on a version itself: integrity, signature, predictions, and rows it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.data.schema import Column, TensorSchema, UnsupportedTensor, tensor_fault
from registry_tools.evaluation.verdict import GateResult
from registry_tools.models.prediction_shape import flatten_one_output

# A client that sends the first type is served by a model that takes one of the others.
_WIDER = {"integer": {"integer", "long", "double"}, "long": {"long", "double"}, "float": {"float", "double"}}


def integrity_gate(
    faults: Sequence[str],
    files: int,
    has_manifest: bool = True,
    public_key: Path | None = None,
    evidence_files: int = 0,
) -> GateResult:
    """Pass if no file differs from the manifest, or from the signature where one is required.

    Parameters
    ----------
    faults
        The differences.
    files
        How many files the model has.
    has_manifest
        Whether one was made at registration.
    public_key
        The key whose signature was required, for the message.
    evidence_files
        How many files of the evidence were compared with the manifest.
    """
    if faults:
        return GateResult("integrity", False, "; ".join(faults[:5]))
    compared = (
        f"{files} files and {evidence_files} of the evidence match the manifest"
        if has_manifest and evidence_files
        else f"{files} files match the manifest"
        if has_manifest
        else "registered without a manifest: nothing to compare"
    )
    signed = f", signed with {public_key}" if public_key is not None else ""
    return GateResult("integrity", True, compared + signed, {"files": files})


def signature_gate(
    candidate: Sequence[Column] | TensorSchema | UnsupportedTensor | None,
    champion: Sequence[Column] | TensorSchema | UnsupportedTensor | None,
) -> GateResult:
    """Pass if the candidate has a signature, and takes the requests of the champion's clients."""
    if candidate is None:
        return GateResult(
            "signature", False, "the candidate has no signature that names and types its columns"
        )
    if not isinstance(candidate, Sequence) or not isinstance(champion, Sequence | None):
        fault = tensor_fault(candidate, champion)
        fits = "no champion to fit" if champion is None else "takes what clients send"
        return GateResult("signature", fault is None, fault or f"{candidate}, {fits}")
    if champion is None:
        return GateResult("signature", True, f"{len(candidate)} columns, no champion to fit")
    faults = _column_faults(candidate, champion)
    if faults:
        return GateResult("signature", False, "; ".join(faults))
    return GateResult("signature", True, f"{len(candidate)} columns take what clients send")


def _column_faults(candidate: Sequence[Column], champion: Sequence[Column]) -> list[str]:
    """Return why the champion's clients do not fit: other columns, types or order."""
    sent = {column.name: column for column in champion}
    taken = {column.name for column in candidate}
    faults = []
    for column in candidate:
        existing = sent.get(column.name)
        if existing is None:
            # An optional one too: a row without names is then too short, as is a tensor.
            faults.append(f"new {'required' if column.required else 'optional'} column {column.name!r}")
        elif column.type not in _WIDER.get(existing.type, {existing.type}):
            faults.append(f"column {column.name!r} was {existing.type}, is {column.type}")
        elif column.required and not existing.required:
            faults.append(f"column {column.name!r} was optional, is required")
    removed = [column.name for column in champion if column.name not in taken]
    if removed:
        faults.append(f"{_names(removed)} no longer taken")
    if removed or taken - set(sent):
        renamed = "renamed? " if removed and taken - set(sent) else ""
        faults.append(f"{renamed}the champion's clients send exactly its {len(champion)} columns")
    shared = [column.name for column in candidate if column.name in sent]
    if shared != [column.name for column in champion if column.name in taken]:
        # Rows without names would get wrong predictions.
        faults.append("its columns stand in another order")
    return faults


def _names(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def predictions_gate(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> GateResult:
    """Pass if a clean process reproduces the predictions recorded at registration.

    Parameters
    ----------
    recorded, given
        `predictions`, shape (rows,), and `probabilities`, shape (rows, classes) or None. Classes
        must be equal, probabilities within 1e-6: another processor may round differently.
    """
    expected, found = (
        flatten_one_output(np.asarray(side["predictions"], dtype=object)).tolist()
        for side in (recorded, given)
    )
    different = [i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b]
    if len(expected) != len(found) or different:
        row = different[0] if different else min(len(expected), len(found))
        return GateResult(
            "predictions", False, f"row {row} of the input example is not predicted as recorded"
        )
    fault = _probability_fault(recorded.get("probabilities"), given.get("probabilities"))
    if fault is not None:
        return GateResult("predictions", False, fault)
    return GateResult("predictions", True, f"{len(found)} rows predicted as recorded")


def _probability_fault(recorded: Any, given: Any) -> str | None:
    """Return how probabilities differ from the recorded ones; None if they do not."""
    if recorded is None and given is None:
        return None
    if recorded is None:
        return "the model gives probabilities, and none were recorded: record its predictions anew"
    if given is None:
        return "probabilities were recorded, and the model gives none"
    expected, found = np.asarray(recorded, dtype=float), np.asarray(given, dtype=float)
    if expected.shape != found.shape:
        return f"probabilities of shape {found.shape} were given, of shape {expected.shape} recorded"
    if not np.isfinite(found).all():
        return "a probability is NaN or infinite"
    gap = float(np.max(np.abs(expected - found), initial=0.0))
    return None if gap <= 1e-6 else f"a probability differs by {gap:.2g} from recorded"


def probabilities_fault(probabilities: npt.NDArray[np.float64], classes: Sequence[str]) -> str | None:
    """Return why values are no probabilities of classes; None if they are.

    Parameters
    ----------
    probabilities
        Of the evaluated rows, shape (rows, classes).
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


def clean_holdout_gate(
    holdout: npt.NDArray[np.uint64], training: npt.NDArray[np.uint64], duplicates: npt.NDArray[np.uint64]
) -> GateResult:
    """Pass if no training row is in the holdout.

    Parameters
    ----------
    holdout, training
        Row hashes, shape (rows,).
    duplicates
        The rows that stand in the table itself more than once, and how often, shape (rows, 2).
        Such a row may stand on both sides, as often together as in the table. These are
        reported, and do not refuse.
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
    if leaked:
        return GateResult(
            "clean_holdout",
            False,
            f"{leaked} of {len(holdout)} rows were trained on{note}; hold out others",
            metrics,
        )
    return GateResult("clean_holdout", True, f"{len(holdout)} rows, none of them trained on{note}", metrics)
