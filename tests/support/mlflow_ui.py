"""Navigate the MLflow UI as a user does, for the browser tests and the screenshots."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Sequence
from urllib.parse import urlencode

import numpy as np
from matplotlib.image import imread
from mlflow import MlflowClient
from mlflow.entities import Run
from playwright.sync_api import Locator, Page, expect

from tests.support.browser import PATIENCE
from tests.support.servers import eventually

FOUR = (
    "logistic_regression C=0.01",
    "knn n_neighbors=15",
    "svc C=10.0 kernel=linear",
    "random_forest n_estimators=10",
)
_LINES = ".js-plotly-plot canvas.gl-canvas-focus"


def expect_training_view(page: Page) -> None:
    """Expect the navigation for model training; the one for generative AI has no registry."""
    expect(page.get_by_role("link", name="Model registry")).to_be_visible()


def runs_of(address: str, experiment: str = "iris", condition: str = "") -> list[Run]:
    """Return the runs of an experiment, newest first."""
    client = MlflowClient(address)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id], condition)


def open_runs(page: Page, address: str, experiment: str = "iris", view: str | None = None) -> None:
    """Open an experiment, perhaps in a saved view, and wait for its table of runs."""
    place = MlflowClient(address).get_experiment_by_name(experiment).experiment_id
    shared = f"&viewStateShareKey={view}" if view else ""
    page.goto(f"{address}/#/experiments/{place}/runs?workflowType=machine_learning{shared}")
    expect(page.get_by_text("matching runs")).to_be_visible()


def save_alias(page: Page, address: str, account: tuple[str, ...], version: str, alias: str) -> None:
    """Add an alias on the page of a version that has one, as the user with a name and a password."""
    sign_in = b64encode(":".join(account).encode()).decode()
    page.set_extra_http_headers({"Authorization": f"Basic {sign_in}"})
    page.goto(f"{address}/#/{version}?workflowType=machine_learning")
    page.reload()  # the address of an open page differs in its fragment only
    page.get_by_role("button", name="Edit aliases").click()
    page.get_by_role("dialog").get_by_role("combobox").fill(alias)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Save aliases").click()


def open_chart(page: Page, address: str, runs: Sequence[Run], metrics: Sequence[str]) -> None:
    """Open the chart of metrics over their steps, and wait for a line for each metric of each run."""
    chart = {
        "metric": json.dumps(metrics[0]),
        "plot_metric_keys": json.dumps(metrics),
        "plot_layout": json.dumps({"autosize": True, "xaxis": {}, "yaxis": {}}),
        "x_axis": "step",
        "y_axis_scale": "linear",
        "line_smoothness": "1",
        "show_point": "false",
        "deselected_curves": "[]",
        "last_linear_y_axis_range": "[]",
    }
    _open_with(page, f"{address}/#/metric", runs, chart)
    lines = page.locator(".js-plotly-plot .scatterlayer .trace")  # the plot draws each line and its band
    expect(lines).to_have_count(2 * len(runs) * len(metrics))


def _open_with(page: Page, path: str, runs: Sequence[Run], query: dict[str, str]) -> None:
    chosen = {
        "runs": json.dumps([run.info.run_id for run in runs]),
        "experiments": json.dumps([runs[0].info.experiment_id]),
    }
    page.goto(f"{path}?{urlencode(chosen | query | {'workflowType': 'machine_learning'})}")


def open_comparison(page: Page, address: str, names: Sequence[str] = FOUR) -> None:
    """Select runs in the table, press Compare, and wait for the plot."""
    open_runs(page, address)
    for name in names:
        link = page.get_by_role("link", name=name, exact=True)
        page.get_by_role("row").filter(has=link).get_by_role("checkbox").first.check()
    _compare(page, len(names))


def open_trials(page: Page, address: str, experiment: str, count: int) -> None:
    """Search for the trials of the sweeps, select all, press Compare, and wait for the plot."""
    # Sorted by date, the table would hide the trials under the row of their sweep.
    open_runs(page, address, experiment, "best")
    field = page.get_by_placeholder("metrics.rmse")
    field.fill("tags.kind = 'trial'")
    field.press("Enter")
    expect(page.get_by_text(f"{count} matching runs")).to_be_visible()
    page.get_by_role("columnheader").get_by_role("checkbox").first.check()
    _compare(page, count)


def _compare(page: Page, count: int) -> None:
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_text(f"Comparing {count} Runs")).to_be_visible()
    wait_for_lines(page)


def axis_titles(page: Page) -> Locator:
    """Return the titles of the axes in the parallel coordinates plot."""
    return page.locator(".js-plotly-plot .axis-title")


def wait_for_lines(page: Page) -> None:
    """Wait until the plot shows lines between the axes; fail if none appear."""
    expect(page.locator(_LINES)).to_be_visible()
    eventually(lambda: coloured(_between_the_axes(page)) > 200, seconds=PATIENCE / 1000)


def coloured(png: bytes) -> int:
    """Count the pixels that are neither white, grey nor black."""
    return int(np.count_nonzero(np.ptp(imread(io.BytesIO(png))[..., :3], axis=2) > 0.3))


def _between_the_axes(page: Page) -> bytes:
    """Return a screenshot of the lines only, without the colour bar at the side."""
    lines = page.locator(_LINES).bounding_box()
    first = axis_titles(page).first.bounding_box()
    last = axis_titles(page).last.bounding_box()
    left, right = first["x"] + first["width"], last["x"]
    return page.screenshot(
        clip={"x": left, "width": right - left, "y": lines["y"], "height": lines["height"]}
    )
