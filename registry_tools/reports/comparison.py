"""Build the page of `registry-tools compare --html`: two versions side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from registry_tools.evaluation.comparison import Comparison, PairedPredictions, parameter
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.reports.render import data_uri, render
from registry_tools.reports.table_parts import metric_values, row_values, value_text
from registry_tools.stats.metric import Outcomes
from registry_tools.stats.metric_comparison import MetricComparison, compare_metrics, compare_number_metrics

_CLASS_METRICS = 20
_SHORT = 16  # digits of a digest

Pictures = Mapping[str, bytes]  # PNG, by name


def comparison_page(
    first: VersionInfo,
    second: VersionInfo,
    compared: PairedPredictions | str,
    pictures: tuple[Pictures, Pictures],
    made: datetime,
    left_out: Sequence[str] = (),
) -> str:
    """Return the comparison of two versions as an HTML page.

    Parameters
    ----------
    first, second
        The versions.
    compared
        Both on the same rows, or the reason why they could not be compared.
    pictures
        The plots of the run of each version.
    made
        The current time, in UTC.
    left_out
        The names of plots that the page does not show.
    """
    titles = [f"{version.name} {version.version}" for version in (first, second)]
    values: dict[str, Any] = {"summary": None}
    if isinstance(compared, PairedPredictions):
        values = _compare_on_same_rows(compared, titles)
    else:
        values["why_not"] = compared
    return render(
        "comparison.html",
        made,
        first={"title": titles[0]},
        second={"title": titles[1]},
        identity=_identity(first, second),
        logged=_logged(first, second),
        pictures=_side_by_side(pictures, titles),
        left_out_pictures=", ".join(left_out),
        **values,
    )


def _identity(first: VersionInfo, second: VersionInfo) -> list[dict[str, str]]:
    def row(name: str, *values: str | None) -> dict[str, str]:
        return {"name": name, "first": values[0] or "-", "second": values[1] or "-"}

    both = (first, second)
    unlike = [
        row(key, *(parameter(each, key) for each in both))
        for key in sorted({*first.params, *second.params})
        if parameter(first, key) != parameter(second, key) and key != "model"
    ]
    digests = [[each.digest, each.tags.get("data_digest")] for each in both]
    files, data = ([(each or "-")[:_SHORT] for each in pair] for pair in zip(*digests, strict=True))
    return [
        row("model", *(each.params.get("model") for each in both)),
        *unlike,
        row("stages", *(", ".join(each.stages) for each in both)),
        row("registered", *(f"{each.created_at[:16].replace('T', ' ')} UTC" for each in both)),
        row("run", *(each.run_id for each in both)),
        row("files, SHA-256", *files),
        row("data, SHA-256", *data),
    ]


def _logged(first: VersionInfo, second: VersionInfo) -> list[dict[str, str]]:
    def text(value: str | float | None) -> str:
        return f"{value:.4f}" if isinstance(value, float) else value or "-"

    return [
        {"name": name, "first": text(of_first), "second": text(of_second)}
        for kind, name, of_first, of_second in Comparison(first, second, None).values()
        if kind != "data"
    ]


def _compare_on_same_rows(compared: PairedPredictions, titles: list[str]) -> dict[str, Any]:
    first, second, paired = compared.first, compared.second, compared.paired
    right = [np.asarray(each.predicted == each.labels) for each in (first, second)]
    if paired.is_accuracy:
        found = compare_metrics(first, second)
        unlike = np.flatnonzero(first.predicted != second.predicted)
        order = ~(right[0] | right[1])  # rows that one version predicted right come first
    else:
        found = compare_number_metrics(compared.differences, first, second)
        unlike = np.flatnonzero(first.predicted - second.predicted)
        order = -np.abs(first.predicted - second.predicted)
    shown = _select_metrics(found)
    counts = {
        "both": np.sum(right[0] & right[1]),
        "first": paired.only_candidate_right,
        "second": paired.only_champion_right,
        "neither": np.sum(~(right[0] | right[1])),
    }
    return {
        "rows": compared.rows_phrase,
        "summary": _summary(compared, found[0], titles),
        "asked": compared.asked.summary if compared.asked else None,
        "digits": f"%{paired.format}",
        **metric_values(shown, titles),
        "tested": sum(metric.p_value is not None for metric in found),
        "left_out": len(found) - len(shown),
        "counts": counts if paired.is_accuracy else None,
        "chance": {"worse": paired.p_worse, "better": paired.p_better},
        "unknown": _unknown_classes(first, titles[0]) + _unknown_classes(second, titles[1]),
        "disagreed": len(unlike),
        **row_values(
            compared.rows,
            unlike[np.argsort(order[unlike], kind="stable")],
            lambda place: {
                "label": value_text(first.labels[place]),
                "first": _prediction_text(first, place),
                "second": _prediction_text(second, place),
            },
        ),
    }


def _select_metrics(found: list[MetricComparison]) -> list[MetricComparison]:
    """Return the metrics to show: all overall metrics, and the class metrics that differ most."""
    of_classes = [metric for metric in found if metric.of_class]
    kept = sorted(of_classes, key=lambda f: (f.better is None, -abs(f.first.value - f.second.value)))
    kept = kept[:_CLASS_METRICS]
    return [metric for metric in found if not metric.of_class or metric in kept]


def _summary(compared: PairedPredictions, main: MetricComparison, titles: list[str]) -> str:
    """Return the first sentence of the page, on the accuracy of classes or the rmse of numbers."""
    c, rows, shown = compared.paired, compared.rows_phrase, compared.paired.format
    better = titles[0 if (c.difference < 0) == c.less_is_better else 1]
    if c.only_candidate_right is not None and c.only_champion_right is not None:
        more = abs(c.only_candidate_right - c.only_champion_right)
        verdict = f"{better} is right on {more} more of" if more else "Both are right equally often on"
    else:
        verdict = (
            f"{better} has the smaller {c.metric} on" if c.difference else f"Both have the same {c.metric} on"
        )
    chance = "which may be chance" if main.better is None else "which is significant"
    return (
        f"{verdict} {rows}: {'accuracy ' * c.is_accuracy}{c.candidate:{shown}} and {c.champion:{shown}}, "
        f"difference {c.difference:+{shown}} [{c.low:+{shown}}, {c.high:+{shown}}], {chance}."
    )


def _unknown_classes(outcomes: Outcomes, title: str) -> list[str]:
    if not outcomes.classes:
        return []
    labels = outcomes.labels.tolist()
    return [
        f"{title} does not know the class {name}, the label of {labels.count(name)} rows"
        for name in sorted(set(labels) - set(outcomes.classes))
    ]


def _prediction_text(outcomes: Outcomes, place: int) -> str:
    """Return a predicted number with its error, or a class with ✓ if it is right, and its probability."""
    label, predicted = outcomes.labels[place], outcomes.predicted[place]
    if isinstance(predicted, float):
        return f"{predicted:.5g} ({predicted - label:+.5g})"
    text = ("✓ " if predicted == label else "") + value_text(predicted)
    if outcomes.probabilities is None or predicted not in outcomes.classes:
        return text
    return f"{text} ({outcomes.probabilities[place, outcomes.classes.index(predicted)]:.2f})"


def _side_by_side(pictures: tuple[Pictures, Pictures], titles: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "name": name.replace("_", " "),
            "images": [
                (title, data_uri(own[name]) if name in own else None)
                for title, own in zip(titles, pictures, strict=True)
            ],
        }
        for name in sorted({*pictures[0], *pictures[1]})
    ]
