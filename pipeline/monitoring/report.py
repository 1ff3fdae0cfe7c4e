"""Write the report of a monitoring run: one HTML file without external resources, JSON and PNG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pipeline.monitoring.actions import ActionResult
from pipeline.monitoring.analysis import Analysis
from pipeline.monitoring.data.window import CurrentWindow
from pipeline.monitoring.figures import draw_figures
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
        drawn = draw_figures(analysis, baseline, window) if analysis.is_enough else {}
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
