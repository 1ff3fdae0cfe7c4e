"""The example store and the reports in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from matplotlib.image import imread
from mlflow import MlflowClient
from mlflow.entities import Run
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import SIZE, PageLog, contrast
from tests.support.constants import LONG
from tests.support.mlflow_ui import (
    FOUR,
    axis_titles,
    coloured,
    expect_training_view,
    open_comparison,
    open_runs,
    open_trials,
    runs_of,
    wait_for_lines,
)
from tests.support.screenshots import OF_A_GATED_SERVER, PICTURES, take, write_report
from tests.support.servers import eventually, example


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make ui` prints."""
    return tmp_path_factory.mktemp("example") / "server.log"


@pytest.fixture(scope="module")
def address(log: Path) -> Iterator[str]:
    """The address of the example store, shared by tests that only read."""
    with example(log) as address:
        yield address


def runs(address: str) -> dict[str, Run]:
    """Return the runs of the first experiment, by name."""
    return {run.info.run_name: run for run in runs_of(address)}


def test_errors_and_outside_requests_are_recorded(page: Page, page_log: PageLog, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.html", tmp_path / "bad.html"
    good.write_text('<h1>Good</h1><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">')
    bad.write_text(
        '<h1>Bad</h1><img src="https://127.0.0.1.example.org/a.png">'
        "<script>"
        'const socket = new WebSocket("ws://example.org/b");'
        'socket.onclose = () => document.title = "closed";'
        'console.error("it said so"); notThere();'
        "</script>"
    )
    page.goto(good.as_uri())
    expect(page.get_by_role("heading", name="Good")).to_be_visible()
    assert not page_log.errors
    assert not page_log.outside
    page.goto(bad.as_uri())
    expect(page).to_have_title("closed")
    assert sorted(page_log.outside) == ["https://127.0.0.1.example.org/a.png", "ws://example.org/b"]
    errors = "\n".join(page_log.errors)
    assert "it said so" in errors
    assert "notThere is not defined" in errors


@pytest.mark.slow
def test_each_printed_link_opens_in_the_view_for_model_training(page: Page, address: str, log: Path) -> None:
    eventually(lambda: "a sweep" in log.read_text())
    links = re.findall(rf"{address}/\S+", log.read_text())
    assert len(links) == 5
    for link in links:
        page.goto("about:blank")
        page.goto(link)
        expect_training_view(page)


@pytest.mark.slow
def test_the_page_of_an_experiment_lists_its_runs(page: Page, page_log: PageLog, address: str) -> None:
    open_runs(page, address)
    names = runs(address)
    assert len(names) == 8
    expect(page.get_by_text("8 matching runs")).to_be_visible()
    for name in names:
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    assert not page_log.outside


@pytest.mark.slow
def test_the_saved_view_shows_the_most_accurate_run_first(page: Page, address: str) -> None:
    open_runs(page, address, "digits", "best")
    trained = [run for run in runs_of(address, "digits") if "accuracy" in run.data.metrics]
    shown = page.locator(".ag-cell[col-id='metrics.`accuracy`']")
    expect(shown.nth(len(trained) - 1)).to_be_visible()
    values = [float(text.rstrip("…")) for text in shown.all_inner_texts()[: len(trained)]]
    assert values == pytest.approx(sorted((run.data.metrics["accuracy"] for run in trained), reverse=True))


@pytest.mark.slow
def test_four_runs_are_compared_by_parameters_metrics_and_a_plot(page: Page, address: str) -> None:
    open_comparison(page, address)
    there = runs(address)
    compared = [there[name] for name in FOUR]

    row = page.get_by_role("row").filter(has=page.get_by_text("estimator", exact=True)).first
    expect(row.get_by_role("cell")).to_have_text([run.data.params["estimator"] for run in compared])

    metrics = sorted(compared[0].data.metrics)
    names, values = (page.get_by_role("grid").nth(place) for place in (0, 1))
    expect(names.get_by_role("link")).to_have_text(metrics)
    shown = [f"{run.data.metrics[name]:.3f}" for name in metrics for run in compared]
    assert [f"{float(value):.3f}" for value in values.inner_text().split()] == shown

    expect(axis_titles(page)).to_have_text(["estimator", "max_iter", "model", "accuracy"])
    wait_for_lines(page)


@pytest.mark.slow
def test_the_trials_of_a_sweep_are_lines_over_their_parameters(page: Page, address: str) -> None:
    open_trials(page, address, "digits", 16)
    assert len(runs_of(address, "digits", "tags.kind = 'trial'")) == 16
    varied = ["model.colsample_bytree", "model.learning_rate", "model.max_depth"]
    expect(axis_titles(page)).to_have_text([*varied, "cv/accuracy_mean"])


@pytest.mark.slow
def test_the_page_of_a_version_shows_its_stage_and_one_sentence(page: Page, address: str) -> None:
    page.goto(f"{address}/#/models/iris/versions/3")
    expect(page.get_by_role("heading", name="Version 3")).to_be_visible()
    expect(page.get_by_text("@ production")).to_be_visible()
    expect(page.get_by_text("Production", exact=True)).to_be_visible()
    sentence = "logistic_regression on iris: accuracy 0.9667 on 30 held-out rows, trained on 120."
    expect(page.get_by_text(sentence, exact=True)).to_be_visible()


@pytest.mark.slow
def test_a_version_links_to_its_run_with_the_model_card_and_the_images(page: Page, address: str) -> None:
    run = runs(address)["logistic_regression"]
    page.goto(f"{address}/#/models/iris/versions/3")
    page.get_by_role("link", name="logistic_regression", exact=True).click()
    expect(page.get_by_role("heading", name="logistic_regression")).to_be_visible()
    expect(page.get_by_text("Where it fails.")).to_be_visible()
    expect(page.get_by_text("1 × versicolor taken for virginica")).to_be_visible()

    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("images", exact=True).click()
    files = [file.path for file in MlflowClient(address).list_artifacts(run.info.run_id, "images")]
    pictures = [path for path in files if path.endswith(".png")]
    assert len(pictures) >= 5
    for path in pictures:
        page.get_by_text(Path(path).name, exact=True).click()
        picture = page.get_by_role("img", name=path)
        expect(picture).to_be_visible()
        expect(picture).not_to_have_js_property("naturalWidth", 0)
        eventually(lambda shown=picture: coloured(shown.screenshot()) > 200)


@LONG
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_reports_work_without_network_script_and_mouse(
    page: Page, page_log: PageLog, address: str, tmp_path: Path, scheme: Literal["light", "dark"]
) -> None:
    comparison, timeline = tmp_path / "comparison.html", tmp_path / "timeline.html"
    write_report(["compare", "iris/3", "iris/2"], address, comparison)
    write_report(["history", "iris"], address, timeline)
    page.emulate_media(color_scheme=scheme)
    page.goto(comparison.as_uri())
    expect(page.get_by_role("heading", name="iris 3 compared with iris 2")).to_be_visible()
    for picture in page.get_by_role("img").all():
        expect(picture).not_to_have_js_property("naturalWidth", 0)
    assert page.get_by_role("img").count() == 6  # of iris 3; iris 2 was trained without plots
    assert contrast(page) >= 4.5
    page.keyboard.press("Tab")  # what is wider than the window can be reached and moved by keys
    assert page.evaluate("document.activeElement.className") == "wide"
    page.emulate_media(media="print")
    assert contrast(page) >= 4.5

    page.emulate_media(media="screen", color_scheme=scheme)
    page.goto(timeline.as_uri())
    expect(page.get_by_role("row").filter(has_text="rollback of production")).to_be_visible()
    expect(page.get_by_text("refused", exact=True)).to_be_visible()
    assert contrast(page) >= 4.5
    assert not page_log.errors
    assert not page_log.outside


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=LONG) if each in OF_A_GATED_SERVER else name
        for name, each in PICTURES.items()
    ],
)
def test_a_screenshot_of_the_readme_can_be_taken_again(
    browser: Browser, address: str, name: str, tmp_path: Path
) -> None:
    picture = take(browser, address, name, tmp_path)
    assert imread(picture).shape[1] == SIZE["width"]
    assert picture.stat().st_size < 150_000
