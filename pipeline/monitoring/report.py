"""Write the report of a monitoring run: one HTML file without external resources, JSON and PNG."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pipeline.monitoring import figures
from pipeline.monitoring.actions import ActionResult
from pipeline.monitoring.analysis import Analysis
from pipeline.monitoring.data.window import CurrentWindow
from pipeline.monitoring.run_log import REPORT
from pipeline.training.baseline import TrainingBaseline
from registry_tools.reports.render import data_uri, render

Findings = tuple[Analysis, TrainingBaseline, CurrentWindow]  # of one version


def write_report(
    folder: Path, head: Mapping[str, Any], findings: Sequence[Findings], actions: Sequence[ActionResult]
) -> None:
    """Write `report.html`, `findings.json`, and the figures as PNG into a folder.

    Parameters
    ----------
    folder
        An existing folder.
    head
        `name`, `stage`, `current`, `run_id`, `version`, `alpha` and `notes` of the run.
    findings
        The findings of each version, the version in the stage first.
    actions
        The results of the actions.
    """
    versions = []
    for analysis, baseline, window in findings:
        drawn = _draw_figures(analysis, baseline, window) if analysis.is_enough else {}
        for name, (_, png) in drawn.items():
            path = folder / "plots" / f"version-{analysis.version}" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png)
        embedded = [(title, data_uri(png)) for title, png in drawn.values()]
        versions.append({"analysis": analysis, "figures": embedded})
    content = {
        **head,
        "versions": [analysis.as_dict() for analysis, _, _ in findings],
        "actions": [asdict(action) for action in actions],
    }
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / "findings.json").write_text(text + "\n", encoding="utf-8")
    here, now = Path(__file__).parent, datetime.now(timezone.utc)
    page = render("report.html", now, here, **head, actions=actions, versions=versions)
    (folder / REPORT).write_text(page, encoding="utf-8")


def _draw_figures(
    analysis: Analysis, baseline: TrainingBaseline, window: CurrentWindow
) -> dict[str, tuple[str, bytes]]:
    """Return the title and the PNG bytes of each figure, by name."""
    shown = sorted(analysis.features, key=lambda feature: -feature.psi)[: figures.MAX_FEATURES]
    some = f", the {len(shown)} with the largest PSI" if len(shown) < len(analysis.features) else ""
    drawn = {"features": (f"Features{some}", figures.draw_features(baseline, window, shown))} if shown else {}
    if analysis.predictions:
        drawn["predictions"] = ("Predictions", figures.draw_predictions(analysis, baseline, window))
    if shown and len(shown[0].psi_over_time) > 1:
        title = "PSI over the window"
        drawn["over_time"] = (title, figures.draw_psi_over_time(shown[:6]))
    return {name: (title, _png(figure)) for name, (title, figure) in drawn.items()}


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # matplotlib draws a box for the letter
        figure.savefig(content, format="png", dpi=90)
    return content.getvalue()
