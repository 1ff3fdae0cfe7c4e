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


def summary_sentence(analysis: Analysis) -> str:
    """Return one sentence that states the result for a version."""
    if not analysis.is_enough:
        return (
            f"{analysis.rows} rows, too few to test: {analysis.min_rows} are needed, which find a shift "
            f"of {analysis.detectable_shift:.1f} sd"
        )
    if not analysis.has_drift:
        shift = f"a shift of {analysis.detectable_shift:.1f} sd would be detected"
        return f"{analysis.rows} rows: no drift ({shift})"
    clearest = analysis.significant_tests[0]
    return (
        f"{analysis.rows} rows: drift in {analysis.where()}; the clearest is {clearest.target}: "
        f"{clearest.kind} {clearest.statistic:.2f}, corrected p {clearest.adjusted_p_value:.1g}"
    )


def write_report(
    folder: Path,
    head: Mapping[str, Any],
    findings: Sequence[tuple[Analysis, TrainingBaseline, CurrentWindow]],
    actions: Sequence[ActionResult],
) -> None:
    """Write `report.html`, `findings.json`, and the figures as PNG into a folder.

    Parameters
    ----------
    folder
        An existing folder.
    head
        `name`, `stage`, `current`, `run_id`, `version`, `alpha` and `notes` of the run.
    findings
        Analysis, baseline and window of each version, the version in the stage first.
    actions
        The results of the actions.
    """
    versions = []
    for analysis, baseline, window in findings:
        drawn = _draw_figures(analysis, baseline, window) if analysis.is_enough else {}
        place = folder / "plots" / f"version-{analysis.version}"
        for name, (_, png) in drawn.items():
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}.png").write_bytes(png)
        versions.append(_version_context(analysis, analysis.version == head["version"], drawn))
    content = {
        **head,
        "versions": [analysis.as_dict() for analysis, _, _ in findings],
        "actions": [asdict(action) for action in actions],
    }
    (folder / "findings.json").write_text(
        json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    main = findings[0][0]
    page = render(
        "report.html",
        datetime.now(timezone.utc),
        Path(__file__).parent,
        **head,
        headline=f"Version {head['version']} in {head['stage']}: {summary_sentence(main)}",
        tone="bad" if main.has_drift else "",
        actions=actions,
        versions=versions,
    )
    (folder / REPORT).write_text(page, encoding="utf-8")


def _version_context(
    analysis: Analysis, in_stage: bool, drawn: Mapping[str, tuple[str, bytes]]
) -> dict[str, Any]:
    """Return the values that the template shows for one version."""
    return {
        "version": analysis.version,
        "in_stage": in_stage,
        "summary": summary_sentence(analysis),
        "performance": analysis.performance,
        "tests": sorted(analysis.tests, key=lambda test: test.adjusted_p_value),
        "features": sorted(analysis.features, key=lambda feature: -feature.psi),
        "figures": [{"title": title, "source": data_uri(png)} for title, png in drawn.values()],
    }


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
