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
from pipeline.monitoring.actions import FollowUp
from pipeline.monitoring.analysis import Findings
from pipeline.monitoring.window import Window
from pipeline.training.baseline import Reference
from registry_tools.reports.render import render


def said(findings: Findings) -> str:
    """Say in a sentence what was found of a version."""
    if not findings.is_enough:
        return (
            f"{findings.rows} rows, {findings.needed} needed for a shift of "
            f"{findings.shift:.1f} sd: nothing is said"
        )
    if not findings.has_drift:
        return f"{findings.rows} rows: no drift (a shift of {findings.shift:.1f} sd would be seen)"
    clearest = findings.found[0]
    return (
        f"{findings.rows} rows: drift in {findings.where()} ({clearest.subject}: {clearest.kind} "
        f"{clearest.statistic:.2f}, p {clearest.adjusted:.1g} corrected)"
    )


def write(
    folder: Path,
    head: Mapping[str, Any],
    seen: Sequence[tuple[Findings, Reference, Window]],
    acts: Sequence[FollowUp],
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
    acts
        What followed.
    """
    versions = []
    for findings, reference, window in seen:
        drawn = _drawn(findings, reference, window) if findings.is_enough else {}
        place = folder / "plots" / f"version-{findings.version}"
        for name, (_, picture) in drawn.items():
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}.png").write_bytes(picture)
        versions.append(_told(findings, findings.version == head["version"], drawn))
    content = {
        **head,
        "versions": [findings.as_dict() for findings, _, _ in seen],
        "acts": [asdict(act) for act in acts],
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
        acts=acts,
        versions=versions,
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _told(
    findings: Findings, in_stage: bool, drawn: Mapping[str, tuple[str, bytes]]
) -> dict[str, Any]:
    """Return what the page tells of a version."""
    return {
        "version": findings.version,
        "in_stage": in_stage,
        "said": said(findings),
        "accuracy": findings.accuracy,
        "tests": sorted(findings.tests, key=lambda test: test.adjusted),
        "features": sorted(findings.features, key=lambda feature: -feature.psi),
        "pictures": [
            {"title": title, "source": _source(picture)} for title, picture in drawn.values()
        ],
    }


def _drawn(
    findings: Findings, reference: Reference, window: Window
) -> dict[str, tuple[str, bytes]]:
    """Return pictures by name, each with its title, as PNG."""
    shown = sorted(findings.features, key=lambda feature: -feature.psi)[: pictures.MOST]
    some = f", the {len(shown)} with the largest PSI" if len(shown) < len(findings.features) else ""
    figures = {"features": (f"Features{some}", pictures.features(reference, window, shown))}
    if findings.predictions:
        figures["predictions"] = ("Predictions", pictures.predictions(findings))
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
