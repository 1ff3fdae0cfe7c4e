"""Build the page of `registry-tools compare --html`: two versions side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from registry_tools.evaluation.comparison import PairedPredictions, VersionPredictions, parameter
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.reports.number_comparison import compare_numbers
from registry_tools.reports.render import data_uri, render
from registry_tools.reports.table_parts import CHARACTERS, half_width, metric_values, row_values
from registry_tools.stats.metric_comparison import MetricComparison, compare_metrics
from registry_tools.stats.paired_metric import MetricDifference
from registry_tools.stats.paired_test import PairedComparison

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
        number = isinstance(compared.paired, MetricDifference)
        values = (compare_numbers if number else _compare_on_same_rows)(compared, titles)
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
    rows = [
        {"name": key, "first": parameter(first, key) or "-", "second": parameter(second, key) or "-"}
        for key in sorted({*first.params, *second.params})
    ]
    for key in sorted({*first.metrics, *second.metrics}):
        shown = (f"{each.metrics[key]:.4f}" if key in each.metrics else "-" for each in (first, second))
        rows.append({"name": key, **dict(zip(("first", "second"), shown, strict=True))})
    return rows


def _compare_on_same_rows(compared: PairedPredictions, titles: list[str]) -> dict[str, Any]:
    one, two = compared.first, compared.second
    probabilities = None
    if one.probabilities is not None and two.probabilities is not None:
        probabilities = (one.probabilities, one.classes), (two.probabilities, two.classes)
    found = compare_metrics(compared.labels, one.names, two.names, probabilities)
    shown = _select_metrics(found)
    # Log loss has its own scale.
    widest = max(half_width(metric) for metric in shown if not metric.less_is_better)
    paired = _by_classes(compared)
    only_first, only_second = paired.only_candidate_right, paired.only_champion_right
    both = round(paired.candidate_accuracy * paired.rows) - only_first
    unlike = np.flatnonzero(one.names != two.names)
    return {
        "rows": compared.rows_phrase,
        "summary": _summary(compared, found[0], titles),
        "digits": "%.4f",
        **metric_values(shown, titles, lambda each: half_width(each) if each.less_is_better else widest),
        "tested": sum(metric.p_value is not None for metric in found),
        "left_out": len(found) - len(shown),
        "counts": {
            "both": both,
            "first": only_first,
            "second": only_second,
            "neither": paired.rows - both - only_first - only_second,
        },
        "chance": {"worse": paired.p_worse, "better": paired.p_better},
        "unknown": _unknown_classes(compared, titles),
        "disagreed": len(unlike),
        **_disagreements(compared, unlike),
    }


def _by_classes(compared: PairedPredictions) -> PairedComparison:
    assert isinstance(compared.paired, PairedComparison)
    return compared.paired


def _select_metrics(found: list[MetricComparison]) -> list[MetricComparison]:
    """Return the metrics to show: all overall metrics, and the class metrics that differ most."""
    of_classes = [metric for metric in found if metric.of_class]
    kept = sorted(of_classes, key=lambda f: (f.better is None, -abs(f.first.value - f.second.value)))
    kept = kept[:_CLASS_METRICS]
    return [metric for metric in found if not metric.of_class or metric in kept]


def _summary(compared: PairedPredictions, accuracy: MetricComparison, titles: list[str]) -> str:
    paired, rows = _by_classes(compared), compared.rows_phrase
    more = paired.only_candidate_right - paired.only_champion_right
    if more == 0:
        verdict = f"Both are right equally often on {rows}"
    else:
        verdict = f"{titles[0 if more > 0 else 1]} is right on {abs(more)} more of {rows}"
    difference = accuracy.difference
    assert difference is not None
    chance = "which may be chance" if accuracy.better is None else "which is significant"
    return (
        f"{verdict}: accuracy {accuracy.first.value:.4f} and {accuracy.second.value:.4f}, "
        f"difference {difference.value:+.4f} "
        f"[{difference.low:+.4f}, {difference.high:+.4f}], {chance}."
    )


def _unknown_classes(compared: PairedPredictions, titles: list[str]) -> list[str]:
    found = []
    for title, predictions in zip(titles, (compared.first, compared.second), strict=True):
        for name in sorted(set(compared.labels.tolist()) - set(predictions.classes)):
            if predictions.classes:
                count = int(np.sum(compared.labels == name))
                found.append(f"{title} does not know the class {name}, the label of {count} rows")
    return found


def _disagreements(compared: PairedPredictions, unlike: Any) -> dict[str, Any]:
    """Return the rows with different predictions; rows that one version predicted right come first."""
    labels = compared.labels
    ones, twos = (predictions.names == labels for predictions in (compared.first, compared.second))
    order = sorted(unlike, key=lambda place: (not (ones[place] or twos[place]), place))

    def cells(place: int) -> dict[str, str]:
        return {
            "label": str(labels[place])[:CHARACTERS],
            "first": _prediction_text(compared.first, labels, place),
            "second": _prediction_text(compared.second, labels, place),
        }

    return row_values(compared.rows, order, cells)


def _prediction_text(predictions: VersionPredictions, labels: Any, place: int) -> str:
    name = str(predictions.names[place])
    text = ("✓ " if predictions.names[place] == labels[place] else "") + name[:CHARACTERS]
    if predictions.probabilities is None or name not in predictions.classes:
        return text
    return f"{text} ({predictions.probabilities[place, predictions.classes.index(name)]:.2f})"


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
