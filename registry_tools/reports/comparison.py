"""The page of `registry-tools compare --html`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pandas as pd

from registry_tools.intervals import Figure, figures, log_loss
from registry_tools.registry import VersionInfo
from registry_tools.reports.render import render
from registry_tools.side_by_side import AnswersOf, SideBySide

_ROWS = 50
_COLUMNS = 12
_SHORT = 16  # digits of a digest
_MIDDLE, _HALF = 80, 70  # of the drawing of an interval, in pixels

Pictures = Mapping[str, bytes]  # PNG, by name


def comparison_page(
    first: VersionInfo,
    second: VersionInfo,
    compared: SideBySide | str,
    pictures: tuple[Pictures, Pictures],
    made: datetime,
) -> str:
    """Return the two versions side by side as HTML.

    Parameters
    ----------
    first, second
        The versions.
    compared
        Both on the same rows, or why they could not be.
    pictures
        Those of the run of each.
    made
        Now, in UTC.
    """
    titles = [f"{version.name} {version.version}" for version in (first, second)]
    values: dict[str, Any] = {"paired": None}
    if isinstance(compared, SideBySide):
        values = _on_the_same_rows(compared, titles)
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
        **values,
    )


def _identity(first: VersionInfo, second: VersionInfo) -> list[dict[str, str]]:
    def row(name: str, *values: str | None) -> dict[str, str]:
        return {"name": name, "first": values[0] or "-", "second": values[1] or "-"}

    both = (first, second)
    unlike = [
        row(key, *(each.params.get(key) for each in both))
        for key in sorted({*first.params, *second.params})
        if first.params.get(key) != second.params.get(key) and key != "model"
    ]
    digests = [[each.digest, each.tags.get("data_digest")] for each in both]
    files, data = ([(each or "-")[:_SHORT] for each in pair] for pair in zip(*digests, strict=True))
    return [
        row("model", *(each.params.get("model") for each in both)),
        *unlike,
        row("stages", *(", ".join(each.stages) for each in both)),
        row("registered", *(_day(each.created_at) for each in both)),
        row("run", *(each.run_id for each in both)),
        row("files, SHA-256", *files),
        row("data, SHA-256", *data),
    ]


def _day(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, timezone.utc):%Y-%m-%d %H:%M} UTC"


def _logged(first: VersionInfo, second: VersionInfo) -> list[dict[str, str]]:
    rows = [
        {"name": key, "first": first.params.get(key, "-"), "second": second.params.get(key, "-")}
        for key in sorted({*first.params, *second.params})
    ]
    for key in sorted({*first.metrics, *second.metrics}):
        shown = (
            f"{each.metrics[key]:.4f}" if key in each.metrics else "-" for each in (first, second)
        )
        rows.append({"name": key, **dict(zip(("first", "second"), shown, strict=True))})
    return rows


def _on_the_same_rows(compared: SideBySide, titles: list[str]) -> dict[str, Any]:
    one, two = compared.first, compared.second
    found = figures(compared.labels, one.names, two.names)
    if one.probabilities is not None and two.probabilities is not None:
        loss = log_loss(
            compared.labels, (one.probabilities, one.classes), (two.probabilities, two.classes)
        )
        found += [loss] if loss is not None else []
    # Log loss has a scale of its own.
    widest = max(_reach(figure) for figure in found if not figure.less_is_better)
    paired = compared.paired
    unlike = np.flatnonzero(one.names != two.names)
    both = round(paired.candidate_accuracy * paired.rows) - paired.only_candidate_right
    neither = paired.rows - both - paired.only_candidate_right - paired.only_champion_right
    return {
        "paired": paired,
        "summary": _summary(compared, titles),
        "clear": [f"{f.name} ({_shows(f, titles)})" for f in found if _better(f) is not None],
        "figures": [
            vars(figure)
            | {
                "drawn": _drawn(figure, _reach(figure) if figure.less_is_better else widest),
                "shows": _shows(figure, titles),
            }
            for figure in found
        ],
        "counts": {"both": both, "neither": neither},
        "disagreed": len(unlike),
        "disagreements": _disagreements(compared, unlike),
        "columns": [str(column) for column in compared.rows.columns[:_COLUMNS]],
        "more_columns": max(0, compared.rows.shape[1] - _COLUMNS),
    }


def _summary(compared: SideBySide, titles: list[str]) -> str:
    paired = compared.paired
    rows = f"{paired.rows} rows that neither was trained on"
    if paired.only_candidate_right == paired.only_champion_right:
        verdict = f"Both are right equally often on {rows}"
    else:
        ahead = titles[0 if paired.difference > 0 else 1]
        more = abs(paired.only_candidate_right - paired.only_champion_right)
        verdict = f"{ahead} is right on {more} more of {rows}"
    shown = paired.p_worse < 0.05 or paired.p_better < 0.05
    chance = "more than chance would do" if shown else "which may be chance"
    return (
        f"{verdict}: accuracy {paired.candidate_accuracy:.4f} and {paired.champion_accuracy:.4f}, "
        f"difference {paired.difference:+.4f} [{paired.low:+.4f}, {paired.high:+.4f}], {chance}."
    )


def _reach(figure: Figure) -> float:
    return max(abs(figure.difference.low), abs(figure.difference.high), 1e-9)


def _better(figure: Figure) -> int | None:
    """Return which of the two the interval shows to be better, 0 or 1; None if it shows neither."""
    interval = figure.difference
    if interval.low > 0 or interval.high < 0:
        return int((interval.low > 0) == figure.less_is_better)
    return None


def _shows(figure: Figure, titles: list[str]) -> str:
    better = _better(figure)
    return "not clear" if better is None else f"{titles[better]} is better"


def _drawn(figure: Figure, widest: float) -> dict[str, Any]:
    interval = figure.difference
    places = {
        name: round(_MIDDLE + _HALF * value / widest, 1) for name, value in vars(interval).items()
    }
    better = _better(figure)
    return places | {"colour": "quiet" if better is None else ("first", "second")[better]}


def _disagreements(compared: SideBySide, unlike: Any) -> list[dict[str, Any]]:
    """Return the rows of different answers: those that only one had right come first."""
    labels = compared.labels
    ones, twos = (answers.names == labels for answers in (compared.first, compared.second))
    order = sorted(unlike, key=lambda place: (not (ones[place] or twos[place]), place))
    return [
        {
            "place": int(place),
            "label": str(labels[place]),
            "first": _answer(compared.first, labels, place),
            "second": _answer(compared.second, labels, place),
            "values": [_value(v) for v in compared.rows.iloc[place].tolist()[:_COLUMNS]],
        }
        for place in order[:_ROWS]
    ]


def _answer(answers: AnswersOf, labels: Any, place: int) -> str:
    name = str(answers.names[place])
    said = f"✓ {name}" if answers.names[place] == labels[place] else name
    if answers.probabilities is None or name not in answers.classes:
        return said
    return f"{said} ({answers.probabilities[place, answers.classes.index(name)]:.2f})"


def _value(value: Any) -> str:
    if pd.isna(value):
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]


def _side_by_side(pictures: tuple[Pictures, Pictures], titles: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "name": name.replace("_", " "),
            "images": [
                (title, _as_address(own[name]) if name in own else None)
                for title, own in zip(titles, pictures, strict=True)
            ],
        }
        for name in sorted({*pictures[0], *pictures[1]})
    ]


def _as_address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
