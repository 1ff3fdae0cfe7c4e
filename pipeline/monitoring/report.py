"""The page of a monitoring run: one file, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pipeline.monitoring import figures as pictures
from pipeline.monitoring.actions import ActionResult
from pipeline.monitoring.analysis import Analysis
from pipeline.monitoring.window import Window
from pipeline.training.baseline import TrainingBaseline
from registry_tools.reports.render import render


def said(analysis: Analysis) -> str:
    """Say in a sentence what was found of a version."""
    if not analysis.is_enough:
        return (
            f"{analysis.rows} rows, {analysis.needed} needed for a shift of "
            f"{analysis.shift:.1f} sd: nothing is said"
        )
    if not analysis.has_drift:
        return f"{analysis.rows} rows: no drift (a shift of {analysis.shift:.1f} sd would be seen)"
    clearest = analysis.found[0]
    return (
        f"{analysis.rows} rows: drift in {analysis.where()} ({clearest.subject}: {clearest.kind} "
        f"{clearest.statistic:.2f}, p {clearest.adjusted:.1g} corrected)"
    )


def write(
    folder: Path,
    head: Mapping[str, Any],
    seen: Sequence[tuple[Analysis, TrainingBaseline, Window]],
    entries: Sequence[ActionResult],
) -> None:
    """Write `report.html`, `findings.json`, and the pictures as PNG into a folder.

    Parameters
    ----------
    folder
        Where to.
    head
        `name`, `stage`, `current`, `run_id`, `version`, `alpha` and `notes` of the look.
    seen
        What was found of each version, with what it was found in; the one in the stage first.
    entries
        What followed.
    """
    versions = []
    for analysis, baseline, window in seen:
        drawn = _drawn(analysis, baseline, window) if analysis.is_enough else {}
        place = folder / "plots" / f"version-{analysis.version}"
        for name, (_, picture) in drawn.items():
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}.png").write_bytes(picture)
        versions.append(_told(analysis, analysis.version == head["version"], drawn))
    content = {
        **head,
        "versions": [analysis.as_dict() for analysis, _, _ in seen],
        "acts": [asdict(event) for event in entries],
    }
    (folder / "findings.json").write_text(
        json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    main = seen[0][0]
    page = render(
        "report.html",
        datetime.now(timezone.utc),
        Path(__file__).parent,
        **head,
        headline=f"Version {head['version']} in {head['stage']}: {said(main)}",
        tone="bad" if main.has_drift else "",
        entries=entries,
        versions=versions,
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _told(
    analysis: Analysis, in_stage: bool, drawn: Mapping[str, tuple[str, bytes]]
) -> dict[str, Any]:
    """Return what the page tells of a version."""
    return {
        "version": analysis.version,
        "in_stage": in_stage,
        "said": said(analysis),
        "accuracy": analysis.accuracy,
        "tests": sorted(analysis.tests, key=lambda test: test.adjusted),
        "features": sorted(analysis.features, key=lambda feature: -feature.psi),
        "pictures": [
            {"title": title, "source": _source(picture)} for title, picture in drawn.values()
        ],
    }


def _drawn(
    analysis: Analysis, baseline: TrainingBaseline, window: Window
) -> dict[str, tuple[str, bytes]]:
    """Return pictures by name, each with its title, as PNG."""
    shown = sorted(analysis.features, key=lambda feature: -feature.psi)[: pictures.MOST]
    some = f", the {len(shown)} with the largest PSI" if len(shown) < len(analysis.features) else ""
    figures = {"features": (f"Features{some}", pictures.features(baseline, window, shown))}
    if analysis.predictions:
        figures["predictions"] = ("Predictions", pictures.predictions(analysis))
    if len(shown[0].psi_over_time) > 1:
        title = "PSI over the window"
        figures["over_time"] = (title, pictures.over_time(shown[:6]))
    return {name: (title, _png(figure)) for name, (title, figure) in figures.items()}


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for such a letter
        figure.savefig(content, format="png", dpi=90)
    return content.getvalue()


def _source(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
