"""Say the rules of a stage in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from registry_tools.policy.definition import GateRules, StagePolicy


def explain(rules: StagePolicy) -> list[tuple[str, str]]:
    """Return the rules of a stage as rows: the name of a rule and a sentence."""
    count, approvers = rules.approvals.count, _names(rules.approvals.by)
    approvals = (
        f"a promotion needs {count} from {approvers}, not from its requester or the user who registered it"
    )
    rows = [
        ("stage", f"{rules.stage} of the models {rules.pattern} in the registry {rules.registry!r}"),
        ("verdict", f"signed by {_names(list(rules.evaluators))}, valid for {_time(rules)}"),
        *(("gates", text) for text in _gates(rules.gates)),
        ("approvals", approvals if count else "a promotion needs none"),
        ("rollback", f"{_names(rules.rollback)} may roll back"),
        ("force", f"{_names(rules.force)} may move the stage without a verdict, with a reason"),
    ]
    for freeze in rules.freeze:
        times = f"from {freeze.start.isoformat()} until {freeze.until.isoformat()}"
        rows.append(("freeze", f"no promotion {times}: {freeze.reason}"))
    return rows


def _gates(gates: GateRules) -> Iterator[str]:
    metric = "the metric of the champion" if gates.metric == "auto" else gates.metric
    yield f"{gates.rule}: compared with the champion by {metric}, with the margin {gates.margin:g}"
    for name, value in gates.min.items():
        yield f"{name} is at least {value:g}"
    for name, value in gates.max.items():
        yield f"{name} is at most {value:g}"
    if gates.baseline:
        yield "better than the best constant prediction"
    for column in gates.slices:
        yield f"not significantly worse than the champion in any group of {column}"
    if gates.max_latency_ms is not None:
        yield f"the median time for one row is at most {gates.max_latency_ms:g} ms"
    if gates.max_latency_ratio is not None:
        yield f"that time is at most {gates.max_latency_ratio:g} times the champion's"
    if gates.max_size_ratio is not None:
        yield f"the files are at most {gates.max_size_ratio:g} times as large as the champion's"
    if gates.onnx:
        yield "an ONNX file predicts the same"


def _time(rules: StagePolicy) -> str:
    minutes = round(rules.expires.total_seconds() / 60)
    for unit, length in (("days", 1440), ("hours", 60)):
        if minutes % length == 0:
            return f"{minutes // length} {unit}"
    return f"{minutes} minutes"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "nobody"
